"""A choice among places: who won, and what was predicted for each.

Every request makes one and thousands are kept, so it is made of plain numbers; ``Predicted`` is
what whoever asks later gets to see of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from helexa.cortex.routing.rank import Candidate

RECORDED = 16
"""Candidates whose prediction is kept for whoever asks why."""

Parts = tuple[float, float, float, float, float]
"""The numbers of a prediction, in the order of ``Predicted``."""


class Predicted(NamedTuple):
    """A candidate's time to first token in seconds, and what it is made of.

    Args:
        cached: Tokens, not seconds.
    """

    candidate: Candidate
    cost: float
    wait: float
    cached: float
    prefill: float
    displaces: float


class Choice(msgspec.Struct, gc=False):
    """The winner, the field it won against, and who was left out (node, why).

    Args:
        winner: Where the request goes.
        cached: Tokens of its prompt that the winner is believed to have.
        candidates: The field.
        parts: What was predicted for each of them.
    """

    winner: Candidate
    cached: float
    candidates: Sequence[Candidate]
    parts: Sequence[Parts]
    out: tuple[tuple[str, str], ...] = ()

    @property
    def field(self) -> list[Predicted]:
        """What was predicted for every candidate."""
        return [
            Predicted(candidate, *parts)
            for candidate, parts in zip(self.candidates, self.parts, strict=True)
        ]

    @property
    def won(self) -> Predicted:
        """What was predicted for the winner."""
        return next(p for p in self.field if p.candidate is self.winner)
