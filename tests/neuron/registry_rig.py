"""A registry over a scripted loader, and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from helexa.core.errors import (
    HelexaError,
)
from helexa.core.fleet import Download, LoadRequest, ModelEntry, ModelLoad, ModelStatus
from helexa.neuron.registry.table import LoadWatch, Registry


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


def registry_over(loader: FakeLoader) -> tuple[Registry[FakeModel], Told]:
    """A registry, and what it will have told."""
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


def spec(model_id: str = "a/b", quant: str | None = None) -> LoadRequest:
    return LoadRequest(model_id, quant=quant)


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)
