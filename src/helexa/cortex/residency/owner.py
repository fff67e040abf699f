"""The one task behind residency: it looks, lets the scheduler decide, and acts.

::

    join, leave ─┐                       ┌─▶ load, unload, read (a task each, results come back)
    fleet news ──┼─▶ look: observe, step ┼─▶ whose turn it is
    results ─────┘                       └─▶ refusals, places, times

Everything that changes residency happens inside ``_look``; nothing there waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from helexa.core.errors import (
    Forbidden,
    HelexaError,
    InsufficientVram,
    ModelLoading,
    ServiceUnavailable,
)
from helexa.core.logging import Logger
from helexa.cortex.catalogue import feasible_nodes, profile_of
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.cortex.profiles import BUILT_IN, ProfileFile, Profiles
from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.effects import InUse, NodeEffects
from helexa.cortex.residency.eta import etas
from helexa.cortex.residency.lane import Work
from helexa.cortex.residency.learned import FAILED_FOR_S, RETRY_VRAM_S, Learned, with_retry
from helexa.cortex.residency.scheduler import Scheduler
from helexa.cortex.residency.uses import Uses
from helexa.cortex.residency.waiting import Line, Standing, Waiter, WaitingRoom
from helexa.cortex.residency.world import Demand, Rules
from helexa.cortex.routing.decide import Refuse, Serve, Wait, Wake, decide
from helexa.cortex.routing.leases import LeaseTable

LOOK_S = 1.0
"""Between looks while nothing happens: so exact is when a model was last used."""
BUSY_LOOK_S = 0.02
"""The least between looks while somebody waits."""
_NONE: frozenset[str] = frozenset()


@dataclass(slots=True)
class Hooks:
    """Whom residency tells what."""

    loaded: Callable[[str, str, float], object] = lambda _m, _n, _s: None
    evicted: Callable[[str, str], object] = lambda _m, _n: None


@dataclass(slots=True)
class Wish:
    """A model that is to be loaded though nobody waits for it.

    Args:
        since: When it was wished for.
        may_evict: Others may have to go.
        error: Why it is not loaded yet.
    """

    since: float
    may_evict: bool = False
    error: str | None = None


class Residency:
    """Makes cold models warm.

    Args:
        fleet: What is loaded where, and the way to the nodes.
        profiles: The catalogue, re-read elsewhere.
        leases: Our own work by place.
        rules: What the operator decides.
        now: Monotonic seconds.

    Attributes:
        version: Grows whenever a place closes or opens, or a line forms or ends; whoever keeps
            what it has derived from the snapshot compares it.
    """

    def __init__(
        self,
        fleet: Fleet,
        profiles: ProfileFile,
        leases: LeaseTable,
        rules: Rules,
        now: Callable[[], float],
        *,
        hooks: Hooks | None = None,
        log: Logger | None = None,
    ) -> None:
        self.rules = rules
        self.learned = Learned(now)
        self.uses = Uses(leases, self.learned, now)
        self.scheduler = Scheduler(self, rules)
        self.room = WaitingRoom(now, self._ring)
        self.wishes: dict[str, Wish] = {}
        self.keep: frozenset[str] = frozenset()
        self.version = 0
        self._fleet = fleet
        self._profiles = profiles
        self._leases = leases
        self._now = now
        self._hooks = hooks or Hooks()
        self._log = log
        self._effects = NodeEffects(
            fleet, lambda node, model: leases.work(node, model).open, max_load_s=rules.max_wait_s
        )
        self._bell = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: dict[str, frozenset[str]] = {}
        self._seen: FleetSnapshot | None = None
        self._catalogue: Profiles | None = None

    # ── what requests ask ───────────────────────────────────────────────────────────────────

    def closing(self, model: str) -> frozenset[str]:
        """Nodes on which the model takes no new requests, because it is about to go."""
        return self._closing.get(model, _NONE)

    def queued(self, model: str) -> bool:
        """Whether somebody waits for it already: who comes now waits behind them."""
        line = self.room.lines.get(model)
        return line is not None and bool(line.waiters)

    def join(self, model: str, deadline: float, *, may_load: bool = True) -> Waiter:
        """Take a place in the model's line; ``leave`` it when done.

        Args:
            deadline: Refused at once when its turn cannot come by then.

        Raises:
            Overloaded: Too many wait already.
        """
        waiter = self.room.join(model, deadline, may_load=may_load)
        if len(self.room.lines[model].waiters) == 1:
            self.version += 1
        return waiter

    async def load_now(self, model: str) -> str:
        """Wait until it is loaded, as a request would.

        Returns:
            A node that has it.

        Raises:
            HelexaError: Why it cannot be, or not in time.
        """
        waiter = self.join(model, self._now() + self.rules.max_wait_s)
        try:
            async with asyncio.timeout(self.rules.max_wait_s):
                await waiter.turn()
        except TimeoutError:
            raise self.still_loading(model, waiter.standing(self._now())) from None
        finally:
            waiter.leave()
        decision = decide(model, self._profiles.current, self._fleet.snapshot())
        return decision.nodes[0].name if isinstance(decision, Serve) else ""

    def wish(self, model: str, *, may_evict: bool) -> Wish:
        """Load it though nobody waits; a wish ends when the model is there."""
        found = self.wishes.get(model)
        if found is None:
            found = self.wishes[model] = Wish(self._now(), may_evict)
        found.may_evict |= may_evict
        self._ring()
        return found

    @property
    def loading(self) -> tuple[str, ...]:
        """Models that are being loaded on our account."""
        works = self.scheduler.works().values()
        return tuple(w.model for w in works if w.phase == "loading" and w.model is not None)

    def lines(self) -> list[dict[str, object]]:
        """Who waits for what, for administrators."""
        now = self._now()
        return [
            {
                "model": line.model,
                "waiters": len(line.waiters),
                "cold": line.cold,
                "waited_s": round(now - first.since, 1),
                **msgspec.to_builtins(first.standing(now)),
            }
            for line in self._lines()
            if (first := next(iter(line.waiters), None)) is not None
        ]

    def waiting(self) -> dict[str, int]:
        """How many wait for which model."""
        return {model: len(line.waiters) for model, line in self.room.lines.items()}

    def under_way(self, node: str) -> dict[str, object] | None:
        """What we do on a node at the moment."""
        work = self.scheduler.work(node)
        if work is None:
            return None
        known = {"model": work.model, "leaving": work.leaving, "victims": list(work.victims)}
        shown = {name: value for name, value in known.items() if value}
        return {"phase": work.phase, "for_s": round(self._now() - work.since, 1), **shown}

    def facts(self, node: str, model: str) -> dict[str, object]:
        """What is remembered of a model on a node; what is not known is left out."""
        now = self._now()
        since, used = self.uses.since(node, model), self.uses.last_used(node, model)
        found = {
            "resident_s": None if since is None else round(now - since, 1),
            "idle_s": None if used is None else round(now - used, 1),
            "load_s": self.learned.load_s(node, model),
            "priority": priority_of(self._profiles.current, model),
        }
        return {name: value for name, value in found.items() if value is not None}

    def still_loading(self, model: str, standing: Standing | None) -> ModelLoading:
        """The refusal of somebody who cannot wait so long."""
        shown = standing or Standing(1)
        seconds = "" if shown.eta_s is None else f", about {shown.eta_s:.0f} s"
        return ModelLoading(
            f"The model {model!r} is not loaded yet: place {shown.position} in line{seconds}.",
            retry_after_s=2.0 if shown.eta_s is None else max(1.0, shown.eta_s),
            progress=shown.progress,
            position=shown.position,
            eta_s=shown.eta_s,
        )

    # ── the task ────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Look whenever something happens, until cancelled."""
        listening = asyncio.create_task(self._listen(), name="residency listens")
        try:
            while True:
                self._bell.clear()
                at = self._look()
                now = self._now()
                wait = LOOK_S if at is None else min(LOOK_S, max(BUSY_LOOK_S, at - now))
                if any(line.waiters for line in self.room.lines.values()):
                    wait = min(wait, 5 * BUSY_LOOK_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._bell.wait()
        finally:
            listening.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.wait([listening, *self._tasks])

    async def _listen(self) -> None:
        """Ring when the fleet changes, but only while it matters."""
        seen = self._seen
        while True:
            await self._fleet.wait_until(lambda fleet, seen=seen: fleet is not seen)  # type: ignore[misc]
            seen = self._fleet.snapshot()  # not what was looked at last: that may be long ago
            if self.room or self.scheduler.works() or self.wishes:
                self._ring()
            await asyncio.sleep(BUSY_LOOK_S)

    def _ring(self) -> None:
        self._bell.set()

    def _look(self) -> float | None:
        """One look: what is, what is wanted, what to do; when to look again."""
        now, self._seen = self._now(), self._fleet.snapshot()
        fleet = self._seen
        if self._catalogue is not self._profiles.current:
            self._read_catalogue()
            known = {BUILT_IN, *(profile.id for profile in self._profiles.current.models)}
            self.learned.forget(known, {node.name for node in fleet.nodes})
        self.uses.forgive(self.room.lines)
        rooms = self.uses.rooms(fleet, self._profiles.current, self.keep)
        demands = [
            *filter(None, (self._demand_of(line, fleet) for line in self._lines())),
            *filter(None, (self._wish_of(model, fleet) for model in list(self.wishes))),
        ]
        self.scheduler.observe(rooms)
        self.scheduler.demand(demands)
        again_at = self.scheduler.step(now)
        self._publish_closing()
        self._tell(now)
        before = len(self.room.lines)
        self.room.tidy()
        self.version += len(self.room.lines) != before
        return again_at

    def _read_catalogue(self) -> None:
        """Wish for what is to be warm; once, so that nobody's unload is undone."""
        self._catalogue = self._profiles.current
        warm = frozenset(profile.id for profile in self._catalogue.models if profile.warm)
        for model in sorted(warm - self.keep):
            self.wish(model, may_evict=False)
        for model in self.keep - warm:
            self.wishes.pop(model, None)
        self.keep = warm

    def _lines(self) -> list[Line]:
        return list(self.room.lines.values())

    # ── what is wanted ──────────────────────────────────────────────────────────────────────

    def _demand_of(self, line: Line, fleet: FleetSnapshot) -> Demand | None:
        """What one line asks for; those whose turn it is go."""
        if not line.waiters:
            return None
        model, closing = line.model, self.closing(line.model)
        decision = decide(model, self._profiles.current, fleet, closing)
        if isinstance(decision, Serve):
            self._let_go(line, decision)
            return None
        line.cold = True
        for waiter in line.waiters:
            waiter.cold = True
        mine = self.scheduler.lane_of(model) is not None
        if isinstance(decision, Refuse) and not closing and not mine:
            self._refuse(line, decision.error)
            return None
        if isinstance(decision, Wait) and not mine:
            return None  # somebody else loads it
        causing = line.causing
        if not causing and not mine and not self.wishes.get(model):
            self._refuse(line, not_for_you(model))
            return None
        since = min((waiter.since for waiter in causing), default=self._now())
        return self._demand(model, fleet, len(causing), since, may_evict=True)

    def _wish_of(self, model: str, fleet: FleetSnapshot) -> Demand | None:
        wish = self.wishes[model]
        decision = decide(model, self._profiles.current, fleet, self.closing(model))
        if isinstance(decision, Serve):
            del self.wishes[model]
            return None
        if self.queued(model):
            return None  # those who wait ask for it already
        if isinstance(decision, Wake) or self.scheduler.lane_of(model) is not None:
            return self._demand(model, fleet, 0, wish.since, may_evict=wish.may_evict)
        if isinstance(decision, Refuse):
            wish.error = decision.error.message
        return None

    def _demand(
        self, model: str, fleet: FleetSnapshot, waiters: int, since: float, *, may_evict: bool
    ) -> Demand | None:
        profiles = self._profiles.current
        profile = profile_of(profiles, model)
        if profile is None:
            return None
        nodes = [node for node in feasible_nodes(profile, fleet) if not node.draining]
        options = tuple(self.uses.option(node, model, profiles) for node in nodes)
        if waiters and self._just_failed(model, [o.node for o in options]):
            return None
        return Demand(model, profile.priority, waiters, since, options, may_evict)

    def _just_failed(self, model: str, nodes: list[str]) -> bool:
        """Refuse those who wait if every node has just failed to load it."""
        if self.scheduler.lane_of(model) is not None or not nodes:
            return False
        now = self._now()
        left = min(self.learned.blocked_until(node, model) for node in nodes) - now
        error = self.learned.error(nodes, model)
        if left <= 0 or error is None:
            return False
        self._refuse(self.room.lines[model], with_retry(error, left))
        return True

    def _let_go(self, line: Line, decision: Serve) -> None:
        """As many as the places take; the others keep their order."""
        seats = 0
        for node in decision.nodes:
            load = node.models[line.model].load
            work = self._leases.work(node.name, line.model)
            if not load.max_in_flight:
                seats = len(line.waiters)
                break
            seats += load.max_in_flight + load.max_queue_depth // 2 - work.open - work.others
        for waiter in list(line.waiters)[: max(0, seats - line.released)]:
            waiter.go()
        line.eta_at, line.progress, line.ahead = None, None, 0
        if not line.waiters:
            self.version += 1

    def _refuse(self, line: Line, error: HelexaError) -> None:
        for waiter in list(line.waiters):
            waiter.refuse(copy_of(error))
        self.version += 1

    # ── what is told ────────────────────────────────────────────────────────────────────────

    def _publish_closing(self) -> None:
        found: dict[str, set[str]] = {}
        for node, model in self.scheduler.closing():
            found.setdefault(model, set()).add(node)
        closing = {model: frozenset(nodes) for model, nodes in found.items()}
        if closing != self._closing:
            self._closing = closing
            self.version += 1

    def _tell(self, now: float) -> None:
        """Everybody's place and time; those whose deadline cannot be met are refused."""
        ordered = self.scheduler.ordered(now)
        times = etas(
            ordered,
            self.scheduler.works(),
            self.scheduler.postponed,
            self.rules,
            self.learned.unload_s,
            now,
        )
        ahead = 0
        for demand in ordered:
            line = self.room.lines.get(demand.model)
            if line is None:
                continue
            line.ahead, ahead = ahead, ahead + len(line.waiters)
            if self._timed(demand):
                line.eta_at = times.get(demand.model)
        for line in self._lines():
            line.count_off()
            lane = self.scheduler.lane_of(line.model)
            if lane is not None and self.learned.timed_here(lane[0], line.model):
                line.progress = self._progress(lane, line.model, now)
            elif line.cold and (lane is not None or line.model not in times):
                self._as_told(line, now)
            self._refuse_hurried(line, now)

    def _timed(self, demand: Demand) -> bool:
        """Whether anybody knows what a load of it takes."""
        return any(self.learned.load_s(o.node, demand.model) is not None for o in demand.options)

    def _progress(self, lane: tuple[str, Work], model: str, now: float) -> float | None:
        """Of a load of ours, by how long the last ones took."""
        node, work = lane
        expected = self.learned.load_s(node, model)
        if work.phase != "loading" or not expected:
            return None
        return round(min(0.99, (now - work.since) / expected), 2)

    def _as_told(self, line: Line, now: float) -> None:
        """Somebody else's load, or our first one there: what the node says of it."""
        decision = decide(line.model, self._profiles.current, self._fleet.snapshot())
        if not isinstance(decision, Wait):
            return
        said = (decision.progress, decision.eta_s)
        if said != line.told:
            line.told, line.progress = said, decision.progress
            line.eta_at = None if decision.eta_s is None else now + decision.eta_s

    def _refuse_hurried(self, line: Line, now: float) -> None:
        for waiter in [w for w in line.waiters if w.fresh]:
            waiter.fresh = line.eta_at is None and line.progress is None
            if line.eta_at is not None and line.eta_at > waiter.deadline:
                waiter.refuse(self.still_loading(line.model, waiter.standing(now)))

    # ── effects ─────────────────────────────────────────────────────────────────────────────

    def load(self, node: str, model: str) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._load(node, model), f"load {model} on {node}")

    def unload(self, node: str, model: str, *, forced: bool) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._unload(node, model, forced=forced), f"unload {model} from {node}")

    def read(self, node: str) -> None:
        """See ``scheduler.Effects``."""
        self._start(self._read(node), f"read {node}")

    def hopeless(self, model: str, why: Hopeless) -> None:
        """See ``scheduler.Effects``."""
        profile = profile_of(self._profiles.current, model)
        nodes = [] if profile is None else feasible_nodes(profile, self._fleet.snapshot())
        error = self.learned.error([node.name for node in nodes], model) or InsufficientVram(
            f"The model {model!r} needs {why.need_mb} MiB of free memory, {why.free_mb} MiB are "
            "free where it could go, and nothing there may be evicted for it. Free memory, or "
            "lower the residency_priority of what is loaded.",
            needed_mb=why.need_mb,
            free_mb=why.free_mb,
        )
        line = self.room.lines.get(model)
        if line is not None:
            self._refuse(line, with_retry(error, RETRY_VRAM_S))
        wish = self.wishes.get(model)
        if wish is not None:
            wish.error = error.message

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _load(self, node: str, model: str) -> None:
        profile, started = profile_of(self._profiles.current, model), self._now()
        try:
            if profile is None:
                raise ServiceUnavailable(
                    f"The model {model!r} has left the catalogue.", retry_after_s=FAILED_FOR_S
                )
            await self._effects.load(profile, node)
        except HelexaError as error:
            self._load_failed(node, model, error)
        else:
            seconds = self._now() - started
            self.learned.timed(node, model, seconds)
            self.uses.loaded(node, model, owed=self.queued(model))
            self.scheduler.loaded(node, model)
            self._hooks.loaded(model, node, seconds)
            if self._log is not None:
                self._log.info("model loaded", model=model, node=node, seconds=round(seconds, 3))
        self._ring()

    def _load_failed(self, node: str, model: str, error: HelexaError) -> None:
        work = self.scheduler.work(node)
        if work is not None and work.model == model:  # else it was cancelled by us
            self.learned.failed(node, model, error)
            if self._log is not None:
                # Not to fit is an answer; room will be made, or those who wait are told.
                expected = isinstance(error, InsufficientVram)
                say = self._log.info if expected else self._log.warning
                say("load failed", model=model, node=node, reason=error.message)
            if model in self.wishes:
                self.wishes[model].error = error.message
        self.scheduler.failed(node, model)

    async def _unload(self, node: str, model: str, *, forced: bool) -> None:
        started = self._now()
        work = self.scheduler.work(node)
        room_for = None if work is None else work.model
        try:
            await self._effects.unload(node, model, forced=forced)
        except (HelexaError, InUse) as error:
            self.scheduler.kept(node, model, self._now())
            if self._log is not None and isinstance(error, HelexaError):
                self._log.warning("unload failed", model=model, node=node, reason=error.message)
        else:
            self.learned.unload_timed(self._now() - started)
            self.scheduler.unloaded(node, model, self._now())
            if room_for is not None:
                self._hooks.evicted(model, node)
            if self._log is not None:
                why = "idle" if room_for is None else f"room for {room_for}"
                self._log.info("model unloaded", model=model, node=node, why=why)
        self._ring()

    async def _read(self, node: str) -> None:
        free: dict[int, int] | None = None
        with suppress(HelexaError):  # the snapshot will say what became of the node
            free = await self._effects.free_mb(node)
        self.scheduler.read(node, free, self._now())
        self._ring()


def priority_of(profiles: Profiles, model: str) -> int | None:
    """Its residency priority; None when the catalogue does not know it, and it stays."""
    profile = profile_of(profiles, model)
    return None if profile is None else profile.priority


def not_for_you(model: str) -> Forbidden:
    """The refusal of a key that may use a model but not cause its load."""
    return Forbidden(
        f"The model {model!r} is not loaded and this key may not cause a load.", param="model"
    )


def copy_of(error: HelexaError) -> HelexaError:
    """An error of its own for every waiter: each is raised, and keeps the frames it came by."""
    return with_retry(error, error.retry_after_s)
