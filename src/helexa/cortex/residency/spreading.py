"""When a model that is warm gets one more place.

::

    requests beyond the seats of all its places ──× time──▶ debt
                                                             │
                    what a load takes ◀──────── reached? ────┘──▶ one more copy, where it fits

Those who queue pay for a load with their waiting: once they have waited, all in all, as long as it
would take, it is begun. So a burst that is over sooner costs no load, and a queue that stays costs
at most twice what knowing the future would. A queue that is gone pays its debt back.

A copy is never worth an eviction: it takes memory that is free. What is not used any more goes
like every other model, idle for long or for one that needs the room.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.residency.world import Demand
from helexa.cortex.routing.leases import LeaseTable

LEAST_S = 5.0
"""However quick a load is: a queue of a moment is no reason."""
SETTLE_S = 5.0
"""A new place is given so long to draw requests before those who queue count again."""
LONGEST_LOOK_S = 10.0
"""Between two looks; what happened in a longer one is not known."""


class Busy(NamedTuple):
    """One place of a model: its seats, and the requests that run or queue there."""

    seats: int
    work: int


def beyond_seats(places: Iterable[Busy]) -> int:
    """Requests that wait although every place is full; 0 where a place does not tell its seats.

    What queues at one place beside a free one came before that, and a third would not help it.
    """
    left = [place.work - place.seats if place.seats else -1 for place in places]
    return 0 if min(left, default=-1) < 0 else sum(left)


class Debts:
    """What those who queue have waited (request-seconds), by model."""

    def __init__(self) -> None:
        self._debts: dict[str, tuple[float, float]] = {}  # the debt, and since when

    def note(self, model: str, queued: int, now: float) -> float:
        """So many queue now; returns the debt.

        Args:
            now: Monotonic seconds.
        """
        debt, before = self._debts.get(model, (0.0, now))
        passed = min(LONGEST_LOOK_S, max(0.0, now - before))
        debt = debt + queued * passed if queued else max(0.0, debt - passed)
        self._debts[model] = debt, max(now, before)
        return debt

    def paid(self, model: str, now: float) -> None:
        """A load for it has begun, goes on, or has just ended."""
        self._debts[model] = 0.0, now + SETTLE_S

    def forget(self, known: Collection[str]) -> None:
        """Keep what is about these models."""
        for model in self._debts.keys() - set(known):
            del self._debts[model]


def due(debt: float, load_s: float) -> bool:
    """Whether those who wait have paid for a load."""
    return debt >= max(LEAST_S, load_s)


class Spreading:
    """Finds the models that want one more place.

    Args:
        most: Nodes that one model may be on; 0 is all.
        serving: The nodes that serve a model.
        under_way: Whether a load of it is.
        demand: What a load of it would ask for, evicting nobody; None if it cannot be loaded.
    """

    def __init__(
        self,
        most: int,
        leases: LeaseTable,
        *,
        serving: Callable[[str, FleetSnapshot], Sequence[NodeSnapshot]],
        under_way: Callable[[str], bool],
        demand: Callable[[str, FleetSnapshot, float], Demand | None],
    ) -> None:
        self._most = most
        self._leases = leases
        self._serving = serving
        self._under_way = under_way
        self._demand = demand
        self._debts = Debts()
        self._places: dict[str, int] = {}

    def demands(self, fleet: FleetSnapshot, now: float) -> list[Demand]:
        """One for each model that has waited enough for a copy, or is getting one."""
        if self._most == 1:
            return []
        there = {model for node in fleet.reachable for model in node.models}
        self._debts.forget(there)
        self._places = {model: n for model, n in self._places.items() if model in there}
        found = (self._copy_of(model, fleet, now) for model in sorted(there))
        return [demand for demand in found if demand is not None]

    def _copy_of(self, model: str, fleet: FleetSnapshot, now: float) -> Demand | None:
        nodes = self._serving(model, fleet)
        if not nodes:
            return None
        here = {node.name for node in fleet.nodes if model in node.models}
        grown = len(here) > self._places.get(model, len(here))
        self._places[model] = len(here)
        mine = self._under_way(model)
        if mine or grown:
            self._debts.paid(model, now)
        if mine:
            return self._demand(model, fleet, now)
        queued = beyond_seats(self._busy(node, model) for node in nodes)
        debt = self._debts.note(model, queued, now)
        if not queued or len(here) > len(nodes) or 0 < self._most <= len(here):
            return None  # nobody waits, it is on its way in or out somewhere, or it may not
        demand = self._demand(model, fleet, now)
        if demand is None:
            return None
        left = tuple(option for option in demand.options if option.node not in here)
        demand = replace(demand, options=left)
        return demand if left and due(debt, demand.load_s) else None

    def _busy(self, node: NodeSnapshot, model: str) -> Busy:
        work = self._leases.work(node.name, model)
        return Busy(node.models[model].load.max_in_flight, work.open + work.others)
