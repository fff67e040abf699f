"""The decision and what it rests on, joined: the part of routing that a simulation shares.

``FleetPlacer`` asks it about real nodes, ``cortex.simulate`` about simulated ones; neither has a
rule of its own about who serves what.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from helexa.core.usage import Timings, Usage
from helexa.cortex.routing import breaker as breakers
from helexa.cortex.routing import rank
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.breaker import CLOSED, Kind
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.rank import NOBODY, Field
from helexa.cortex.routing.work import Lease, Work

PER_BYTE = 0.25
"""Tokens per byte of a prompt, until a model's answers tell."""
_LEARNS = 0.05
_LEAST, _MOST = 0.02, 1.0
"""Tokens per byte; outside, the body is not text and says nothing."""


class Router:
    """Chooses, counts and learns.

    Args:
        leases: Our own work by place; its clock is the decision's.

    Attributes:
        per_byte: Tokens per byte of a prompt by model, as its answers have told.
    """

    __slots__ = ("leases", "now", "per_byte")

    def __init__(self, leases: LeaseTable) -> None:
        self.leases = leases
        self.now = leases.clock
        self.per_byte: dict[str, float] = {}

    def choose(self, field: Field, ask: Ask, avoid: AbstractSet[str] = NOBODY) -> Choice | None:
        """The best candidate, also a shut one where all of them are; None if all are to avoid."""
        return rank.choose(field, ask, self.now(), avoid)

    def take(self, choice: Choice, ask: Ask) -> Lease:
        """The request goes there: count it as work, and its prompt as cached."""
        work, now = choice.winner.work, self.now()
        if ask.points:
            self.leases.index.touch(work.cache, ask, now)
        return Lease(work, self.now, (choice.tokens - choice.cached) * work.per_token, now)

    def learn(
        self,
        model: str,
        work: Work,
        ask: Ask | None,
        believed: float,
        usage: Usage,
        timings: Timings | None,
    ) -> None:
        """An answer came to its end: what it says about the place and about the model's tokens.

        Args:
            ask: Its prompt, where it decided.
            believed: Tokens that we thought the place had cached.
        """
        if work.breaker is not CLOSED:
            work.judge(CLOSED)
        if timings is not None and timings.prompt_ms > 0:
            work.learn_rate(timings.prompt_n, timings.prompt_ms / 1000)
        if ask is None or not ask.size:
            return
        found = usage.prompt / ask.size
        if _LEAST < found < _MOST:
            before = self.per_byte.get(model, PER_BYTE)
            self.per_byte[model] = before + _LEARNS * (found - before)
        work.standing = None
        self.leases.index.learn(work.cache, ask, believed, usage.cached, usage.completion)

    def failed(self, work: Work, kind: Kind) -> None:
        """A request failed there."""
        work.judge(breakers.failed(work.breaker, kind, self.now()))

    def gave_up(self, work: Work) -> None:
        """A request ended there without telling anything about the place."""
        if work.breaker.probing:
            work.judge(breakers.given_up(work.breaker, self.now()))
