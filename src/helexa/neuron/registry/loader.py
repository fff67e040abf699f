"""From a load request to a model that serves: files, facts, engine, plan, process, sanity.

::

    find ─▶ fetch ─▶ plan (live free memory) ─▶ process ready ─▶ ServedModel
    engine     files     InsufficientVram           log tail on failure

Each step raises an error of the tree that says why; nothing is left running behind a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import Download, LoadRequest
from helexa.neuron.engines.base import Address, Engine, Plan
from helexa.neuron.engines.supervisor import (
    EngineChange,
    EngineProcess,
    EngineSpec,
    SupervisorSettings,
)
from helexa.neuron.metrics import NeuronMetrics
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.scout import Found, Scout, lesson_key
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.registry.table import LoadWatch
from helexa.neuron.sources.listing import Progress, Report

_LOCATED, _PLANNED = 0.6, 0.7
"""Shares of a load's progress: most of it is fetching files."""


@dataclass(slots=True, frozen=True)
class Running:
    """An engine that answers: what it runs, how, and what it took."""

    spec: LoadRequest
    engine: Engine
    process: EngineProcess
    address: Address
    facts: ModelFacts
    plan: Plan
    memory_mb: int
    prefill_tok_s: float | None
    learned: Callable[[float], object]


@dataclass(slots=True)
class ModelLoader:
    """The effect behind ``Registry.load``.

    Args:
        scout: Finds out what a model is and who runs it.
        used_by: Device memory that processes hold, in MiB per device (blocking).
        assemble: Makes the served model around a running engine.
        state_dir: For engine logs and records.
    """

    scout: Scout
    used_by: Callable[[Sequence[int]], dict[int, int]]
    assemble: Callable[[Running], ServedModel]
    experience: Experience
    supervision: SupervisorSettings
    state_dir: Path
    clock: Callable[[], float]
    metrics: NeuronMetrics

    async def prepare(
        self, spec: LoadRequest, watch: LoadWatch
    ) -> Callable[[], Awaitable[ServedModel]]:
        """Find and fetch the files of ``spec``; what then makes it ready to serve.

        Raises:
            ModelNotFound: No source has it.
            InsufficientVram: It does not fit, with the figures.
            HelexaError: Its file is broken, no engine can run it, it cannot be fetched.
        """
        watch.progress(0.0, None)
        found = await self.scout.find(spec)
        self.scout.engine(found, spec)
        if found.listing.path is None:
            self.scout.plan(found, spec, found.host)  # nobody fetches in vain what does not fit
            found = await self._fetched(found, self._report(found, watch))
        return partial(self.load, spec, found, watch)

    def _report(self, found: Found, watch: LoadWatch) -> Report:
        """Tells ``watch`` how far the files are, and when the model will be ready after them."""
        afterwards = self.scout.lesson(found.listing).load_secs or 0.0

        def report(progress: Progress) -> None:
            eta_s = progress.eta_s
            watch.progress(
                _LOCATED * progress.fraction,
                None if eta_s is None else round(eta_s + afterwards, 1),
                Download(progress.done, progress.total, round(progress.rate), progress.file),
            )

        return report

    async def load(self, spec: LoadRequest, found: Found, watch: LoadWatch) -> ServedModel:
        """Make a model whose files are here ready to serve.

        Raises:
            InsufficientVram: It does not fit, with the figures.
            HelexaError: No engine can run it, its engine failed.
        """
        engine = self.scout.engine(found, spec)
        host = await asyncio.to_thread(self.scout.host)
        plan = self.scout.plan(found, spec, host)
        key = lesson_key(found.listing)
        watch.progress(_PLANNED, self.experience.of(key).load_secs)
        return await self._run(spec, engine, found.facts, plan, watch, key)

    async def _fetched(self, found: Found, report: Report) -> Found:
        """The same model once its files are here."""
        path = await self.scout.sources.fetch(found.listing, report)
        listing = msgspec.structs.replace(found.listing, path=path, bytes_missing=0)
        facts = await asyncio.to_thread(self.scout.known.inspect, path, listing.name)
        return msgspec.structs.replace(found, listing=listing, facts=facts)

    async def _run(
        self,
        spec: LoadRequest,
        engine: Engine,
        facts: ModelFacts,
        plan: Plan,
        watch: LoadWatch,
        key: str,
    ) -> ServedModel:
        model: ServedModel | None = None

        def changed(change: EngineChange) -> None:
            if change.state == "recovering":
                self.metrics.engine_died(spec.model_id)
            if model is not None and change.state == "ready" and change.address is not None:
                model.reconnect(change.address)
            watch.engine(change)

        process = EngineProcess(
            EngineSpec(
                engine.name,
                spec.model_id,
                launch=lambda: engine.launch(facts, plan, spec.model_id),
                probe=lambda address: engine.ready(address, spec.model_id),
            ),
            self.state_dir,
            settings=self.supervision,
            on_change=changed,
        )
        started = self.clock()
        try:
            address = await process.start()
            memory = await self._measured(process, plan)
            took_s = self.clock() - started
            self._learn(key, plan, memory, took_s)
            lesson = self.experience.of(key)
            model = self.assemble(
                Running(
                    spec,
                    engine,
                    process,
                    address,
                    facts,
                    plan,
                    max(0, memory),
                    lesson.prefill_tok_s,
                    lambda rate: self.experience.learn(key, prefill_tok_s=round(rate, 1)),
                )
            )
        except BaseException:
            await _stopped(process)
            raise
        self.metrics.model(spec.model_id).load.observe(took_s)
        return model

    async def _measured(self, process: EngineProcess, plan: Plan) -> int:
        """MiB the engine takes: on its devices, or resident on a host without any."""
        if not plan.devices or process.pid is None:
            return process.resident_mb()
        held = await asyncio.to_thread(self.used_by, process.pids())
        return sum(amount for index, amount in held.items() if index in plan.devices)

    def _learn(self, key: str, plan: Plan, memory_mb: int, load_secs: float) -> None:
        predicted = sum(plan.memory_mb.values()) - plan.cache_ram_mb
        before = self.experience.of(key).correction
        correction = memory_mb / predicted * before if predicted > 0 and memory_mb > 0 else before
        self.experience.learn(
            key,
            correction=round(min(2.0, max(0.5, correction)), 3),
            load_secs=round(load_secs, 3),
        )


async def _stopped(process: EngineProcess) -> None:
    """End a process that is not wanted any more, even if we are being cancelled."""
    stopping = asyncio.ensure_future(process.stop(0.0))
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if stopping.cancelled():
                raise


__all__ = ["HelexaError", "ModelLoader", "Running"]
