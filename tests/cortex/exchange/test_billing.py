"""What an attempt is billed by how it ended, decided without a gateway."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from helexa.cortex.exchange.billing import bill, was_refused
from helexa.cortex.exchange.desk import Outcome
from helexa.relay.upstream import Failure


@pytest.mark.parametrize(
    ("outcome", "sent", "refused", "expected"),
    [
        ("failed", False, False, "withdrawn"),
        ("cancelled", False, False, "withdrawn"),
        ("cancelled", True, False, "by record"),  # the client's own doing
        ("broken", True, False, "by record"),  # it has had a part
        ("complete", True, False, "by record"),  # an answer without its count
        ("failed", True, True, "nothing"),
        ("failed", True, False, "discarded"),
    ],
)
def test_only_what_was_relayed_or_left_by_its_client_is_billed(
    outcome: Outcome, sent: bool, refused: bool, expected: str
) -> None:
    assert bill(outcome, sent=sent, refused=refused) == expected


@pytest.mark.parametrize(
    ("failure", "status", "expected"),
    [
        (None, 503, True),
        (None, 429, True),
        (None, 0, False),  # we let go of it before it had answered
        (None, 200, False),  # it began to answer
        (Failure.RESET, 0, False),
        (Failure.RESET, 503, False),  # and nobody knows what it had to say
        (Failure.TIMEOUT_FIRST, 0, False),
        (Failure.FRAMING, 200, False),
    ],
)
def test_only_a_node_that_has_answered_with_an_error_has_refused(
    failure: Failure | None, status: int, expected: bool
) -> None:
    attempt: Any = SimpleNamespace(failure=failure, status=status)
    assert was_refused(cast("Any", attempt)) is expected
