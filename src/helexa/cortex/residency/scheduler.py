"""The state machine of loads and evictions: synchronous, without a clock, a socket or a task.

Whoever owns it tells it what is (``observe``), what is wanted (``demand``) and what became of
what it asked for (``loaded``, ``failed``, ``unloaded``, ``kept``, ``read``); ``step`` decides and
acts through ``Effects``. See ``lane`` for what can be under way on a node, and ``choose`` for why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from msgspec.structs import replace

from helexa.cortex.residency.choose import (
    Hopeless,
    Load,
    MakeRoom,
    NotBefore,
    choose,
    in_order,
)
from helexa.cortex.residency.lane import Work
from helexa.cortex.residency.world import Demand, Resident, Room, Rules

AGAIN_S = 1.0
"""Before a victim that the node would not let go is asked again."""


class Effects(Protocol):
    """What the scheduler asks for. Each call returns at once; its end is told to the scheduler."""

    def load(self, node: str, model: str) -> None:
        """Load; ends in ``loaded`` or ``failed``."""

    def unload(self, node: str, model: str, *, forced: bool) -> None:
        """End a model that is not in use; ends in ``unloaded`` or (in use after all) ``kept``.

        Args:
            forced: It is a load of ours that nobody waits for: cancel it.
        """

    def read(self, node: str) -> None:
        """Read the node's free memory anew; ends in ``read``."""

    def hopeless(self, model: str, why: Hopeless) -> None:
        """Nobody need wait for this model: there is no room, and nobody may be evicted."""


class Scheduler:
    """Owner of what is under way on each node.

    Attributes:
        evictions: Models that were unloaded to make room, over all time.
    """

    def __init__(self, effects: Effects, rules: Rules) -> None:
        self.rules = rules
        self.evictions = 0
        self._effects = effects
        self._rooms: dict[str, Room] = {}
        self._demands: dict[str, Demand] = {}
        self._work: dict[str, Work] = {}
        self._gone: set[tuple[str, str]] = set()
        self._later: dict[str, NotBefore] = {}
        self._paused: dict[str, float] = {}

    # ── what others read ────────────────────────────────────────────────────────────────────

    def work(self, node: str) -> Work | None:
        """What is under way there."""
        return self._work.get(node)

    def works(self) -> Mapping[str, Work]:
        """What is under way, by node."""
        return self._work

    def lane_of(self, model: str) -> tuple[str, Work] | None:
        """Where something is under way for ``model``."""
        return next(((n, w) for n, w in self._work.items() if w.model == model), None)

    def closing(self) -> set[tuple[str, str]]:
        """(node, model) that take no new requests: about to go, or gone without anybody having
        seen it yet."""
        found = {(node, victim) for node, work in self._work.items() for victim in work.victims}
        found |= {(n, w.leaving) for n, w in self._work.items() if w.leaving is not None}
        return found | self._gone

    def ordered(self, now: float) -> list[Demand]:
        """The demands as they will be looked at."""
        return in_order(self._demands.values(), self.rules, now)

    def postponed(self, model: str) -> NotBefore | None:
        """Why nothing is done for it yet."""
        return self._later.get(model)

    # ── what is told ────────────────────────────────────────────────────────────────────────

    def observe(self, rooms: Iterable[Room]) -> None:
        """The nodes that take loads, as they are now; what is under way elsewhere is forgotten."""
        self._rooms = {room.node: room for room in rooms}
        here = {(r.node, model) for r in self._rooms.values() for model in r.residents}
        self._gone &= here
        for node in [node for node in self._work if node not in self._rooms]:
            del self._work[node]

    def demand(self, demands: Iterable[Demand]) -> None:
        """The models that are wanted and are nowhere."""
        self._demands = {demand.model: demand for demand in demands}

    def loaded(self, node: str, model: str) -> None:
        """A load has ended well."""
        self._gone.discard((node, model))
        self._end(node, "loading", model)

    def failed(self, node: str, model: str) -> None:
        """A load has failed; the demand's options say when to try again, if at all."""
        self._end(node, "loading", model)

    def unloaded(self, node: str, model: str, now: float) -> None:
        """A model has gone."""
        self._gone.add((node, model))
        work = self._work.get(node)
        if work is None or work.leaving != model:
            return
        work.leaving = None
        if work.model is None:
            del self._work[node]
            return
        self.evictions += 1
        work.victims = tuple(v for v in work.victims if v != model)
        work.phase, work.since = "reading", now
        self._effects.read(node)

    def kept(self, node: str, model: str, now: float) -> None:
        """The node would not let a model go: it was in use after all, or could not be asked."""
        work = self._work.get(node)
        if work is not None and work.leaving == model:
            del self._work[node]
            self._paused[node] = now + AGAIN_S

    def read(self, node: str, free_mb: Mapping[int, int] | None, now: float) -> None:
        """What is free there now; None when it could not be read."""
        work = self._work.get(node)
        if work is not None and work.phase == "reading":
            work.phase, work.since, work.free_mb = "clearing", now, free_mb

    def _end(self, node: str, phase: str, model: str) -> None:
        work = self._work.get(node)
        if work is not None and work.phase == phase and work.model == model:
            del self._work[node]

    # ── deciding ────────────────────────────────────────────────────────────────────────────

    def step(self, now: float) -> float | None:
        """Do what can be done; the time at which to look again even if nothing happens."""
        self._later.clear()
        self._paused = {node: until for node, until in self._paused.items() if until > now}
        for node, work in list(self._work.items()):
            self._advance(node, work, now)
        for demand in in_order(self._demands.values(), self.rules, now):
            if self.lane_of(demand.model) is None:
                self._serve(demand, now)
        idle = self._end_idle(now)
        times = [later.at for later in self._later.values() if later.at is not None]
        return min([*times, *idle, *self._paused.values()], default=None)

    def _rooms_now(self) -> dict[str, Room]:
        """The rooms without those who have gone, and with what nodes have said since."""
        found = {}
        for name, room in self._rooms.items():
            work = self._work.get(name)
            fresh = work.free_mb if work is not None else None
            left = {m: r for m, r in room.residents.items() if (name, m) not in self._gone}
            found[name] = replace(
                room, residents=left, free_mb=room.free_mb if fresh is None else fresh
            )
        return found

    def _taken(self) -> set[str]:
        """Nodes that have something under way, of ours or of somebody else's."""
        foreign = {
            room.node
            for room in self._rooms.values()
            if any(r.status in ("loading", "reloading", "unloading")
                   and (room.node, r.model) not in self._gone for r in room.residents.values())
        }  # fmt: skip
        return foreign | self._work.keys() | self._paused.keys()

    def _serve(self, demand: Demand, now: float) -> None:
        """Begin what can be begun for one demand."""
        choice = choose(demand, self._rooms_now(), self._taken(), self.rules, now)
        match choice:
            case Load(node):
                self._load(node, demand, now)
            case MakeRoom(node, victims):
                work = self._work[node] = Work("clearing", demand.model, now, victims)
                self._advance(node, work, now)
            case NotBefore():
                self._later[demand.model] = choice
            case Hopeless():
                self._effects.hopeless(demand.model, choice)

    def _load(self, node: str, demand: Demand, now: float) -> None:
        expected = next((o.load_s for o in demand.options if o.node == node), demand.load_s)
        self._work[node] = Work("loading", demand.model, now, load_s=expected)
        self._effects.load(node, demand.model)

    def _advance(self, node: str, work: Work, now: float) -> None:
        demand = self._demands.get(work.model) if work.model is not None else None
        if work.phase == "loading" and demand is None and work.model is not None:
            if self.rules.abandoned == "cancel":
                work.phase, work.leaving, work.since = "unloading", work.model, now
                work.model = None
                self._effects.unload(node, work.leaving, forced=True)
            return
        if work.phase != "clearing":
            return
        if demand is None:
            del self._work[node]
            return
        self._clear(node, work, demand, now)

    def _clear(self, node: str, work: Work, demand: Demand, now: float) -> None:
        """Load if it fits by now; else end the next victim that is not in use."""
        room = self._rooms_now()[node]
        option = next((o for o in demand.options if o.node == node), None)
        left = {m: r for m, r in room.residents.items() if m in work.victims and _can_go(r)}
        if option is None or option.blocked_until > now:
            del self._work[node]
            return
        work.victims = tuple(v for v in work.victims if v in left)
        if option.need_mb is None or room.free(option.devices) >= option.need_mb:
            self._load(node, demand, now)
        elif not work.victims:
            # What they have left is less than was thought: choose again, with what is free now.
            again = choose(demand, {node: room}, self._taken() - {node}, self.rules, now)
            if isinstance(again, MakeRoom):
                work.victims = again.victims
                self._clear_next(node, work, room.residents, now)
            else:
                del self._work[node]
                if isinstance(again, NotBefore):
                    self._later[demand.model] = again
        else:
            self._clear_next(node, work, left, now)

    def _clear_next(
        self, node: str, work: Work, residents: Mapping[str, Resident], now: float
    ) -> None:
        idle = [v for v in work.victims if not residents[v].running]
        if idle:
            work.phase, work.leaving, work.since = "unloading", idle[0], now
            self._effects.unload(node, idle[0], forced=False)

    def _end_idle(self, now: float) -> list[float]:
        """End what nobody used for the idle time; when the next would be due."""
        ttl, due = self.rules.idle_ttl_s, []
        if not ttl:
            return []
        for node, room in self._rooms_now().items():
            for resident in room.residents.values():
                if not _can_go(resident) or resident.keep or resident.running or resident.owed:
                    continue
                at = max(resident.last_used + ttl, resident.since + self.rules.min_residency_s)
                if at > now:
                    due.append(at)
                elif node not in self._taken():
                    self._work[node] = Work("unloading", None, now, leaving=resident.model)
                    self._effects.unload(node, resident.model, forced=False)
        return due


def _can_go(resident: Resident) -> bool:
    return resident.status == "loaded"
