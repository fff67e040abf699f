"""The one task behind residency: it looks, lets the scheduler decide, and acts.

::

    join, leave ─┐                       ┌─▶ load, unload, read (a task each, results come back)
    fleet news ──┼─▶ look: observe, step ┼─▶ whose turn it is
    results ─────┘                       └─▶ refusals, places, times

What changes residency happens in looks and at the ends of effects; nothing there waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from helexa.core.errors import (
    Forbidden,
    HelexaError,
    InsufficientVram,
)
from helexa.core.logging import Logger
from helexa.cortex.catalogue import feasible_nodes, profile_of
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import BUILT_IN, ProfileFile, Profiles
from helexa.cortex.residency.acts import Acts, Hooks
from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.effects import NodeEffects
from helexa.cortex.residency.learned import RETRY_VRAM_S, Learned, with_retry
from helexa.cortex.residency.spreading import Spreading
from helexa.cortex.residency.telling import Teller, still_loading
from helexa.cortex.residency.uses import Uses
from helexa.cortex.residency.waiting import Line, Waiter, WaitingRoom
from helexa.cortex.residency.world import Demand, Rules
from helexa.cortex.routing.decide import Decision, Refuse, Serve, Wait, Wake, decide
from helexa.cortex.routing.leases import LeaseTable

LOOK_S = 1.0
"""Between looks while nothing happens: so exact is when a model was last used."""
BUSY_LOOK_S = 0.02
"""The least between looks while somebody waits."""
_NONE: frozenset[str] = frozenset()


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
        self.room = WaitingRoom(now, self._ring)
        self.wishes: dict[str, Wish] = {}
        self.keep: frozenset[str] = frozenset()
        self.version = 0
        self._fleet = fleet
        self._profiles = profiles
        self._leases = leases
        self.now = now
        self._acts = Acts(
            rules,
            NodeEffects(
                fleet,
                lambda node, model: leases.work(node, model).open,
                max_load_s=rules.max_wait_s,
            ),
            self.learned,
            now,
            profile=lambda model: profile_of(self.profiles, model),
            loaded=lambda node, model: self.uses.loaded(node, model, owed=self.queued(model)),
            failed=self._load_failed,
            hopeless=self._hopeless,
            ring=self._ring,
            hooks=hooks or Hooks(),
            log=log,
        )
        self.scheduler = self._acts.scheduler
        self._teller = Teller(self.room, self.scheduler, self.learned, self._decided)
        self._spreading = Spreading(
            rules.max_copies,
            leases,
            serving=self._serving,
            under_way=lambda model: self.scheduler.lane_of(model) is not None,
            demand=lambda model, fleet, now: self._demand(model, fleet, 0, now, may_evict=False),
        )
        self._bell = asyncio.Event()
        self._closing: dict[str, frozenset[str]] = {}
        self._seen: FleetSnapshot | None = None
        self._catalogue: Profiles | None = None

    @property
    def profiles(self) -> Profiles:
        """The catalogue as it stands."""
        return self._profiles.current

    def _decided(self, model: str) -> Decision:
        return decide(model, self.profiles, self._fleet.snapshot())

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
        waiter = self.join(model, self.now() + self.rules.max_wait_s)
        try:
            async with asyncio.timeout(self.rules.max_wait_s):
                await waiter.turn()
        except TimeoutError:
            raise still_loading(model, waiter.standing(self.now())) from None
        finally:
            waiter.leave()
        decision = decide(model, self.profiles, self._fleet.snapshot())
        return decision.nodes[0].name if isinstance(decision, Serve) else ""

    def wish(self, model: str, *, may_evict: bool) -> Wish:
        """Load it though nobody waits; a wish ends when the model is there."""
        found = self.wishes.get(model)
        if found is None:
            found = self.wishes[model] = Wish(self.now(), may_evict)
        found.may_evict |= may_evict
        self._ring()
        return found

    @property
    def loading(self) -> tuple[str, ...]:
        """Models that are being loaded on our account."""
        works = self.scheduler.works().values()
        return tuple(w.model for w in works if w.phase == "loading" and w.model is not None)

    def waiting(self) -> dict[str, int]:
        """How many wait for which model."""
        return {model: len(line.waiters) for model, line in self.room.lines.items()}

    # ── the task ────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Look whenever something happens, until cancelled."""
        listening = asyncio.create_task(self._listen(), name="residency listens")
        try:
            while True:
                self._bell.clear()
                at = self._look()
                now = self.now()
                wait = LOOK_S if at is None else min(LOOK_S, max(BUSY_LOOK_S, at - now))
                if any(line.waiters for line in self.room.lines.values()):
                    wait = min(wait, 5 * BUSY_LOOK_S)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._bell.wait()
        finally:
            listening.cancel()
            await asyncio.wait([listening])
            await self._acts.aclose()

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
        now, self._seen = self.now(), self._fleet.snapshot()
        fleet = self._seen
        if self._catalogue is not self.profiles:
            self._read_catalogue()
            known = {BUILT_IN, *(profile.id for profile in self.profiles.models)}
            self.learned.forget(known, {node.name for node in fleet.nodes})
        self.uses.forgive(self.room.lines)
        rooms = self.uses.rooms(fleet, self.profiles, self.keep)
        demands = [
            *filter(None, (self._demand_of(line, fleet) for line in self._lines())),
            *filter(None, (self._wish_of(model, fleet) for model in list(self.wishes))),
            *self._spreading.demands(fleet, now),
        ]
        self.scheduler.observe(rooms)
        self.scheduler.demand(demands)
        again_at = self.scheduler.step(now)
        self._publish_closing()
        self._teller.tell(now)
        before = len(self.room.lines)
        self.room.tidy()
        self.version += len(self.room.lines) != before
        return again_at

    def _read_catalogue(self) -> None:
        """Wish for what is to be warm; once, so that nobody's unload is undone."""
        self._catalogue = self.profiles
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
        decision = decide(model, self.profiles, fleet, closing)
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
        since = min((waiter.since for waiter in causing), default=self.now())
        return self._demand(model, fleet, len(causing), since, may_evict=True)

    def _wish_of(self, model: str, fleet: FleetSnapshot) -> Demand | None:
        wish = self.wishes[model]
        decision = decide(model, self.profiles, fleet, self.closing(model))
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

    def _serving(self, model: str, fleet: FleetSnapshot) -> tuple[NodeSnapshot, ...]:
        """The nodes that serve it, unless somebody waits in line for it."""
        decision = decide(model, self.profiles, fleet, self.closing(model))
        return decision.nodes if isinstance(decision, Serve) and not self.queued(model) else ()

    def _demand(
        self, model: str, fleet: FleetSnapshot, waiters: int, since: float, *, may_evict: bool
    ) -> Demand | None:
        profiles = self.profiles
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
        now = self.now()
        left = min(self.learned.blocked_until(node, model) for node in nodes) - now
        error = self.learned.error(nodes, model)
        if left <= 0 or error is None:
            return False
        self._refuse(self.room.lines[model], with_retry(error, left))
        return True

    def _hopeless(self, model: str, why: Hopeless) -> None:
        """There is no room for it, and nobody may be evicted: say so to everybody."""
        profile = profile_of(self.profiles, model)
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

    def _load_failed(self, model: str, error: HelexaError) -> None:
        if model in self.wishes:
            self.wishes[model].error = error.message

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
        line.eta_at, line.progress, line.download, line.ahead = None, None, None, 0
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


def not_for_you(model: str) -> Forbidden:
    """The refusal of a key that may use a model but not cause its load."""
    return Forbidden(
        f"The model {model!r} is not loaded and this key may not cause a load.", param="model"
    )


def copy_of(error: HelexaError) -> HelexaError:
    """An error of its own for every waiter: each is raised, and keeps the frames it came by."""
    return with_retry(error, error.retry_after_s)
