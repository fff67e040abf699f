"""The order in which places are tried: least work first, ties by rendezvous hash."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b

_MASK = (1 << 32) - 1
_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B1
_SCALE = 1 << 16


class Work:
    """What one place has to do, in requests: our own leases, and what is not ours.

    ``others`` comes from the node's last report; ``taken`` counts every request of ours there
    has ever been, so that ``residency`` knows when the place was last used. Changed by
    ``routing.leases`` only.
    """

    __slots__ = ("open", "others", "taken")

    def __init__(self) -> None:
        self.open = 0
        self.others = 0
        self.taken = 0


class Candidate:
    """A place that can serve a model now.

    Args:
        node: Its name.
        capacity: Requests it runs at once; at least 1.
        work: Shared with every other candidate of the same place.
    """

    __slots__ = ("capacity", "node", "salt", "share", "work")

    def __init__(self, node: str, capacity: int, work: Work) -> None:
        self.node = node
        self.capacity = capacity
        self.work = work
        self.salt = salt(node)
        # Work is compared in fixed-point units of this place's capacity.
        self.share = max(1, _SCALE // max(1, capacity))

    def key(self, mixed: int) -> int:
        """Work in the high bits, a hash in the low ones: one integer to compare.

        Args:
            mixed: 32 well-mixed bits of the request's seed.
        """
        work = self.work
        hashed = (mixed ^ self.salt) * _GOLDEN & _MASK
        return ((work.open + work.others) * self.share << 32) | hashed

    def __repr__(self) -> str:
        work = self.work
        return f"Candidate({self.node!r}, {work.open}+{work.others} of {self.capacity})"


def rank(candidates: Sequence[Candidate], seed: int) -> list[Candidate]:
    """The candidates, best first.

    Args:
        seed: Of the request; equal seeds break ties equally in every gateway, different seeds
            spread them.
    """
    if len(candidates) == 1:
        return list(candidates)
    mixed = mix(seed)
    keyed = [(candidate.key(mixed), i) for i, candidate in enumerate(candidates)]
    keyed.sort()
    return [candidates[i] for _, i in keyed]


def best(candidates: Sequence[Candidate], mixed: int, avoid: AbstractSet[str]) -> Candidate | None:
    """The first of ``rank`` that is not to be avoided, without ordering the rest.

    Args:
        mixed: 32 well-mixed bits of the request's seed, as ``mix`` makes them.
    """
    lowest, found = 0, None
    for candidate in candidates:
        work = candidate.work
        # Candidate.key, written out: this is the one loop that every request pays for.
        key = ((work.open + work.others) * candidate.share << 32) | (
            (mixed ^ candidate.salt) * _GOLDEN & _MASK
        )
        if (found is None or key < lowest) and candidate.node not in avoid:
            lowest, found = key, candidate
    return found


def least(candidates: Sequence[Candidate], turn: int, avoid: AbstractSet[str]) -> Candidate | None:
    """The candidate with the least work that is not to be avoided; equals take turns.

    What ``best`` does for a request that prefers no place, without its arithmetic in long
    integers: a third of the cost.

    Args:
        turn: Grows by one per request.
    """
    count = len(candidates)
    if not count:
        return None
    start = turn % count
    found, lowest = None, 0
    for candidate in (*candidates[start:], *candidates[:start]):
        work = candidate.work
        load = (work.open + work.others) * candidate.share
        if (found is None or load < lowest) and candidate.node not in avoid:
            if not load:
                return candidate
            found, lowest = candidate, load
    return found


def salt(node: str) -> int:
    """32 bits of a node's name; the same in every process."""
    return int.from_bytes(blake2b(node.encode(), digest_size=4).digest())


def mix(seed: int) -> int:
    """32 bits in which neighbouring seeds have nothing in common (the finalizer of splitmix64)."""
    seed &= _MASK64
    seed = (seed ^ seed >> 30) * 0xBF58476D1CE4E5B9 & _MASK64
    seed = (seed ^ seed >> 27) * 0x94D049BB133111EB & _MASK64
    return (seed ^ seed >> 31) & _MASK
