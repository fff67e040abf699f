"""What a residency decision reads, frozen: the rules, the nodes' memory, and who waits.

Memory is MiB, times are seconds on one monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

UNKNOWN_LOAD_S = 10.0
"""Taken for a load that nobody has timed yet."""
TURNS = 4.0
"""A model in use keeps its place for so many load times, so that loads cost at most a fifth."""
PATIENCE_SHARE = 0.5
"""Of ``max_wait_s``; no turn is longer, or waiters would give up before theirs."""


class Rules(msgspec.Struct, frozen=True):
    """What the operator decides.

    Args:
        strategy: ``lru`` orders victims by last use, ``priority`` by priority, then last use.
        min_residency_s: Nobody is evicted sooner after its load.
        max_wait_s: No request waits longer.
        idle_ttl_s: Unload what nobody used for so long; 0 never.
        abandoned: What becomes of a load that nobody waits for any more.
        max_copies: Most nodes that one model is loaded on because it is busy; 0 is all.
    """

    strategy: Literal["lru", "priority"] = "lru"
    min_residency_s: float = 60.0
    max_wait_s: float = 600.0
    idle_ttl_s: float = 0.0
    abandoned: Literal["keep", "cancel"] = "keep"
    max_copies: int = 0

    def turn(self, *load_s: float) -> float:
        """How long a model that is in use keeps its place against one that waits.

        Args:
            load_s: Load times of the models concerned; the longest counts.
        """
        worth = min(TURNS * max(load_s), PATIENCE_SHARE * self.max_wait_s)
        return max(self.min_residency_s, worth)


class Resident(msgspec.Struct, frozen=True):
    """One model on one node.

    Args:
        status: As the node lists it.
        running: Requests that run or queue there, ours and others'.
        priority: Its residency priority.
        since: When it was loaded, as far as we know.
        last_used: When a request was last there.
        load_s: What loading it again would take.
        used_mb: What its end frees; 0 is unknown.
        devices: Where; empty is unknown.
        owed: It was loaded for waiters, and has not served one yet.
        keep: It is to stay loaded (pre-warmed): never ended for being idle.
    """

    model: str
    status: str = "loaded"
    running: int = 0
    priority: int = 100
    since: float = 0.0
    last_used: float = 0.0
    load_s: float = UNKNOWN_LOAD_S
    used_mb: int = 0
    devices: tuple[int, ...] = ()
    owed: bool = False
    keep: bool = False


class Room(msgspec.Struct, frozen=True):
    """One node that takes loads: free memory by device, and who is there."""

    node: str
    free_mb: Mapping[int, int]
    residents: Mapping[str, Resident]

    def free(self, devices: int, without: tuple[Resident, ...] = ()) -> int:
        """Free memory on the ``devices`` freest devices, once ``without`` have gone.

        A resident that does not tell what it uses, or where, is taken to free all there is to
        free: the node has the last word.
        """
        free = dict(self.free_mb) or {0: 0}
        for resident in without:
            at = [d for d in resident.devices if d in free] or list(free)
            for device in at:
                free[device] += -(-(resident.used_mb or (1 << 30)) // len(at))
        return sum(sorted(free.values(), reverse=True)[: max(1, devices)])


class Option(msgspec.Struct, frozen=True):
    """A node on which a model could be loaded.

    Args:
        need_mb: Free memory that the load takes; None is unknown, then the node is asked.
        firm: The node itself has said so a moment ago; otherwise it is asked when all else fails.
        devices: How many devices it is spread over.
        load_s: What a load takes there.
        blocked_until: It has just failed there.
    """

    node: str
    need_mb: int | None = None
    firm: bool = False
    devices: int = 1
    load_s: float = UNKNOWN_LOAD_S
    blocked_until: float = 0.0


class Demand(msgspec.Struct, frozen=True):
    """A model that is wanted and is nowhere, or not in enough places.

    Args:
        waiters: Requests that wait and may cause a load.
        since: When the oldest of them came.
        options: Where it could be loaded.
        may_evict: Others may have to go for it; not for a mere wish (pre-warming).
    """

    model: str
    priority: int = 100
    waiters: int = 1
    since: float = 0.0
    options: tuple[Option, ...] = ()
    may_evict: bool = True

    @property
    def load_s(self) -> float:
        """What its load takes where it is quickest (seconds)."""
        return min((option.load_s for option in self.options), default=UNKNOWN_LOAD_S)
