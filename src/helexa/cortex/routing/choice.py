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

FULL_S = 0.02
"""What a place whose seats are all taken costs more than an idle one, where nothing else tells
them apart: whoever decodes with fewer decodes faster."""

Parts = tuple[float, float, float, float, float]
"""What is kept of a prediction: cost, wait, cached, seconds of prefill on an idle engine, and the
part of the seats that is taken."""


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

    @classmethod
    def of(cls, candidate: Candidate, parts: Parts) -> Predicted:
        """What the parts say of a candidate."""
        cost, wait, cached, new, busy = parts
        prefill = new * (1.0 + busy)
        rest = cost - wait - prefill - busy * FULL_S - candidate.load_s
        return cls(candidate, cost, wait, cached, prefill, max(0.0, rest))


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
            Predicted.of(candidate, parts)
            for candidate, parts in zip(self.candidates, self.parts, strict=True)
        ]

    @property
    def won(self) -> Predicted:
        """What was predicted for the winner."""
        return next(p for p in self.field if p.candidate is self.winner)
