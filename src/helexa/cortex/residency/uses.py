"""Who is resident and when it was last used: from the fleet's snapshot and our own leases."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from helexa.core.outlook import Outlook
from helexa.cortex.catalogue import profile_of
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.profiles import Profiles
from helexa.cortex.residency.learned import Learned
from helexa.cortex.residency.world import Option, Resident, Room
from helexa.cortex.routing.leases import LeaseTable

FOREIGN_PRIORITY = 1 << 31
"""Of a model that the catalogue does not know: it could not be loaded again, so it stays."""
HEADROOM_MB = 2048
"""A node leaves so much of a device free, but at most a tenth of it."""


@dataclass(slots=True)
class _Use:
    since: float
    last_used: float
    taken: int = 0
    owed: bool = False


class Uses:
    """What is remembered of every resident, by (node, model)."""

    def __init__(self, leases: LeaseTable, learned: Learned, now: Callable[[], float]) -> None:
        self._leases = leases
        self._learned = learned
        self._uses: dict[tuple[str, str], _Use] = {}
        self._nodes: set[str] = set()
        self._used_mb: dict[tuple[str, str], int] = {}
        self._now = now
        self._long_ago = now() - 1e6

    def loaded(self, node: str, model: str, *, owed: bool) -> None:
        """A load of ours has ended; ``owed`` when somebody waits for it."""
        now = self._now()
        self._uses[node, model] = _Use(now, now, self._leases.work(node, model).taken, owed)

    def forgive(self, waited_for: Collection[str]) -> None:
        """A model that nobody waits for owes nothing: whoever it was loaded for has been placed,
        or has left."""
        for (_, model), use in self._uses.items():
            if use.owed and model not in waited_for:
                use.owed = False

    def since(self, node: str, model: str) -> float | None:
        """When it was loaded, if that is known."""
        use = self._uses.get((node, model))
        return None if use is None or use.since <= self._long_ago else use.since

    def last_used(self, node: str, model: str) -> float | None:
        """When a request was last seen there."""
        use = self._uses.get((node, model))
        return None if use is None or use.last_used <= self._long_ago else use.last_used

    def rooms(self, fleet: FleetSnapshot, profiles: Profiles, keep: Collection[str]) -> list[Room]:
        """Every node that takes loads.

        Args:
            keep: Models that are to stay loaded however idle they are.
        """
        now = self._now()
        self._leases.reconcile(fleet.nodes)
        rooms = []
        for node in fleet.nodes:
            residents = {
                model: self._resident(node, model, state, profiles, keep, now)
                for model, state in node.models.items()
            }
            if node.reachable and not node.draining:
                rooms.append(Room(node.name, free_mb(node), residents))
        self._nodes = {node.name for node in fleet.nodes if node.answered}
        known = {node.name: node.models for node in fleet.nodes}
        for node_name, model in list(self._uses):
            if model not in known.get(node_name, {}):
                del self._uses[node_name, model]
        for node_name, model in list(self._used_mb):
            if node_name not in known:
                del self._used_mb[node_name, model]
        return rooms

    def option(self, node: NodeSnapshot, model: str, profiles: Profiles) -> Option:
        """What is known of loading ``model`` there."""
        profile = profile_of(profiles, model)
        used = self._used_mb.get((node.name, model))
        if used is None and profile is not None:
            used = profile.vram_mb
        if used is not None:
            used += headroom_mb(node)
        else:
            used = foretold_mb(node.outlooks.get(model))
        need, firm = self._learned.need_mb(node.name, model, used)
        return Option(
            node.name,
            need,
            firm,
            1 if profile is None else max(1, profile.min_devices),
            self._learned.guess_s(node.name, model),
            self._learned.blocked_until(node.name, model),
        )

    def _resident(
        self,
        node: NodeSnapshot,
        model: str,
        state: ModelState,
        profiles: Profiles,
        keep: Collection[str],
        now: float,
    ) -> Resident:
        at, entry = (node.name, model), state.entry
        use = self._uses.get(at)
        if use is None:
            # What was there when we first heard of the node has been there for long.
            since = now if node.name in self._nodes else self._long_ago
            use = self._uses[at] = _Use(since, since)
        work = self._leases.work(*at)
        running = work.open + work.others
        if running or work.taken != use.taken:
            use.last_used, use.taken, use.owed = now, work.taken, False
        if entry.status == "loaded" and entry.vram_used_mb:
            self._used_mb[at] = entry.vram_used_mb
        if entry.status == "loading" and entry.eta_s is not None:
            self._learned.expects(*at, entry.eta_s)
        if entry.status == "loading" and entry.download is not None:
            self._learned.fetching(*at)
        profile = profile_of(profiles, model)
        return Resident(
            model,
            entry.status,
            running,
            FOREIGN_PRIORITY if profile is None else profile.priority,
            use.since,
            use.last_used,
            self._learned.guess_s(*at),
            entry.vram_used_mb,
            tuple(entry.devices),
            use.owed,
            profile is None or model in keep,
        )


def foretold_mb(outlook: Outlook | None) -> int | None:
    """Free memory with which a model would fit that a node has said not to; None when it would
    fit, or nothing was said."""
    if outlook is None or outlook.ok or outlook.shortage is None:
        return None
    short = outlook.shortage
    return short.needed_mb + max(0, short.free_mb - short.usable_mb)


def headroom_mb(node: NodeSnapshot) -> int:
    """What a node leaves free beside a model on its smallest device."""
    devices = node.discovery.devices if node.discovery is not None else []
    total = min((device.vram_total_mb for device in devices), default=0)
    return min(HEADROOM_MB, total // 10)


def free_mb(node: NodeSnapshot) -> dict[int, int]:
    """Free memory by device: as read, but never more than what the models there leave.

    A reading may be older than the load that has just ended.
    """
    free = {reading.index: reading.vram_free_mb for reading in node.devices}
    totals = node.discovery.devices if node.discovery is not None else []
    left = {device.index: device.vram_total_mb for device in totals}
    for state in node.models.values():
        at = [index for index in state.entry.devices if index in left]
        for index in at:
            left[index] -= state.entry.vram_used_mb // len(at)
    return {index: max(0, min(mb, left.get(index, mb))) for index, mb in free.items()}
