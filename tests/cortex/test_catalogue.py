"""What is listed is what can be served."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from helexa.core.fleet import (
    Activation,
    Device,
    Discovery,
    Limit,
    ModelEntry,
    ModelLoad,
)
from helexa.core.outlook import Candidate, Outlook
from helexa.cortex.catalogue import feasible, listed_as, listing, profile_of, resolve
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


def test_one_model_is_shown_as_in_the_list_of_all() -> None:
    known = Profiles((Profile("a", "llamacpp"), Profile("far", pinned_on=("x",))), {"s": "a"})
    fleet = FleetSnapshot((node("one", entry("a")), node("two", entry("by-hand"))))
    listed = list(listing(known, fleet, 7))
    assert [m.id for m in listed] == ["a", "by-hand", "s"]
    assert [listed_as(m.id, known, fleet, 7) for m in listed] == listed
    tiny = Profiles((), {"tiny": "helexa/spark"})
    for name, catalogue in (("far", known), ("none", known), ("tiny", tiny)):
        assert listed_as(name, catalogue, fleet, 7) is None


def test_the_built_in_model_is_loadable_and_not_listed_while_it_sleeps() -> None:
    assert ids(Profiles(), node("one")) == []
    spark = profile_of(Profiles(), "helexa/spark")
    assert spark is not None
    assert feasible(spark, node("one", gpus=0))
    assert profile_of(Profiles(), "helexa/other") is None
    assert resolve(Profiles((), {"tiny": "helexa/spark"}), "tiny") == "helexa/spark"


RUNS = Outlook(
    "m", True, True, engine="llamacpp", capabilities=["text", "tools", "vision"], tool_call=True,
    limit=Limit(4000, 3000, 1000),
)  # fmt: skip
NO_ENGINE = Outlook(
    "m", False, reason="unsupported_format", detail="no engine",
    candidates=[Candidate("llamacpp", False)],
)  # fmt: skip


def test_a_model_without_an_engine_of_its_own_is_feasible_wherever_one_suits() -> None:
    assert feasible(Profile("m"), node("one"))
    assert feasible(Profile("m"), node("one", outlooks={"m": RUNS}))
    assert not feasible(Profile("m"), node("one", outlooks={"m": NO_ENGINE}))


@pytest.mark.parametrize(
    ("outlook", "possible"),
    [
        (RUNS, True),
        (NO_ENGINE, False),
        (Outlook("m", False, reason="model_not_found"), False),
        (Outlook("m", False, reason="insufficient_vram", engine="llamacpp"), False),
        (Outlook("m", False, True, reason="insufficient_vram", engine="llamacpp"), True),
        (Outlook("m", False, True, reason="disk_full", engine="llamacpp"), True),
        (Outlook("m", False, reason="service_unavailable"), True),
    ],
    ids=lambda value: value.reason or "runs" if isinstance(value, Outlook) else "",
)
def test_a_node_is_taken_at_its_word_about_what_would_never_run_there(
    outlook: Outlook, possible: bool
) -> None:
    host = node("one", outlooks={"m": outlook})
    assert feasible(Profile("m", "llamacpp"), host) is possible
    assert (ids(Profiles((Profile("m", "llamacpp"),)), host) == ["m"]) is possible


def test_a_cold_model_is_listed_with_what_its_files_say() -> None:
    smaller = msgspec.structs.replace(RUNS, limit=Limit(2000, 1500, 500), reasoning=True)
    fleet = FleetSnapshot((
        node("one", outlooks={"m": RUNS}), node("two", outlooks={"m": smaller}), node("three"),
        node("four", outlooks={"m": NO_ENGINE}),
    ))  # fmt: skip
    profile = Profile("m", "llamacpp", capabilities=("embeddings",))
    (listed,) = listing(Profiles((profile,)), fleet, 0)
    assert listed.capabilities == ("text", "tools", "vision")
    assert listed.limit == Limit(2000, 1500, 500)
    assert (listed.tool_call, listed.feasible_on) == (True, ("one", "two", "three"))


def test_of_a_cold_model_that_nobody_has_looked_at_the_operator_is_believed() -> None:
    profile = Profile("m", "llamacpp", capabilities=("embeddings",))
    (listed,) = listing(Profiles((profile,)), FleetSnapshot((node("one"),)), 0)
    assert (listed.capabilities, listed.limit) == (("embeddings",), None)


def test_what_is_loaded_is_listed_as_it_was_loaded() -> None:
    loaded = entry("m", capabilities=["text"], limit=Limit(100, 80, 20))
    host = node("one", loaded, outlooks={"m": RUNS})
    (listed,) = listing(Profiles((Profile("m", "llamacpp"),)), FleetSnapshot((host,)), 0)
    assert (listed.capabilities, listed.limit) == (("text",), Limit(100, 80, 20))
