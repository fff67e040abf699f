"""A fleet in virtual time: the scheduler's effects, with memory that can really run out."""

from __future__ import annotations

from dataclasses import dataclass, field

from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.scheduler import Scheduler
from helexa.cortex.residency.world import Demand, Option, Resident, Room, Rules

UNLOAD_S = 0.1


@dataclass
class Model:
    """One model of the catalogue."""

    size: int
    priority: int = 100
    load_s: float = 5.0


@dataclass
class Place:
    """A model on a node."""

    since: float
    last_used: float
    status: str = "loaded"
    running: int = 0
    owed: bool = False


@dataclass
class Pending:
    """An effect on its way."""

    due: float
    kind: str
    node: str
    model: str


@dataclass
class World:
    """Nodes of one device each; ``checks`` holds what may never happen to that."""

    rules: Rules
    nodes: dict[str, int]
    models: dict[str, Model]
    known: bool = True
    now: float = 0.0
    places: dict[tuple[str, str], Place] = field(default_factory=dict)
    waiting: dict[str, list[float]] = field(default_factory=dict)
    pending: list[Pending] = field(default_factory=list)
    served: dict[str, list[float]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    needs: dict[tuple[str, str], int] = field(default_factory=dict)
    loads: list[tuple[float, str, str]] = field(default_factory=list)
    evictions: list[tuple[float, str, str]] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    polled: dict[str, int] = field(default_factory=dict)
    """What an old poll says is free, where it differs."""

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(self, self.rules)

    # What the scheduler asks for.

    def load(self, node: str, model: str) -> None:
        """A load begins; memory is taken when it ends."""
        assert not [p for p in self.pending if p.node == node], "two things at once on one node"
        assert not [p for p in self.pending if p.kind == "load" and p.model == model]
        if self.known:
            assert self.free(node) >= self.models[model].size, "a load that cannot fit"
        self.loads.append((self.now, node, model))
        self.pending.append(Pending(self.now + self.models[model].load_s, "load", node, model))

    def unload(self, node: str, model: str, *, forced: bool) -> None:
        """An unload begins."""
        if forced:
            self.pending = [p for p in self.pending if (p.kind, p.node) != ("load", node)]
        else:
            self._check_victim(node, model)
        assert not [p for p in self.pending if p.node == node], "two things at once on one node"
        if (node, model) in self.places:
            self.places[node, model].status = "unloading"
        self.pending.append(Pending(self.now + UNLOAD_S, "unload", node, model))

    def read(self, node: str) -> None:
        """A reading begins."""
        self.pending.append(Pending(self.now, "read", node, ""))

    def hopeless(self, model: str, why: Hopeless) -> None:
        """Everybody who waits for it is refused."""
        assert why.need_mb > why.free_mb
        self.refused += [model] * len(self.waiting.pop(model, []))

    def _check_victim(self, node: str, model: str) -> None:
        place = self.places[node, model]
        assert not place.running, "a busy victim"
        assert not place.owed, "a victim that has not served a waiter"
        assert self.now >= place.since + self.rules.min_residency_s, "a victim too young"
        work = self.scheduler.work(node)
        assert work is not None
        if work.model is not None:
            assert self.models[model].priority <= self.models[work.model].priority
            self.evictions.append((self.now, node, model))

    # What happens in the world.

    def free(self, node: str) -> int:
        """Memory that nobody has."""
        held = sum(self.models[m].size for n, m in self.places if n == node)
        return self.nodes[node] - held

    def closing(self) -> set[tuple[str, str]]:
        """Places that take nothing new."""
        return self.scheduler.closing()

    def open_place(self, model: str) -> tuple[str, str] | None:
        """Where a request for it could run now."""
        closing = self.closing()
        for at, place in self.places.items():
            if at[1] == model and place.status == "loaded" and at not in closing:
                return at
        return None

    def arrive(self, model: str) -> bool:
        """A request; True when it runs at once."""
        at = self.open_place(model)
        if at is None or self.waiting.get(model):
            self.waiting.setdefault(model, []).append(self.now)
            return False
        self._run(at, self.now)
        return True

    def _run(self, at: tuple[str, str], since: float) -> None:
        place = self.places[at]
        place.running += 1
        place.owed, place.last_used = False, self.now
        self.served.setdefault(at[1], []).append(self.now - since)

    def finish(self, model: str) -> bool:
        """One running request ends."""
        for (_, name), place in self.places.items():
            if name == model and place.running:
                place.running -= 1
                place.last_used = self.now
                return True
        return False

    def leave(self, model: str) -> None:
        """A waiter gives up."""
        if self.waiting.get(model):
            self.waiting[model].pop(0)

    def complete(self, effect: Pending) -> None:
        """An effect ends now."""
        self.pending.remove(effect)
        node, model, scheduler = effect.node, effect.model, self.scheduler
        if effect.kind == "read":
            scheduler.read(node, {0: self.free(node)}, self.now)
        elif effect.kind == "unload":
            self.places.pop((node, model), None)
            scheduler.unloaded(node, model, self.now)
        elif node in self.down or self.free(node) < self.models[model].size:
            self.needs[node, model] = self.models[model].size
            scheduler.failed(node, model)
        else:
            owed = bool(self.waiting.get(model))
            self.places[node, model] = Place(self.now, self.now, owed=owed)
            scheduler.loaded(node, model)

    def look(self) -> float | None:
        """What the owner does: waiters go where they can, then the scheduler decides."""
        for model in list(self.waiting):
            at = self.open_place(model)
            while at is not None and self.waiting[model]:
                self._run(at, self.waiting[model].pop(0))
            if not self.waiting[model]:
                del self.waiting[model]
                for (_, name), place in self.places.items():
                    place.owed = place.owed and name != model
        self.scheduler.observe(self._rooms())
        self.scheduler.demand(self._demands())
        return self.scheduler.step(self.now)

    def _rooms(self) -> list[Room]:
        rooms = []
        for node in self.nodes:
            if node in self.down:
                continue
            residents = {}
            for (name, model), place in self.places.items():
                if name != node:
                    continue
                facts = self.models[model]
                residents[model] = Resident(
                    model, place.status, place.running, facts.priority, place.since,
                    self.now if place.running else place.last_used, facts.load_s, facts.size,
                    (0,), place.owed,
                )  # fmt: skip
            free = self.polled.get(node, self.free(node))
            rooms.append(Room(node, {0: free}, residents))
        return rooms

    def _demands(self) -> list[Demand]:
        found = []
        for model, waiters in self.waiting.items():
            if not waiters or self.open_place(model):
                continue
            facts = self.models[model]
            options = tuple(
                Option(
                    node,
                    facts.size if self.known else self.needs.get((node, model)),
                    self.known or (node, model) in self.needs,
                    load_s=facts.load_s,
                )
                for node in self.nodes
            )
            found.append(Demand(model, facts.priority, len(waiters), waiters[0], options))
        return found

    def pass_time(self, seconds: float) -> None:
        """Effects end when they are due, and the scheduler looks when it asked to."""
        until = self.now + seconds
        while True:
            again = self.look()
            times = [p.due for p in self.pending]
            if again is not None:
                times.append(max(again, self.now))
            at = min(times, default=until)
            if at > until:
                break
            self.now = at
            due = [p for p in self.pending if p.due <= self.now]
            for effect in due:
                self.complete(effect)
            if not due and at >= until:
                break
        self.now = until
        self.look()
