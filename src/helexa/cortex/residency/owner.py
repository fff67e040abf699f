"""The one task behind residency: it looks, lets the scheduler decide, and acts.

::

    join, leave ─┐                       ┌─▶ load, unload, read (a task each, results come back)
    fleet news ──┼─▶ look: observe, step ┼─▶ whose turn it is
    results ─────┘                       └─▶ refusals, places, times

What changes residency happens in looks and at the ends of effects; nothing there waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from helexa.core.logging import Logger
from helexa.cortex.catalogue import profile_of
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.residency.acts import Acts, Hooks
from helexa.cortex.residency.effects import NodeEffects
from helexa.cortex.residency.learned import Learned
from helexa.cortex.residency.spreading import Spreading
from helexa.cortex.residency.telling import Teller, still_loading
from helexa.cortex.residency.uses import Uses
from helexa.cortex.residency.waiting import Waiter, WaitingRoom
from helexa.cortex.residency.wanting import Wanting, Wish
from helexa.cortex.residency.world import Rules
from helexa.cortex.routing.decide import Decision, Serve, decide
from helexa.cortex.routing.leases import LeaseTable

LOOK_S = 1.0
"""Between looks while nothing happens: so exact is when a model was last used."""
BUSY_LOOK_S = 0.02
"""The least between looks while somebody waits."""
_NONE: frozenset[str] = frozenset()


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
        self.version = 0
        self._fleet = fleet
        self._profiles = profiles
        self._leases = leases
        self.now = now
        self._acts = self._make_acts(hooks or Hooks(), log)
        self.scheduler = self._acts.scheduler
        self._wanting = self._make_wanting()
        self._teller = Teller(self.room, self.scheduler, self.learned, self._decided)
        self._spreading = self._make_spreading()
        self._bell = asyncio.Event()
        self._closing: dict[str, frozenset[str]] = {}
        self._seen: FleetSnapshot | None = None

    def _make_acts(self, hooks: Hooks, log: Logger | None) -> Acts:
        leases = self._leases
        effects = NodeEffects(
            self._fleet,
            lambda node, model: leases.work(node, model).open,
            max_load_s=self.rules.max_wait_s,
        )
        return Acts(
            self.rules,
            effects,
            self.learned,
            self.now,
            profile=lambda model: profile_of(self.profiles, model),
            loaded=lambda node, model: self.uses.loaded(node, model, owed=self.queued(model)),
            failed=lambda model, error: self._wanting.load_failed(model, error),  # noqa: PLW0108
            hopeless=lambda model, why: self._wanting.hopeless(model, why),  # noqa: PLW0108
            ring=self._ring,
            hooks=hooks,
            log=log,
        )

    def _make_wanting(self) -> Wanting:
        return Wanting(
            self.room,
            self.uses,
            self.learned,
            self._leases,
            profiles=lambda: self.profiles,
            snapshot=self._fleet.snapshot,
            closing=self.closing,
            under_way=self._under_way,
            now=self.now,
            changed=self._changed,
        )

    def _make_spreading(self) -> Spreading:
        return Spreading(
            self.rules.max_copies,
            self._leases,
            serving=self._wanting.serving,
            under_way=self._under_way,
            demand=lambda model, fleet, now: self._wanting.demand(
                model, fleet, 0, now, may_evict=False
            ),
        )

    @property
    def profiles(self) -> Profiles:
        """The catalogue as it stands."""
        return self._profiles.current

    def _under_way(self, model: str) -> bool:
        """Whether a load of it is, on our account."""
        return self.scheduler.lane_of(model) is not None

    def _decided(self, model: str) -> Decision:
        return decide(model, self.profiles, self._fleet.snapshot())

    # ── what requests ask ───────────────────────────────────────────────────────────────────

    def closing(self, model: str) -> frozenset[str]:
        """Nodes on which the model takes no new requests, because it is about to go."""
        return self._closing.get(model, _NONE)

    def queued(self, model: str) -> bool:
        """Whether somebody waits for it already: who comes now waits behind them."""
        return self.room.waited_for(model)

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
        found = self._wanting.wish(model, may_evict=may_evict)
        self._ring()
        return found

    @property
    def wishes(self) -> Mapping[str, Wish]:
        """What is to be loaded though nobody waits for it."""
        return self._wanting.wishes

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
        self._wanting.read_catalogue()
        self.uses.forgive(self.room.lines)
        rooms = self.uses.rooms(fleet, self.profiles, self._wanting.keep)
        demands = [*self._wanting.demands(fleet), *self._spreading.demands(fleet, now)]
        self.scheduler.observe(rooms)
        self.scheduler.demand(demands)
        again_at = self.scheduler.step(now)
        self._publish_closing()
        self._teller.tell(now)
        before = len(self.room.lines)
        self.room.tidy()
        self.version += len(self.room.lines) != before
        return again_at

    def _changed(self) -> None:
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
