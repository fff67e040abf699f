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

from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.choice import FULL_S, RECORDED, Choice, Parts
from helexa.cortex.routing.work import Work

NOBODY: frozenset[str] = frozenset()

DISPLACED = 2.0
"""What pushing out a prompt that is asked for again costs, in times of its prefill: it is computed
again, and whoever is behind it waits. Found by simulation; without it, prompts spread over more
places than they need as soon as queues grow, and push each other out."""

MEMORY_S = 60.0
"""A prefix that was used so long ago is as likely as not to be used again in time."""

NEAR, NEAR_S = 1.02, 0.00005
"""Predictions this near each other are equal: rates are measured, and every gateway should
choose alike."""

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

    __slots__ = ("capacity", "load_s", "node", "salt", "share", "work")

    def __init__(self, node: str, capacity: int, work: Work, load_s: float = 0.0) -> None:
        self.node = node
        self.capacity = max(1, capacity)
        self.share = 1 / self.capacity
        self.work = work
        self.load_s = load_s
        self.salt = salt(node)

    def __repr__(self) -> str:
        work = self.work
        return f"Candidate({self.node!r}, {work.open}+{work.others} of {self.capacity})"


def predict(
    candidates: Sequence[Candidate], ask: Ask, now: float, avoid: AbstractSet[str] = NOBODY
) -> tuple[list[Parts], list[Candidate]]:
    """Every candidate's time to first token; those to avoid or shut are left out.

    Plain tuples, because this is the longest loop of a request.

    Args:
        now: Seconds, on the clock of the leases.
        avoid: Nodes that have just failed this request.

    Returns:
        What each costs and why, and who was left out.
    """
    points = ask.points
    first = points[0] if points else None
    tokens = ask.size * ask.per_byte
    recent, pushed, full = MEMORY_S + now, DISPLACED * MEMORY_S, FULL_S
    parts: list[Parts] = []
    out: list[Candidate] = []
    for candidate in candidates:
        work = candidate.work
        if work.shut_until > now or (avoid and candidate.node in avoid):
            out.append(candidate)
            continue
        share = candidate.share
        busy = (work.open + work.others) * share
        ready = work.ready_at
        wait = ready - now if ready > now else 0.0
        if busy >= 1.0:
            wait = max(wait, (busy - 1.0 + share) * work.service_s)
        cache = work.cache
        cached = cache.match(ask) * cache.trust if first in cache.held else 0.0
        new = (tokens - cached) * work.per_token
        displaces = cache.fill * pushed / (recent - cache.oldest)  # times its own prefill
        cost = wait + new * (1.0 + busy + displaces) + busy * full + candidate.load_s
        parts.append((cost, wait, cached, new, busy))
    return parts, out


def choose(
    candidates: Sequence[Candidate], ask: Ask, now: float, avoid: AbstractSet[str] = NOBODY
) -> Choice | None:
    """The candidate with the least predicted time to first token; None when all are out."""
    parts, out = predict(candidates, ask, now, avoid)
    if not parts:
        return None
    field = candidates if not out else [c for c in candidates if c not in out]
    won = _least(field, parts, ask.seed)
    winner, cached = field[won], parts[won][2]
    if len(parts) > RECORDED:
        best = nsmallest(RECORDED, range(len(parts)), key=parts.__getitem__)
        field = [field[at] for at in best]
        parts = [parts[at] for at in best]
    if out and len(candidates) <= RECORDED:
        return Choice(winner, cached, field, parts, tuple(_left_out(out, now, avoid)))
    return Choice(winner, cached, field, parts)


def _least(field: Sequence[Candidate], parts: list[Parts], seed: int) -> int:
    """Who costs least; the highest hash among those that are as good as it."""
    limit = min(parts)[0] * NEAR + NEAR_S
    near = [at for at, part in enumerate(parts) if part[0] <= limit]
    if len(near) == 1:
        return near[0]
    mixed = mix(seed)
    hashes = [(mixed ^ field[at].salt) * _GOLDEN & _MASK for at in near]
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
