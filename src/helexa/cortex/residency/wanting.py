"""What is wanted of residency: by those who wait in lines, and by wishes that nobody waits for.

::

    lines  ─┐                    ┌─▶ a demand each, for the scheduler
            ├─ look at the fleet ┼─▶ those whose turn it is go
    wishes ─┘                    └─▶ those who wait in vain are told why
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from helexa.core.errors import Forbidden, HelexaError, InsufficientVram
from helexa.cortex.catalogue import feasible_nodes, profile_of
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import BUILT_IN, Profiles
from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.learned import RETRY_VRAM_S, Learned, with_retry
from helexa.cortex.residency.uses import Uses
from helexa.cortex.residency.waiting import Line, WaitingRoom
from helexa.cortex.residency.world import Demand
from helexa.cortex.routing.decide import Decision, Refuse, Serve, Wait, Wake, decide
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.standing import unless_away


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


class Wanting:
    """Owner of the wishes; reads the lines.

    Args:
        profiles: The catalogue as it stands.
        snapshot: The fleet as it stands.
        closing: Nodes on which a model takes no new requests.
        under_way: Whether a load of a model is, on our account.
        now: Monotonic seconds.
        changed: Called when a line has ended.

    Attributes:
        keep: Models that are to stay loaded.
    """

    def __init__(
        self,
        room: WaitingRoom,
        uses: Uses,
        learned: Learned,
        leases: LeaseTable,
        *,
        profiles: Callable[[], Profiles],
        snapshot: Callable[[], FleetSnapshot],
        closing: Callable[[str], frozenset[str]],
        under_way: Callable[[str], bool],
        now: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self.wishes: dict[str, Wish] = {}
        self.keep: frozenset[str] = frozenset()
        self._room = room
        self._uses = uses
        self._learned = learned
        self._leases = leases
        self._profiles = profiles
        self._snapshot = snapshot
        self._closing = closing
        self._under_way = under_way
        self._now = now
        self._changed = changed
        self._catalogue: Profiles | None = None
        self._nodes: frozenset[str] = frozenset()

    def wish(self, model: str, *, may_evict: bool) -> Wish:
        """Load it though nobody waits; a wish ends when the model is there."""
        found = self.wishes.get(model)
        if found is None:
            found = self.wishes[model] = Wish(self._now(), may_evict)
        found.may_evict |= may_evict
        return found

    def read_catalogue(self) -> None:
        """Wish for what is to be warm; once, so that nobody's unload is undone. What was learned of
        models and nodes that are gone is forgotten."""
        now = self._profiles()
        nodes = frozenset(node.name for node in self._snapshot().nodes)
        if self._catalogue is not now or self._nodes != nodes:
            known = {BUILT_IN, *(profile.id for profile in now.models)}
            self._learned.forget(known, nodes)
        self._nodes = nodes
        if self._catalogue is now:
            return
        self._catalogue = now
        warm = frozenset(profile.id for profile in now.models if profile.warm)
        for model in sorted(warm - self.keep):
            self.wish(model, may_evict=False)
        for model in self.keep - warm:
            self.wishes.pop(model, None)
        self.keep = warm

    def demands(self, fleet: FleetSnapshot) -> Iterator[Demand]:
        """What lines and wishes ask for now; those whose turn it is go."""
        for line in list(self._room.lines.values()):
            demand = self._of_line(line, fleet)
            if demand is not None:
                yield demand
        for model in list(self.wishes):
            demand = self._of_wish(model, fleet)
            if demand is not None:
                yield demand

    def serving(self, model: str, fleet: FleetSnapshot) -> tuple[NodeSnapshot, ...]:
        """The nodes that serve it."""
        decision = self._decided(model, fleet)
        return decision.nodes if isinstance(decision, Serve) else ()

    def demand(
        self, model: str, fleet: FleetSnapshot, waiters: int, since: float, *, may_evict: bool
    ) -> Demand | None:
        """What a load of it would ask for; None when it cannot be loaded now.

        Args:
            waiters: Those who may cause a load; if every node has just failed, they are told.
            since: When it was first wanted.
        """
        profiles = self._profiles()
        profile = profile_of(profiles, model)
        if profile is None:
            return None
        nodes = [node for node in feasible_nodes(profile, fleet) if not node.draining]
        options = tuple(self._uses.option(node, model, profiles) for node in nodes)
        if waiters and self._just_failed(model, fleet, nodes):
            return None
        return Demand(model, profile.priority, waiters, since, options, may_evict)

    def load_failed(self, model: str, error: HelexaError) -> None:
        """Keep why, for whoever wishes for it."""
        if model in self.wishes:
            self.wishes[model].error = error.message

    def hopeless(self, model: str, why: Hopeless) -> None:
        """There is no room for it, and nobody may be evicted: say so to everybody.

        Where it is served there was no room for one more place of it; those in line have theirs.
        """
        profile, fleet = profile_of(self._profiles(), model), self._snapshot()
        if self.serving(model, fleet):
            return
        nodes = [] if profile is None else feasible_nodes(profile, fleet)
        error = self._learned.error([node.name for node in nodes], model) or InsufficientVram(
            f"The model {model!r} needs {why.need_mb} MiB of free memory, {why.free_mb} MiB are "
            "free where it could go, and nothing there may be evicted for it. Free memory, or "
            "lower the residency_priority of what is loaded.",
            needed_mb=why.need_mb,
            free_mb=why.free_mb,
        )
        line = self._room.lines.get(model)
        if line is not None:
            self._refuse(line, with_retry(error, RETRY_VRAM_S))
        self.load_failed(model, error)

    def _decided(self, model: str, fleet: FleetSnapshot) -> Decision:
        return decide(model, self._profiles(), fleet, self._closing(model))

    def _of_line(self, line: Line, fleet: FleetSnapshot) -> Demand | None:
        if not line.waiters:
            return None
        model = line.model
        decision = self._decided(model, fleet)
        if isinstance(decision, Serve):
            self._let_go(line, decision)
            return None
        line.cold = True
        for waiter in line.waiters:
            waiter.cold = True
        mine = self._under_way(model)
        if isinstance(decision, Refuse) and not self._closing(model) and not mine:
            self._refuse(line, decision.error)
            return None
        if isinstance(decision, Wait) and not mine:
            return None  # somebody else loads it
        causing = line.causing
        if not causing and not mine and not self.wishes.get(model):
            self._refuse(line, not_for_you(model))
            return None
        since = min((waiter.since for waiter in causing), default=self._now())
        return self.demand(model, fleet, len(causing), since, may_evict=True)

    def _of_wish(self, model: str, fleet: FleetSnapshot) -> Demand | None:
        wish = self.wishes[model]
        decision = self._decided(model, fleet)
        if isinstance(decision, Serve):
            del self.wishes[model]
            return None
        if self._room.waited_for(model):
            return None  # those who wait ask for it already
        if isinstance(decision, Wake) or self._under_way(model):
            return self.demand(model, fleet, 0, wish.since, may_evict=wish.may_evict)
        if isinstance(decision, Refuse):
            wish.error = decision.error.message
        return None

    def _just_failed(self, model: str, fleet: FleetSnapshot, nodes: list[NodeSnapshot]) -> bool:
        """Refuse those who wait if every node has just failed to load it."""
        if self._under_way(model) or not nodes:
            return False
        names = [node.name for node in nodes]
        left = min(self._learned.blocked_until(name, model) for name in names) - self._now()
        error = self._learned.error(names, model)
        if left <= 0 or error is None:
            return False
        usable = [node for node in fleet.reachable if not node.draining]
        told = unless_away(error, fleet, usable, left)
        self._refuse(self._room.lines[model], with_retry(told, left))
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
        line.eta_at, line.progress, line.download, line.ahead = None, None, None, 0
        if not line.waiters:
            self._changed()

    def _refuse(self, line: Line, error: HelexaError) -> None:
        for waiter in list(line.waiters):
            waiter.refuse(copy_of(error))
        self._changed()


def not_for_you(model: str) -> Forbidden:
    """The refusal of a key that may use a model but not cause its load."""
    return Forbidden(
        f"The model {model!r} is not loaded and this key may not cause a load.", param="model"
    )


def copy_of(error: HelexaError) -> HelexaError:
    """An error of its own for every waiter: each is raised, and keeps the frames it came by."""
    return with_retry(error, error.retry_after_s)
