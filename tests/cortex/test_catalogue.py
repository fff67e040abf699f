"""What is listed is what can be served; what cannot be served is said in health."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from helexa.core.fleet import (
    Activation,
    Device,
    Discovery,
    FailedActivation,
    Limit,
    ModelEntry,
    ModelLoad,
    Servable,
)
from helexa.cortex.catalogue import feasible, health, listing, profile_of, resolve
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.profiles import Cost, Profile, Profiles


def entry(name: str, status: str = "loaded", **more: Any) -> ModelEntry:
    return ModelEntry(name, status, **more)


def node(
    name: str, *entries: ModelEntry, gpus: int = 1, mb: int = 24_000, **more: Any
) -> NodeSnapshot:
    discovery = Discovery(
        devices=[Device(i, vram_total_mb=mb) for i in range(gpus)], harnesses=["llamacpp"]
    )
    base = NodeSnapshot(
        name,
        f"http://{name}",
        answered=True,
        discovery=discovery,
        models={e.id: ModelState(e, ModelLoad(e.id)) for e in entries},
    )
    return msgspec.structs.replace(base, **more)


def ids(profiles: Profiles, *nodes: NodeSnapshot) -> list[str]:
    return [m.id for m in listing(profiles, FleetSnapshot(nodes), 0)]


@pytest.mark.parametrize(
    ("wanted", "possible"),
    [
        ({}, True),
        ({"pinned_on": ("one",)}, True),
        ({"pinned_on": ("two",)}, False),
        ({"min_devices": 2}, True),
        ({"min_devices": 3}, False),
        ({"min_devices": 2, "min_device_vram_mb": 24_000}, True),
        ({"min_devices": 1, "min_device_vram_mb": 24_001}, False),
        ({"harness": "vllm"}, False),
    ],
)
def test_a_model_is_feasible_where_devices_engine_and_pins_allow(
    wanted: dict[str, Any], possible: bool
) -> None:
    profile = Profile(**{"id": "m", "harness": "llamacpp", **wanted})
    assert feasible(profile, node("one", gpus=2)) is possible


def test_a_host_without_listed_devices_counts_as_one() -> None:
    host = node("one", gpus=0)
    assert feasible(Profile("m", "llamacpp"), host)
    assert not feasible(Profile("m", "llamacpp", min_devices=2), host)
    assert not feasible(Profile("m", "llamacpp", min_device_vram_mb=1), host)
    assert not feasible(Profile("m", "llamacpp"), node("one", discovery=None))


def test_cold_models_are_listed_where_they_could_run_and_only_then() -> None:
    profiles = Profiles((Profile("a", "llamacpp"), Profile("b", "vllm")), {"small": "a", "x": "b"})
    assert ids(profiles, node("one")) == ["a", "small"]
    assert ids(profiles, node("one", strikes=3)) == []
    assert ids(profiles) == []


def test_loaded_models_need_no_catalogue_and_are_merged_over_their_nodes() -> None:
    one = entry("m", capabilities=["text", "tools"], limit=Limit(100, 80, 20), vram_used_mb=5)
    two = entry("m", "loading", capabilities=["vision"], limit=Limit(90, 85, 5), tool_call=True)
    fleet = FleetSnapshot((node("one", one), node("two", two), node("three", entry("m", "failed"))))
    (listed,) = listing(Profiles(), fleet, 7)
    assert (listed.id, listed.loaded, listed.created) == ("m", True, 7)
    assert listed.capabilities == ("text", "tools", "vision")
    assert listed.limit == Limit(90, 80, 5)
    assert listed.tool_call
    assert not listed.reasoning
    assert [(p.node, p.status, p.vram_estimate_mb) for p in listed.locations] == [
        ("one", "loaded", 5),
        ("two", "loading", None),
    ]


def test_what_waits_at_boot_is_listed_as_pending() -> None:
    activation = Activation("pre_warming", ["later"], "now")
    fleet = FleetSnapshot((node("one", activation=activation),))
    assert [(m.id, m.locations[0].status) for m in listing(Profiles(), fleet, 0)] == [
        ("now", "pending"),
        ("later", "pending"),
    ]


def test_an_alias_mirrors_its_target_and_prices_come_from_the_catalogue() -> None:
    profile = Profile(
        "a", "llamacpp", vram_mb=9, cost=Cost(0, 1.5), capabilities=("text", "tools", "reasoning")
    )
    fleet = FleetSnapshot((node("one"), node("two", strikes=1)))
    model, alias = listing(Profiles((profile,), {"small": "a"}), fleet, 0)
    assert msgspec.structs.replace(alias, id="a") == model
    assert model.cost == {"input": 0, "output": 1.5}
    assert model.feasible_on == ("one", "two")
    assert (model.tool_call, model.reasoning, model.loaded) == (True, True, False)


def test_the_built_in_model_is_loadable_and_not_listed_while_it_sleeps() -> None:
    assert ids(Profiles(), node("one")) == []
    spark = profile_of(Profiles(), "helexa/spark")
    assert spark is not None
    assert feasible(spark, node("one", gpus=0))
    assert profile_of(Profiles(), "helexa/other") is None
    assert resolve(Profiles((), {"tiny": "helexa/spark"}), "tiny") == "helexa/spark"


def test_health_tells_dead_nodes_from_models_that_cannot_serve() -> None:
    good = node("one", entry("m"))
    broken = node(
        "two",
        entry("n", servable=Servable(ok=False, reason="insufficient_vram", detail="needs 2 GB")),
        entry("r", "recovering"),
        activation=Activation("ready", failed=[FailedActivation("boot", "no network")]),
    )
    assert health(FleetSnapshot((good,)))["status"] == "ok"
    assert health(FleetSnapshot(()))["status"] == "degraded"
    body = health(FleetSnapshot((good, broken)))
    assert body["status"] == "impaired"
    assert body["nodes"] == {"healthy": 2, "total": 2}
    assert body["unservable"] == [
        {"node": "two", "model": "n", "reason": "insufficient_vram", "detail": "needs 2 GB"},
        {"node": "two", "model": "r", "reason": "recovering", "detail": None},
        {"node": "two", "model": "boot", "reason": "activation_failed", "detail": "no network"},
    ]
    dead = health(FleetSnapshot((good, node("three", strikes=3))))
    assert dead["status"] == "degraded"
    assert dead["nodes"] == {"healthy": 1, "total": 2}
