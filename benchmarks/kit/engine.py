"""An engine as the node would start it, without the node."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from helexa.neuron.engines.base import Address
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import EngineProcess, EngineSpec
from helexa.neuron.hardware import Hardware
from helexa.neuron.models.inspect import inspect


@asynccontextmanager
async def bare_engine(
    path: Path, model: str, state: Path, wanted: Mapping[str, object]
) -> AsyncIterator[tuple[Address, int]]:
    """A running engine: where it listens, and its process.

    Args:
        path: A GGUF file.
        model: What it calls itself.
        state: A folder for its files.
        wanted: As for ``LlamaCpp.plan``.
    """
    engine, hardware = LlamaCpp(os.environ), Hardware.of_this_host(os.environ)
    facts = inspect(path, model)
    plan = engine.plan(facts, hardware.host(), wanted)
    hardware.stop()
    spec = EngineSpec(
        engine.name,
        model,
        lambda: engine.launch(facts, plan, model),
        lambda address: engine.ready(address, model),
    )
    process = EngineProcess(spec, state)
    try:
        address = await process.start()
        assert process.pid is not None
        yield address, process.pid
    finally:
        await process.stop()
