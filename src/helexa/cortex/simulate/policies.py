"""Who serves what in a simulation: the gateway's own router, and what it is compared with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Protocol

from helexa.core.usage import Timings, Usage
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.rank import Candidate, Field
from helexa.cortex.routing.router import Router
from helexa.cortex.routing.work import Lease
from helexa.cortex.simulate.place import Place, Run


class Policy(Protocol):
    """Chooses among the places that have the model, and hears what became of it."""

    def place(self, run: Run, places: Sequence[Place], now: float) -> Place:
        """Where the request goes."""

    def first(self, run: Run, now: float) -> None:
        """Its first token has come."""

    def ended(self, run: Run, now: float) -> None:
        """Its answer is complete."""


class Routed:
    """The gateway's decision: what it counts, predicts and learns is ``routing``'s.

    It is told what a gateway is told: where its requests are, when first tokens come, and what
    usage and timings of an answer say; nothing of the nodes' caches or queues.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.router = Router(LeaseTable(clock))
        self._candidates: dict[Place, Candidate] = {}
        self._out: dict[Run, tuple[Choice, Lease]] = {}

    def place(self, run: Run, places: Sequence[Place], now: float) -> Place:  # noqa: ARG002
        known = self._candidates
        candidates = [known.get(p) or self._candidate(p) for p in places]
        choice = self.router.choose(Field(candidates), run.ask)
        if choice is None:
            raise RuntimeError("a choice among no places")
        self._out[run] = choice, self.router.take(choice, run.ask)
        won = choice.winner
        return next(p for p, c in zip(places, candidates, strict=True) if c is won)

    def first(self, run: Run, now: float) -> None:  # noqa: ARG002
        self._out[run][1].started()

    def ended(self, run: Run, now: float) -> None:  # noqa: ARG002
        choice, lease = self._out.pop(run)
        lease.release()
        asked, place = run.asked, run.place
        if place is None:
            return
        new = max(1, asked.tokens - run.cached)
        usage = Usage(asked.tokens, asked.output, run.cached)
        timings = Timings(new, run.cached, new / place.spec.prefill * 1000)
        work = choice.winner.work
        self.router.learn(asked.model, work, run.ask, choice.cached, usage, timings)

    def _candidate(self, place: Place) -> Candidate:
        """As the gateway would make it of the node's report."""
        leases = self.router.leases
        stale = next((p for p in self._candidates if _same(p, place)), None)
        if stale is not None:  # it was unloaded and is back, with nothing of what it had
            del self._candidates[stale]
            leases.index.clear(leases.work(place.node, place.model).cache)
        work = leases.work(place.node, place.model)
        work.cache.capacity = float(place.spec.kv_tokens)
        if not work.measured:
            work.per_token = 1 / place.spec.prefill
        made = self._candidates[place] = Candidate(place.node, place.spec.seats, work)
        return made


def _same(one: Place, other: Place) -> bool:
    return (one.node, one.model) == (other.node, other.model)


class Oracle:
    """Least time to first token by the nodes' true queues and caches, which no gateway can know.

    It looks into every cache and every queue, and knows when the running answers will end. What
    a prompt displaces is weighed as if all of it were asked for again.
    """

    def place(self, run: Run, places: Sequence[Place], now: float) -> Place:
        return min(places, key=lambda place: (self._time(run, place, now), -place.free, place.node))

    def _time(self, run: Run, place: Place, now: float) -> float:
        wait, before = 0.0, set[int]()
        free, new = place.free + place.idle_tokens, 0
        if place.prefilling is not None:
            wait = place.prefilled_at - now
            before.update(place.prefilling.ask.points)
        for other in (*place.queue, run):
            new = other.asked.tokens - place.cached(other)
            pieces = zip(other.ask.points, other.asked.prompt, strict=True)
            already = sum(tokens for point, (_, tokens) in pieces if point in before)
            new = min(new, other.asked.tokens - already)
            free -= place.need(other) - already if already else place.need(other)
            before.update(other.ask.points)
            wait += new / place.spec.prefill
        if free < 0:
            wait = max(wait, self._freed(place, -free) - now + new / place.spec.prefill)
        return wait + new / place.spec.prefill

    def _freed(self, place: Place, tokens: int) -> float:
        """When the answers that run will have given back so many tokens."""
        at = 0.0
        for running, end in place.running.items():
            at = end
            tokens -= running.asked.output + running.asked.prompt[-1][1]
            if tokens <= 0:
                break
        return at

    def first(self, run: Run, now: float) -> None:
        """Nothing to be told: it sees."""

    def ended(self, run: Run, now: float) -> None:
        """As ``first``."""


class Blind:
    """Chooses without looking: at random, or in turns."""

    def __init__(self, seed: int | None = None) -> None:
        self._rng = None if seed is None else random.Random(seed)
        self._turn = 0

    def place(self, run: Run, places: Sequence[Place], now: float) -> Place:  # noqa: ARG002
        if self._rng is not None:
            return self._rng.choice(places)
        self._turn += 1
        return places[self._turn % len(places)]

    def first(self, run: Run, now: float) -> None:
        """Does not listen."""

    def ended(self, run: Run, now: float) -> None:
        """Does not listen."""


class Homes(Blind):
    """Every prefix has a home, all homes are equally full: only for traces of equal customers."""

    def __init__(self) -> None:
        super().__init__()
        self._home: dict[int, int] = {}

    def place(self, run: Run, places: Sequence[Place], now: float) -> Place:  # noqa: ARG002
        home = self._home.setdefault(run.ask.points[0], len(self._home))
        return places[home % len(places)]
