"""Refusals of a model that stand until a person changes something, in its nodes' own words.

A client that is told 503 asks again; for a quant that does not exist it would ask for ever. So what
a node says of the model itself reaches the client as what it is (400, 403, 404), but only once
every node has been heard: one that is away may be the one that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from helexa.core.errors import (
    Forbidden,
    HelexaError,
    InvalidRequestBody,
    ModelNotFound,
    ServiceUnavailable,
    UnsupportedOperation,
    UnsupportedParameter,
)
from helexa.core.outlook import Outlook
from helexa.cortex.fleet.client import Answer
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.wire.errors import from_wire

STANDING: Final = (
    ModelNotFound,
    InvalidRequestBody,
    UnsupportedParameter,
    UnsupportedOperation,
    Forbidden,
)
"""What a node may say of a model; its other refusals are about us, or pass."""
_BY_REASON: Final[dict[str | None, type[HelexaError]]] = {kind.code: kind for kind in STANDING}


def refusal(model: str, node: str, answer: Answer, retry_after_s: float) -> HelexaError:
    """Why a node did not load a model.

    Args:
        retry_after_s: Until another try is worth while, where the reason may pass.
    """
    error = from_wire(answer.status, answer.body)
    if answer.status >= 500 or answer.status == 429:
        return error
    said = f"The node {node!r} will not load {model!r}: {error.message}"
    # A bare 404 comes from whatever else listens there, and says nothing of the model.
    named = error.code is not None and error.code.encode() in answer.body
    if named and isinstance(error, STANDING):
        return type(error)(said, param="model")
    return ServiceUnavailable(said, retry_after_s=retry_after_s)


def declined(model: str, said: Iterable[tuple[str, Outlook]]) -> HelexaError:
    """The refusal of a model that no node could ever run, by what each has foretold.

    Where they agree it is what they say; otherwise, or where there is no engine or never enough
    memory, nobody here can do it.
    """
    found = list(said)
    kinds = {_BY_REASON.get(outlook.reason, UnsupportedOperation) for _, outlook in found}
    words = "; ".join(f"{node}: {(outlook.detail or '').rstrip('.')}" for node, outlook in found)
    kind = kinds.pop() if len(kinds) == 1 else UnsupportedOperation
    return kind(
        f"No node can run {model!r}. {words}. GET /v1/models lists what can be served.",
        param="model",
    )


def unless_away(
    error: HelexaError, fleet: FleetSnapshot, usable: Sequence[NodeSnapshot], retry_after_s: float
) -> HelexaError:
    """The refusal, which stands only while ``usable`` is every node, and all are known."""
    heard = len(usable) == len(fleet.nodes) and all(n.discovery is not None for n in usable)
    if heard or not error.lasting:
        return error
    return ServiceUnavailable(error.message, retry_after_s=retry_after_s)
