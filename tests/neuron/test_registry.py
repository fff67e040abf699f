"""The table of models: single-flight loads, shared outcomes, bounded unloads, recovery."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from helexa.core.errors import (
    HelexaError,
    InsufficientVram,
    ModelLoading,
    ModelNotFound,
    ModelRecovering,
    ServiceUnavailable,
)
from helexa.core.fleet import Download, LoadRequest, ModelEntry, ModelLoad, ModelStatus, Shortage
from helexa.neuron.engines.supervisor import EngineChange
from helexa.neuron.registry.table import LoadWatch, Registry

pytestmark = pytest.mark.anyio


@dataclass(slots=True, weakref_slot=True, eq=False)
class FakeModel:
    """A resident that ends when told to."""

    spec: LoadRequest
    log: list[str]
    idle: float = 0.0

    def listing(self, status: ModelStatus) -> ModelEntry:
        return ModelEntry(self.spec.model_id, status, harness="fake")

    def figures(self) -> ModelLoad:
        return ModelLoad(self.spec.model_id)

    def idle_secs(self, now: float) -> float:
        return self.idle

    async def finish(self, within_s: float) -> None:
        self.log.append(f"finish {self.spec.model_id} within {within_s}")

    async def stop(self) -> None:
        self.log.append(f"stop {self.spec.model_id}")


@dataclass(slots=True)
class FakeLoader:
    """Loads whose end the test decides."""

    log: list[str] = field(default_factory=list)
    doors: dict[str, asyncio.Event] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    watches: dict[str, LoadWatch] = field(default_factory=dict)
    fetches: dict[str, asyncio.Event] = field(default_factory=dict)
    at_once: int = 0
    most_at_once: int = 0

    def close_door(self, model_id: str) -> asyncio.Event:
        return self.doors.setdefault(model_id, asyncio.Event())

    async def prepare(
        self, spec: LoadRequest, watch: LoadWatch
    ) -> Callable[[], Awaitable[FakeModel]]:
        if spec.model_id in self.fetches:
            await self.fetches[spec.model_id].wait()
        return partial(self.load, spec, watch)

    async def load(self, spec: LoadRequest, watch: LoadWatch) -> FakeModel:
        self.log.append(f"load {spec.model_id} {spec.quant}")
        self.watches[spec.model_id] = watch
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if spec.model_id in self.doors:
                await self.doors[spec.model_id].wait()
            if spec.model_id in self.errors:
                raise self.errors[spec.model_id]
        except asyncio.CancelledError:
            self.log.append(f"cancelled {spec.model_id}")
            raise
        finally:
            self.at_once -= 1
        return FakeModel(spec, self.log)


@dataclass(slots=True)
class Told:
    statuses: list[tuple[str, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def failed(self, model_id: str, error: HelexaError) -> None:
        self.failures.append((model_id, error.message))

    def model(self, entry: ModelEntry) -> None:
        self.statuses.append((entry.id, entry.status))

    def gone(self, model_id: str) -> None:
        self.statuses.append((model_id, "gone"))

    def progress(
        self, model_id: str, fraction: float, eta_s: float | None, download: Download | None
    ) -> None:
        self.statuses.append((model_id, f"{fraction:.0%}"))


Make = Callable[[FakeLoader], tuple[Registry[FakeModel], Told]]


@pytest.fixture
def make() -> Make:
    def build(loader: FakeLoader) -> tuple[Registry[FakeModel], Told]:
        told = Told()
        registry = Registry(
            loader,
            on_model=told.model,
            on_gone=told.gone,
            on_progress=told.progress,
            on_failed=told.failed,
            unload_s=3.0,
            clock=asyncio.get_running_loop().time,
        )
        return registry, told

    return build


def spec(model_id: str = "a/b", quant: str | None = None) -> LoadRequest:
    return LoadRequest(model_id, quant=quant)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_a_model_loads_once_however_many_ask_for_it(make: Make) -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, told = make(loader)
    waiters = [asyncio.create_task(registry.load(spec())) for _ in range(5)]
    await settle()
    with pytest.raises(ModelLoading):
        registry.serving("a/b")
    door.set()
    assert {entry.status for entry in await asyncio.gather(*waiters)} == {"loaded"}
    assert loader.log == ["load a/b None"]
    assert told.statuses == [("a/b", "loading"), ("a/b", "loaded")]
    assert registry.serving("a/b").spec == spec()


async def test_a_waiter_that_leaves_does_not_end_the_load(make: Make) -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, _ = make(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    waiter.cancel()
    door.set()
    assert (await registry.load(spec())).status == "loaded"
    assert loader.log == ["load a/b None"]


async def test_loads_of_different_models_run_one_after_the_other(make: Make) -> None:
    loader = FakeLoader()
    registry, _ = make(loader)
    await asyncio.gather(*(registry.load(spec(f"m/{i}")) for i in range(4)))
    assert loader.most_at_once == 1


async def test_every_waiter_gets_the_reason_of_a_failed_load_and_it_is_kept(make: Make) -> None:
    figures: dict[str, Any] = {"needed_mb": 9, "usable_mb": 4, "free_mb": 5, "device": 0}
    error = InsufficientVram("needs 9 MiB, 5 are free", nearest={}, **figures)
    loader = FakeLoader(errors={"a/b": error})
    registry, told = make(loader)
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


async def test_a_bug_in_a_load_fails_the_load_and_nothing_else(make: Make) -> None:
    loader = FakeLoader(errors={"a/b": ZeroDivisionError("oops")})
    registry, _ = make(loader)
    with pytest.raises(Exception, match="oops"):
        await registry.load(spec())
    assert registry.listings()[0].status == "failed"


async def test_an_unknown_model_is_not_found_and_leaves_no_trace(make: Make) -> None:
    registry, told = make(FakeLoader(errors={"a/b": ModelNotFound("no such model")}))
    with pytest.raises(ModelNotFound):
        await registry.load(spec())
    assert told.failures == [("a/b", "no such model")]
    assert registry.listings() == []
    with pytest.raises(ModelNotFound):
        registry.serving("a/b")
    with pytest.raises(ModelNotFound):
        await registry.unload("a/b")


async def test_unload_ends_what_runs_then_the_engine_then_the_entry(make: Make) -> None:
    loader = FakeLoader()
    registry, told = make(loader)
    await registry.load(spec())
    await registry.unload("a/b")
    assert loader.log == ["load a/b None", "finish a/b within 3.0", "stop a/b"]
    assert told.statuses[-2:] == [("a/b", "unloading"), ("a/b", "gone")]
    assert registry.listings() == []


async def test_unload_ends_a_load_under_way_and_its_waiters_hear_of_it(make: Make) -> None:
    loader = FakeLoader()
    loader.close_door("a/b")
    registry, _ = make(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    await registry.unload("a/b")
    with pytest.raises(ServiceUnavailable, match="unloaded while"):
        await waiter
    assert loader.log[-1] == "cancelled a/b"


async def test_a_load_during_an_unload_waits_for_it_and_then_loads(make: Make) -> None:
    loader = FakeLoader()
    registry, _ = make(loader)
    await registry.load(spec())
    unloading = asyncio.create_task(registry.unload("a/b"))
    await asyncio.sleep(0)
    assert (await registry.load(spec())).status == "loaded"
    await unloading
    assert loader.log[-2:] == ["stop a/b", "load a/b None"]
    assert registry.serving("a/b") is not None


async def test_a_load_with_another_quant_reloads_and_keeps_what_it_does_not_name(
    make: Make,
) -> None:
    loader = FakeLoader()
    registry, told = make(loader)
    await registry.load(LoadRequest("a/b", quant="q8_0", source="disk"))
    await registry.load(spec())
    assert loader.log == ["load a/b q8_0"]
    await registry.load(spec(quant="q4_0"))
    assert loader.log[-1] == "load a/b q4_0"
    assert registry.serving("a/b").spec.source == "disk"
    assert ("a/b", "reloading") in told.statuses
    assert ("a/b", "gone") not in told.statuses


async def test_a_dead_engine_makes_the_model_recovering_until_it_is_ready_again(
    make: Make,
) -> None:
    loader = FakeLoader()
    registry, told = make(loader)
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


async def test_an_engine_that_dies_before_its_load_is_over_is_recovering(make: Make) -> None:
    loader = FakeLoader()
    door = loader.close_door("a/b")
    registry, _ = make(loader)
    waiter = asyncio.create_task(registry.load(spec()))
    await settle()
    loader.watches["a/b"].engine(EngineChange("ready", 1))
    loader.watches["a/b"].engine(EngineChange("recovering", 1, "died", retry_in_s=1))
    door.set()
    await waiter
    assert registry.listings()[0].status == "recovering"


async def test_progress_of_a_load_is_listed_and_told(make: Make) -> None:
    loader = FakeLoader()
    loader.close_door("a/b")
    registry, told = make(loader)
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


async def test_a_model_whose_files_are_fetched_keeps_no_other_from_loading(make: Make) -> None:
    loader = FakeLoader()
    loader.fetches["m/far"] = asyncio.Event()
    registry, _ = make(loader)
    far = registry.begin(spec("m/far"))
    await settle()
    await registry.load(spec("m/near"))
    assert far.status == "loading"
    loader.fetches["m/far"].set()
    await far.outcome
    assert loader.most_at_once == 1


async def test_a_fetch_that_nobody_wants_any_more_is_cancelled(make: Make) -> None:
    loader = FakeLoader()
    loader.fetches["m/far"] = asyncio.Event()
    registry, _ = make(loader)
    registry.begin(spec("m/far"))
    await settle()
    await registry.unload("m/far")
    assert registry.listings() == []


async def test_idle_models_are_unloaded_and_used_ones_are_kept(make: Make) -> None:
    registry, _ = make(FakeLoader())
    await registry.load(spec("m/idle"))
    await registry.load(spec("m/used"))
    registry.serving("m/idle").idle = 100.0
    registry.sweep(0)
    registry.sweep(60)
    await settle()
    assert [entry.id for entry in registry.listings()] == ["m/used"]


async def test_closing_ends_everything_and_refuses_what_comes_after(make: Make) -> None:
    loader = FakeLoader()
    registry, _ = make(loader)
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
