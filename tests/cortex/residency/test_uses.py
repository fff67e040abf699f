"""What is remembered of the models that are there: who uses them, and since when."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from helexa.core.fleet import ModelEntry, ModelLoad
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.profiles import Profile, Profiles
from helexa.cortex.residency.learned import Learned
from helexa.cortex.residency.uses import Uses
from helexa.cortex.residency.world import Resident
from helexa.cortex.routing.leases import LeaseTable

KNOWN = Profiles((Profile("old"), Profile("new")))


def model(name: str, **load: Any) -> dict[str, ModelState]:
    return {name: ModelState(ModelEntry(name, "loaded"), ModelLoad(name, **load))}


class Watched:
    """One node as it is looked at again and again, a second apart."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.uses = Uses(LeaseTable(), Learned(lambda: self.now), lambda: self.now)
        self.node = NodeSnapshot("n", "", answered=True)

    def look(self, models: dict[str, ModelState]) -> dict[str, Resident]:
        self.now += 1.0
        self.node = replace(self.node, models=models, last_seen=self.now)
        (room,) = self.uses.rooms(FleetSnapshot((self.node,)), KNOWN, ())
        return dict(room.residents)


def test_a_model_that_only_others_use_is_in_use() -> None:
    """Those of other gateways, or who ask the node itself."""
    watched = Watched()
    idle = watched.look(model("old"))["old"]
    busy = watched.look(model("old", in_flight=1, queue_depth=1))["old"]
    assert (idle.running, busy.running) == (0, 2)
    assert busy.last_used == watched.now
    after = watched.look(model("old"))["old"]
    assert (after.running, after.last_used) == (0, watched.now - 1.0)


def test_a_model_that_somebody_else_loads_is_as_young_as_it_is() -> None:
    watched = Watched()
    first = watched.look(model("old"))
    assert first["old"].since < 0, "it was there before we first looked"
    both = watched.look(model("old") | model("new"))
    assert both["new"].since == watched.now
    assert both["old"].since == first["old"].since
