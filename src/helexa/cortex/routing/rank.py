"""Which place answers first: predicted time to first token, then a rendezvous hash.

For every candidate, in seconds::

    wait      until what is before it has been prefilled, or until a seat is free
    prefill   (tokens of the prompt − those the place has cached) ÷ its measured rate,
              slower the fuller its seats are: prefill and decode share the engine
    displaces what it pushes out of a full cache and somebody may have to compute again
    load      when the model is not there yet

Affinity is a discount on time and nothing else: a place that has the prompt wins only while its
queue is shorter than computing the prompt elsewhere, so no crowd can form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from heapq import nsmallest
from math import inf

from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.choice import RECORDED, Choice
from helexa.cortex.routing.work import SHUT, Standing, Work

NOBODY: frozenset[str] = frozenset()

NEAR, NEAR_S = 1.02, 0.00005
"""Predictions this near each other are equal: rates are measured, and every gateway should
choose alike."""

AGES_S = 0.25
"""So long a standing may last; what is pushed out is then worth 0.4 % less at most."""

_MASK = (1 << 32) - 1
_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B1


class Candidate:
    """A place that can serve a model, now or after a load.

    Args:
        node: Its name.
        capacity: Requests it runs at once; at least 1.
        work: Shared with every other candidate of the same place.
        load_s: Seconds until it could start.
    """

    __slots__ = ("capacity", "node", "salt", "work")

    def __init__(self, node: str, capacity: int, work: Work, load_s: float = 0.0) -> None:
        self.node = node
        self.capacity = max(1, capacity)
        self.work = work
        work.share, work.load_s, work.standing = 1 / self.capacity, load_s, None
        self.salt = salt(node)

    def __repr__(self) -> str:
        work = self.work
        return f"Candidate({self.node!r}, {work.open}+{work.others} of {self.capacity})"


class Field:
    """Candidates side by side, as a choice goes through them; made once per change of the fleet.

    How they stand is looked at anew every ``AGES_S``, also where nothing has happened: what lies
    unused in a full cache is worth less by then.

    Args:
        stale_at: When that is due: of the field that this one follows, so that a change of one
            place does not make all of them be looked at; at once, if none is given.
    """

    __slots__ = ("candidates", "held", "stale_at", "works")

    def __init__(self, candidates: Sequence[Candidate], stale_at: float = 0.0) -> None:
        self.candidates = candidates
        self.works = [candidate.work for candidate in candidates]
        self.held = [work.cache.held for work in self.works]
        self.stale_at = stale_at

    def renew(self, now: float) -> None:
        """Forget how they stood."""
        self.stale_at = now + AGES_S
        for work in self.works:
            work.standing = None


def choose(field: Field, ask: Ask, now: float, avoid: AbstractSet[str] = NOBODY) -> Choice | None:
    """The candidate with the least predicted time to first token, a shut one only where all are;
    None when all are to avoid.

    Args:
        now: Seconds, on the clock of the leases.
        avoid: Nodes that have just failed this request.
    """
    tokens, cached = ask.size * ask.per_byte, 0.0
    costs, standings, homes = predict(field, ask, tokens, now)
    order = sorted(costs)  # quicker than looking for the two least
    if avoid or not order or (order[-1] == inf and SHUT in standings):
        return _among_the_rest(field, ask, now, avoid)
    candidates, limit = field.candidates, order[0] * NEAR + NEAR_S
    at = costs.index(order[0])
    if len(order) > 1 and order[1] <= limit:
        at = _drawn(candidates, [n for n, cost in enumerate(costs) if cost <= limit], ask)
    for home, found in homes:
        if home == at:
            cached = found
    winner = candidates[at]
    if len(costs) > RECORDED:
        costs[at] = 0.0  # it stays
        best = nsmallest(RECORDED, range(len(costs)), key=costs.__getitem__)
        candidates, standings = [candidates[n] for n in best], [standings[n] for n in best]
        homes = [(best.index(home), found) for home, found in homes if home in best]
    return Choice(winner, cached, candidates, standings, homes, tokens, now)


def predict(
    field: Field, ask: Ask, tokens: float, now: float
) -> tuple[list[float], list[Standing], list[tuple[int, float]]]:
    """Every candidate's time to first token, in seconds; ``inf`` where its breaker is open.

    Plain numbers in as few steps as can be, because these are the longest loops of a request:
    first as if nobody had any of the prompt, then less what is cached where it is.

    Args:
        tokens: Of the prompt.

    Returns:
        What each costs, how each stands, and who has how many tokens of the prompt.
    """
    if now >= field.stale_at:
        field.renew(now)
    works = field.works
    standings = [work.standing or work.stand(now) for work in works]
    costs = [
        least + tokens * token_s if due <= now else least + (due - now) + tokens * token_s
        for due, least, token_s, _, _ in standings
    ]
    homes: list[tuple[int, float]] = []
    if ask.points:
        first = ask.points[0]
        for at, held in enumerate(field.held):
            if first in held:
                cache = works[at].cache
                cached = cache.match(ask) * cache.trust
                homes.append((at, cached))
                costs[at] -= cached * standings[at][2]
    return costs, standings, homes


def _among_the_rest(field: Field, ask: Ask, now: float, avoid: AbstractSet[str]) -> Choice | None:
    """A choice where some are to be avoided or shut, which is rare."""
    allowed = [c for c in field.candidates if c.node not in avoid]
    if not allowed:
        return None
    well = [c for c in allowed if c.work.shut_until <= now]
    if not well:
        soonest = min(c.work.shut_until for c in allowed)
        return _among_the_rest(Field(allowed), ask, soonest, NOBODY)
    choice = choose(Field(well), ask, now)
    if choice is not None and len(field.candidates) <= RECORDED:
        out = [c for c in field.candidates if c not in well]
        choice.out = tuple(_left_out(out, now, avoid))
    return choice


def _drawn(candidates: Sequence[Candidate], near: list[int], ask: Ask) -> int:
    """Of those that are as good as the best, the one with the highest hash."""
    mixed = mix(ask.lot)
    hashes = [(mixed ^ candidates[at].salt) * _GOLDEN & _MASK for at in near]
    return near[hashes.index(max(hashes))]


def _left_out(
    out: Sequence[Candidate], now: float, avoid: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    for candidate in out:
        if candidate.node in avoid:
            yield candidate.node, "has just failed this request"
        else:
            left = candidate.work.shut_until - now
            how = "half-open" if candidate.work.breaker.probing else "open"
            yield candidate.node, f"breaker {how}, {left:.1f} s"


def salt(node: str) -> int:
    """32 bits of a node's name; the same in every process."""
    return int.from_bytes(blake2b(node.encode(), digest_size=4).digest())


def mix(seed: int) -> int:
    """32 bits in which neighbouring seeds have nothing in common (the finalizer of splitmix64)."""
    seed &= _MASK64
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    seed = (seed ^ seed >> 27) * 0x94D049BB133111EB & _MASK64
    return (seed ^ seed >> 31) & _MASK
