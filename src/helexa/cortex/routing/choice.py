"""A choice among places: who won, and what it was made on.

Every request makes one and thousands are kept, so what is kept is what there was to look at: each
place as it stood, shared with the choices before and behind. What was predicted of it is worked
out again when somebody asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from helexa.cortex.routing.work import Standing

if TYPE_CHECKING:
    from helexa.cortex.routing.rank import Candidate

RECORDED = 16
"""Candidates that are kept for whoever asks why."""


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
        standings: How each of them stood.
        homes: Who of them had some of the prompt (place in the field), and how many tokens of it.
        tokens: Of the prompt.
        now: When it was made, seconds.
    """

    winner: Candidate
    cached: float
    candidates: Sequence[Candidate]
    standings: Sequence[Standing]
    homes: Sequence[tuple[int, float]]
    tokens: float
    now: float
    out: tuple[tuple[str, str], ...] = ()

    @property
    def field(self) -> list[Predicted]:
        """What was predicted for every candidate."""
        homes, pairs = dict(self.homes), zip(self.candidates, self.standings, strict=True)
        return [self._predicted(c, s, homes.get(at, 0.0)) for at, (c, s) in enumerate(pairs)]

    def _predicted(self, candidate: Candidate, standing: Standing, cached: float) -> Predicted:
        """As ``rank.choose`` reckons, in its parts."""
        due, least, token_s, queued, own = standing
        late, new = max(0.0, due - self.now), self.tokens - cached
        cost, prefill, displaces = least + late + new * token_s, new * own, new * (token_s - own)
        return Predicted(candidate, cost, queued + late, cached, prefill, displaces)

    @property
    def won(self) -> Predicted:
        """What was predicted for the winner."""
        return next(p for p in self.field if p.candidate is self.winner)
