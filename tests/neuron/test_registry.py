"""How models come into the table: single-flight loads, one after the other, shared outcomes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.neuron.registry_rig import FakeLoader, FakeModel, registry_over, settle, spec

from helexa.core.errors import (
    InsufficientVram,
    ModelLoading,
    ModelNotFound,
    ServiceUnavailable,
)
from helexa.core.fleet import Download, LoadRequest, Shortage
from helexa.neuron.registry.table import LoadWatch, Registry

pytestmark = pytest.mark.anyio


async def test_a_model_loads_once_however_many_ask_for_it() -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, told = registry_over(loader)
    waiters = [asyncio.create_task(registry.load(spec())) for _ in range(5)]
    await settle()
    with pytest.raises(ModelLoading):
        registry.serving("a/b")
    door.set()
    assert {entry.status for entry in await asyncio.gather(*waiters)} == {"loaded"}
    assert loader.log == ["load a/b None"]
    assert told.statuses == [("a/b", "loading"), ("a/b", "loaded")]
    assert registry.serving("a/b").spec == spec()


async def test_a_waiter_that_leaves_does_not_end_the_load() -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, _ = registry_over(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    waiter.cancel()
    door.set()
    assert (await registry.load(spec())).status == "loaded"
    assert loader.log == ["load a/b None"]


async def test_loads_of_different_models_run_one_after_the_other() -> None:
    loader = FakeLoader()
    registry, _ = registry_over(loader)
    await asyncio.gather(*(registry.load(spec(f"m/{i}")) for i in range(4)))
    assert loader.most_at_once == 1


async def test_every_waiter_gets_the_reason_of_a_failed_load_and_it_is_kept() -> None:
    figures: dict[str, Any] = {"needed_mb": 9, "usable_mb": 4, "free_mb": 5, "device": 0}
    error = InsufficientVram("needs 9 MiB, 5 are free", nearest={}, **figures)
    loader = FakeLoader(errors={"a/b": error})
    registry, told = registry_over(loader)
    results = await asyncio.gather(
        registry.load(spec()), registry.load(spec()), return_exceptions=True
    )
    assert [type(r) for r in results] == [InsufficientVram] * 2
    listed = registry.listings()[0]
    assert (listed.status, listed.servable.reason) == ("failed", "insufficient_vram")
    assert listed.servable.shortage == Shortage(9, 4, 5)
    assert listed.servable.detail == "needs 9 MiB, 5 are free"
    with pytest.raises(ServiceUnavailable, match="needs 9 MiB"):
        registry.serving("a/b")
    del loader.errors["a/b"]
    assert (await registry.load(spec())).status == "loaded"
    assert told.statuses[-1] == ("a/b", "loaded")


async def test_a_bug_in_a_load_fails_the_load_and_nothing_else() -> None:
    loader = FakeLoader(errors={"a/b": ZeroDivisionError("oops")})
    registry, _ = registry_over(loader)
    with pytest.raises(Exception, match="oops"):
        await registry.load(spec())
    assert registry.listings()[0].status == "failed"


async def test_an_unknown_model_is_not_found_and_leaves_no_trace() -> None:
    registry, told = registry_over(FakeLoader(errors={"a/b": ModelNotFound("no such model")}))
    with pytest.raises(ModelNotFound):
        await registry.load(spec())
    assert told.failures == [("a/b", "no such model")]
    assert registry.listings() == []
    with pytest.raises(ModelNotFound):
        registry.serving("a/b")
    with pytest.raises(ModelNotFound):
        await registry.unload("a/b")


async def test_progress_of_a_load_is_listed_and_told() -> None:
    loader = FakeLoader()
    loader.close_door("a/b")
    registry, told = registry_over(loader)
    entry = registry.begin(spec())
    await settle()
    loader.watches["a/b"].progress(0.5, 12.0, Download(50, 100, 10.0, "m.gguf"))
    assert told.statuses[-1] == ("a/b", "50%")
    assert (entry.listing().progress, entry.listing().eta_s) == (0.5, 12.0)
    with pytest.raises(ModelLoading) as refused:
        registry.serving("a/b")
    assert refused.value.retry_after_s == 12.0
    assert refused.value.extras["download"] == {
        "bytes": 50, "bytes_total": 100, "bytes_per_s": 10.0, "file": "m.gguf",
    }  # fmt: skip
    await registry.unload("a/b")


async def test_a_model_whose_files_are_fetched_keeps_no_other_from_loading() -> None:
    loader = FakeLoader()
    loader.fetches["m/far"] = asyncio.Event()
    registry, _ = registry_over(loader)
    far = registry.begin(spec("m/far"))
    await settle()
    await registry.load(spec("m/near"))
    assert far.status == "loading"
    loader.fetches["m/far"].set()
    await far.outcome
    assert loader.most_at_once == 1


async def test_a_fetch_that_nobody_wants_any_more_is_cancelled() -> None:
    loader = FakeLoader()
    loader.fetches["m/far"] = asyncio.Event()
    registry, _ = registry_over(loader)
    registry.begin(spec("m/far"))
    await settle()
    await registry.unload("m/far")
    assert registry.listings() == []


async def test_a_failed_load_keeps_nothing_of_how_it_failed() -> None:
    held: weakref.WeakSet[FakeModel] = weakref.WeakSet()

    class Reader:
        async def prepare(
            self, spec: LoadRequest, watch: LoadWatch
        ) -> Callable[[], Awaitable[FakeModel]]:
            window = FakeModel(spec, [])  # as the megabyte over a model's header
            held.add(window)
            try:
                raise ValueError("too short")
            except ValueError as error:
                raise ServiceUnavailable("It is damaged.") from error

    registry: Registry[FakeModel] = Registry(
        Reader(),
        on_model=lambda entry: None,
        on_gone=lambda model_id: None,
        on_progress=lambda model_id, fraction, eta_s, download: None,
        unload_s=1.0,
        clock=asyncio.get_running_loop().time,
    )
    gc.collect()
    gc.disable()  # nothing may wait for the collector
    try:
        entry = registry.begin(LoadRequest("m"))
        await asyncio.wait([entry.outcome])
        await asyncio.sleep(0)
        assert entry.status == "failed"
        assert not held
    finally:
        gc.enable()


async def test_a_load_behind_another_one_says_so_and_goes_on_when_that_is_cancelled() -> None:
    loader = FakeLoader()
    registry, _ = registry_over(loader)
    loader.close_door("hangs")
    hanging = asyncio.create_task(registry.load(spec("hangs")))
    await settle()
    waiting = asyncio.create_task(registry.load(spec("waits")))
    await settle()
    with pytest.raises(ModelLoading, match="the load of 'hangs' here comes first, for 0 s so far"):
        registry.serving("waits")
    with pytest.raises(ModelLoading) as first:
        registry.serving("hangs")
    assert "comes first" not in first.value.message
    listed = {entry.id: entry.servable.detail for entry in registry.listings()}
    assert listed["waits"] == "the load of another model on this node has to end first"
    assert listed["hangs"] is None
    await registry.unload("hangs")
    with pytest.raises(ServiceUnavailable, match="unloaded while it was loading"):
        await hanging
    assert (await waiting).status == "loaded"
    assert registry.get("waits").listing().servable.ok
