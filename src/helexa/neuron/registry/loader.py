"""From a load request to a model that serves: files, facts, engine, plan, process, sanity.

::

    locate ─▶ inspect ─▶ choose engine ─▶ plan (live free memory) ─▶ process ready ─▶ ServedModel
    files      header                        InsufficientVram           log tail on failure

Each step raises an error of the tree that says why; nothing is left running behind a failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from helexa.core.errors import HelexaError, InvalidRequestBody, ServiceUnavailable
from helexa.core.fleet import LoadRequest
from helexa.neuron.engines.base import Address, Engine, Host, Plan
from helexa.neuron.engines.supervisor import (
    EngineChange,
    EngineProcess,
    EngineSpec,
    SupervisorSettings,
)
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.registry.experience import Experience
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.registry.table import LoadWatch
from helexa.neuron.sources.listing import Progress
from helexa.neuron.sources.sources import Sources

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


class Wishes(Protocol):
    """The operator's settings for an engine and a model."""

    def __call__(self, engine: str, spec: LoadRequest) -> dict[str, object]: ...


@dataclass(slots=True)
class ModelLoader:
    """The effect behind ``Registry.load``.

    Args:
        engines: By name, in order of preference.
        host: A fresh snapshot of the host (blocking).
        used_by: Device memory that processes hold, in MiB per device (blocking).
        inspect: Reads a model's header (blocking).
        wishes: What the operator wants of an engine.
        assemble: Makes the served model around a running engine.
        state_dir: For engine logs and records.
    """

    engines: Mapping[str, Engine]
    sources: Sources
    host: Callable[[], Host]
    used_by: Callable[[Sequence[int]], dict[int, int]]
    inspect: Callable[[Path, str], ModelFacts]
    wishes: Wishes
    assemble: Callable[[Running], ServedModel]
    experience: Experience
    supervision: SupervisorSettings
    state_dir: Path
    clock: Callable[[], float]

    async def load(self, spec: LoadRequest, watch: LoadWatch) -> ServedModel:
        """Make ``spec`` ready to serve.

        Raises:
            ModelNotFound: No source has it.
            InsufficientVram: It does not fit, with the figures.
            HelexaError: Its file is broken, no engine can run it, its engine failed.
        """
        watch.progress(0.0, None)

        def fetched(progress: Progress) -> None:
            watch.progress(_LOCATED * progress.fraction, progress.eta_s)

        listing = await self.sources.describe(spec.model_id, source=spec.source, quant=spec.quant)
        path = await self.sources.fetch(listing, fetched)
        facts = await asyncio.to_thread(self.inspect, path, spec.model_id)
        host = await asyncio.to_thread(self.host)
        engine = choose(self.engines, spec.harness, facts, host)
        lesson = self.experience.of(_key(spec, path))
        known = {"prefill_tok_s": lesson.prefill_tok_s, "correction": lesson.correction}
        plan = engine.plan(facts, host, self.wishes(engine.name, spec) | known)
        watch.progress(_PLANNED, lesson.load_secs)
        return await self._run(spec, engine, facts, plan, watch, path)

    async def _run(
        self,
        spec: LoadRequest,
        engine: Engine,
        facts: ModelFacts,
        plan: Plan,
        watch: LoadWatch,
        path: Path,
    ) -> ServedModel:
        model: ServedModel | None = None

        def changed(change: EngineChange) -> None:
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
        except BaseException:
            await _stopped(process)
            raise
        memory = await self._measured(process, plan)
        self._learn(spec, path, plan, memory, self.clock() - started)
        lesson = self.experience.of(_key(spec, path))
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
                lambda rate: self.experience.learn(_key(spec, path), prefill_tok_s=round(rate, 1)),
            )
        )
        return model

    async def _measured(self, process: EngineProcess, plan: Plan) -> int:
        """MiB the engine takes: on its devices, or resident on a host without any."""
        if not plan.devices or process.pid is None:
            return process.resident_mb()
        held = await asyncio.to_thread(self.used_by, [process.pid])
        return sum(amount for index, amount in held.items() if index in plan.devices)

    def _learn(
        self, spec: LoadRequest, path: Path, plan: Plan, memory_mb: int, load_secs: float
    ) -> None:
        predicted = sum(plan.memory_mb.values()) - plan.cache_ram_mb
        before = self.experience.of(_key(spec, path)).correction
        correction = memory_mb / predicted * before if predicted > 0 and memory_mb > 0 else before
        self.experience.learn(
            _key(spec, path),
            correction=round(min(2.0, max(0.5, correction)), 3),
            load_secs=round(load_secs, 3),
        )


def _key(spec: LoadRequest, path: Path) -> str:
    """One model file under one id; another file is another lesson."""
    return f"{spec.model_id}|{path.name}"


async def _stopped(process: EngineProcess) -> None:
    """End a process that is not wanted any more, even if we are being cancelled."""
    stopping = asyncio.ensure_future(process.stop(0.0))
    while not stopping.done():
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            if stopping.cancelled():
                raise


def choose(
    engines: Mapping[str, Engine], harness: str | None, facts: ModelFacts, host: Host
) -> Engine:
    """The engine for a model: the one that was asked for, or the first that can run it; pure.

    Raises:
        InvalidRequestBody: There is no engine of that name.
        ServiceUnavailable: None can run it here; ``reason`` is the first one's code.
    """
    if harness is not None and harness not in engines:
        raise InvalidRequestBody(
            f"There is no engine '{harness}' on this node; it has {', '.join(engines)}.",
            param="harness",
        )
    refusals: list[tuple[str, str]] = []
    for name in [harness] if harness is not None else engines:
        verdict = engines[name].can_run(facts, host)
        if verdict.ok:
            return engines[name]
        refusals.append((name, verdict.detail or verdict.reason or "cannot run it"))
    said = "; ".join(f"{name}: {why}" for name, why in refusals)
    raise ServiceUnavailable(f"No engine of this node can run {facts.model_id}: {said}")


__all__ = ["HelexaError", "ModelLoader", "Running", "choose"]
