"""What is loaded where in a simulation: ``residency``'s scheduler, with effects in virtual time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.scheduler import Scheduler
from helexa.cortex.residency.world import Demand, Option, Resident, Room
from helexa.cortex.simulate.fleet import FleetSpec
from helexa.cortex.simulate.place import Place

if TYPE_CHECKING:
    from helexa.cortex.simulate.run import Simulation

UNLOAD_S = 0.5
"""An engine's end."""


class Residents:
    """Every node's loaded models; the ``Effects`` of the scheduler."""

    def __init__(self, spec: FleetSpec, simulation: Simulation) -> None:
        self._simulation = simulation
        self._models = {model.id: model for model in spec.models}
        self._nodes = {node.name: node for node in spec.each()}
        self._places: dict[tuple[str, str], Place] = {}
        self._owed: set[Place] = set()
        self._open: dict[str, list[Place]] = {}
        self._looks_at: float | None = None
        self._scheduler = Scheduler(self, spec.residency)
        for node in self._nodes.values():
            for model in node.loaded:
                self._places[node.name, model] = Place(node, model)

    def known(self, model: str) -> bool:
        """Whether the fleet has heard of it."""
        return model in self._models

    def open(self, model: str) -> list[Place]:
        """Places that take requests for it."""
        found = self._open.get(model)
        if found is None:
            closing = self._scheduler.closing()
            found = self._open[model] = [
                place for at, place in self._places.items() if at[1] == model and at not in closing
            ]
        return found

    def used(self, place: Place) -> None:
        """A request goes there."""
        self._owed.discard(place)

    def step(self) -> None:
        """Let the scheduler look, now and when it asks to."""
        now = self._simulation.clock.now
        self._scheduler.observe(self._rooms())
        self._scheduler.demand(self._demands())
        again = self._scheduler.step(now)
        self._open.clear()
        if again is not None and (self._looks_at is None or self._looks_at > again):
            self._looks_at = again
            self._simulation.at(max(again, now), self._look)

    def _look(self) -> None:
        self._looks_at = None
        self._simulation.look()

    # ── effects ─────────────────────────────────────────────────────────────────────────────

    def load(self, node: str, model: str) -> None:
        """A load begins."""
        now = self._simulation.clock.now
        self._simulation.result.loads.append((now, node, model))
        self._simulation.at(now + self._models[model].load_s, lambda: self._loaded(node, model))

    def _loaded(self, node: str, model: str) -> None:
        now = self._simulation.clock.now
        place = self._places[node, model] = Place(self._nodes[node], model, now)
        if self._simulation.waiting.get(model):
            self._owed.add(place)
        self._scheduler.loaded(node, model)
        self._open.clear()
        self._simulation.look()

    def unload(self, node: str, model: str, *, forced: bool) -> None:
        """An unload begins; what runs there has been waited for."""
        now = self._simulation.clock.now
        if not forced and self._scheduler_made_room(node):
            self._simulation.result.evictions.append((now, node, model))
        self._simulation.at(now + UNLOAD_S, lambda: self._unloaded(node, model))

    def _scheduler_made_room(self, node: str) -> bool:
        work = self._scheduler.work(node)
        return work is not None and work.model is not None

    def _unloaded(self, node: str, model: str) -> None:
        self._places.pop((node, model), None)
        self._open.clear()
        self._scheduler.unloaded(node, model, self._simulation.clock.now)
        self._simulation.look()

    def read(self, node: str) -> None:
        """The node's memory is read anew."""
        now = self._simulation.clock.now

        def answered() -> None:
            self._scheduler.read(node, self._free(node), now)
            self._simulation.look()

        self._simulation.at(now, answered)

    def hopeless(self, model: str, why: Hopeless) -> None:  # noqa: ARG002
        """There is no room for it anywhere."""
        self._simulation.refuse(model)

    # ── what the scheduler reads ────────────────────────────────────────────────────────────

    def _free(self, node: str) -> Mapping[int, int]:
        held = sum(self._models[model].memory_mb for name, model in self._places if name == node)
        return {0: self._nodes[node].memory_mb - held}

    def _rooms(self) -> list[Room]:
        rooms = []
        for node in self._nodes:
            here = {m: p for (name, m), p in self._places.items() if name == node}
            residents = {model: self._resident(place) for model, place in here.items()}
            rooms.append(Room(node, self._free(node), residents))
        return rooms

    def _resident(self, place: Place) -> Resident:
        facts, now = self._models[place.model], self._simulation.clock.now
        return Resident(
            place.model,
            running=place.busy,
            priority=facts.priority,
            since=place.since,
            last_used=now if place.busy else place.last_used,
            load_s=facts.load_s,
            used_mb=facts.memory_mb,
            devices=(0,),
            owed=place in self._owed,
        )

    def _demands(self) -> list[Demand]:
        found = []
        for model, runs in self._simulation.waiting.items():
            if not runs or self.open(model):
                continue
            facts = self._models[model]
            options = tuple(
                Option(node, facts.memory_mb, firm=True, load_s=facts.load_s)
                for node in self._nodes
            )
            since = runs[0].asked.at
            found.append(Demand(model, facts.priority, len(runs), since, options))
        return found
