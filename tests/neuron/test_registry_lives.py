"""How models live in the table and leave it: unloads with bounds, reloads, recovery, drains."""

from __future__ import annotations

import asyncio

import pytest
from tests.neuron.registry_rig import FakeLoader, registry_over, settle, spec

from helexa.core.errors import (
    ModelRecovering,
    ServiceUnavailable,
)
from helexa.core.fleet import LoadRequest
from helexa.neuron.engines.supervisor import EngineChange
from helexa.neuron.registry import table

pytestmark = pytest.mark.anyio


async def test_unload_ends_what_runs_then_the_engine_then_the_entry() -> None:
    loader = FakeLoader()
    registry, told = registry_over(loader)
    await registry.load(spec())
    await registry.unload("a/b")
    assert loader.log == ["load a/b None", "finish a/b within 3.0", "stop a/b"]
    assert told.statuses[-2:] == [("a/b", "unloading"), ("a/b", "gone")]
    assert registry.listings() == []


async def test_unload_ends_a_load_under_way_and_its_waiters_hear_of_it() -> None:
    loader = FakeLoader()
    loader.close_door("a/b")
    registry, _ = registry_over(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    await registry.unload("a/b")
    with pytest.raises(ServiceUnavailable, match="unloaded while"):
        await waiter
    assert loader.log[-1] == "cancelled a/b"


async def test_a_load_during_an_unload_waits_for_it_and_then_loads() -> None:
    loader = FakeLoader()
    registry, _ = registry_over(loader)
    await registry.load(spec())
    unloading = asyncio.create_task(registry.unload("a/b"))
    await asyncio.sleep(0)
    assert (await registry.load(spec())).status == "loaded"
    await unloading
    assert loader.log[-2:] == ["stop a/b", "load a/b None"]
    assert registry.serving("a/b") is not None


async def test_a_load_with_another_quant_reloads_and_keeps_what_it_does_not_name() -> None:
    loader = FakeLoader()
    registry, told = registry_over(loader)
    await registry.load(LoadRequest("a/b", quant="q8_0", source="disk"))
    await registry.load(spec())
    assert loader.log == ["load a/b q8_0"]
    await registry.load(spec(quant="q4_0"))
    assert loader.log[-1] == "load a/b q4_0"
    assert registry.serving("a/b").spec.source == "disk"
    assert ("a/b", "reloading") in told.statuses
    assert ("a/b", "gone") not in told.statuses


async def test_a_dead_engine_makes_the_model_recovering_until_it_is_ready_again() -> None:
    loader = FakeLoader()
    registry, told = registry_over(loader)
    await registry.load(spec())
    watch = loader.watches["a/b"]
    watch.engine(EngineChange("recovering", 1, "was killed by SIGKILL", retry_in_s=4.0))
    with pytest.raises(ModelRecovering) as refused:
        registry.serving("a/b")
    assert 4 < (refused.value.retry_after_s or 0) <= 5
    listed = registry.listings()[0]
    assert (listed.status, listed.servable.reason) == ("recovering", "model_recovering")
    with pytest.raises(ModelRecovering):
        await registry.load(spec())
    watch.engine(EngineChange("recovering", 2, "its file is gone", retry_in_s=8.0))
    assert registry.listings()[0].servable.detail == "its file is gone"
    watch.engine(EngineChange("ready", 3))
    assert registry.serving("a/b") is not None
    assert told.statuses[-1] == ("a/b", "loaded")


async def test_an_engine_that_dies_before_its_load_is_over_is_recovering() -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, _ = registry_over(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    loader.watches["a/b"].engine(EngineChange("ready", 1))
    loader.watches["a/b"].engine(EngineChange("recovering", 1, "died", retry_in_s=1))
    door.set()
    await waiter
    assert registry.listings()[0].status == "recovering"


async def test_idle_models_are_unloaded_and_used_ones_are_kept() -> None:
    registry, _ = registry_over(FakeLoader())
    await registry.load(spec("m/idle"))
    await registry.load(spec("m/used"))
    registry.serving("m/idle").idle = 100.0
    registry.sweep(0)
    registry.sweep(60)
    await settle()
    assert [entry.id for entry in registry.listings()] == ["m/used"]


async def test_a_load_that_failed_is_told_of_until_it_goes_well_or_nobody_tries_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loader = FakeLoader()
    registry, told = registry_over(loader)
    wrong = ServiceUnavailable("its engine died")
    loader.errors = {"a/again": wrong, "by/hand": wrong, "from/boot": wrong}
    for model in loader.errors:
        with pytest.raises(ServiceUnavailable):
            await registry.load(spec(model))
    registry.sweep(0, ("from/boot",))
    assert {entry.status for entry in registry.listings()} == {"failed"}
    del loader.errors["a/again"]
    await registry.load(spec("a/again"))
    monkeypatch.setattr(table, "FAILED_FOR_S", -1.0)
    registry.sweep(0, ("from/boot",))
    left = {entry.id: entry.status for entry in registry.listings()}
    assert left == {"a/again": "loaded", "from/boot": "failed"}
    assert told.statuses[-1] == ("by/hand", "gone")


async def test_closing_ends_everything_and_refuses_what_comes_after() -> None:
    loader = FakeLoader()
    registry, _ = registry_over(loader)
    await registry.load(spec("m/1"))
    loader.close_door("m/2")
    registry.begin(spec("m/2"))
    await settle()
    await registry.close(0.5)
    assert registry.listings() == []
    assert "stop m/1" in loader.log
    assert "cancelled m/2" in loader.log
    with pytest.raises(ServiceUnavailable):
        registry.begin(spec())
