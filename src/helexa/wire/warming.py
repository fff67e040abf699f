"""Requests that only want their prompt cached.

Engines compute one token at least. It is counted, and not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from helexa.core.events import Event, Failed, Finished, FinishReason, Started

WARMING_OUTPUT = 1
"""Tokens."""


def unsaid(events: Iterable[Event], reason: FinishReason) -> list[Event]:
    """What is left of an answer where none was asked for: that it began, and how it ended.

    Args:
        reason: What the client's dialect calls the end of such an answer; a cut of ours stays one.
    """
    kept: list[Event] = []
    for event in events:
        if isinstance(event, Finished):
            said = event.reason if event.cut is not None else reason
            kept.append(msgspec.structs.replace(event, reason=said, stop=None))
        elif isinstance(event, Started | Failed):
            kept.append(event)
    return kept
