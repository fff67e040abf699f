"""An engine as the node would start it, without the node."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from helexa.neuron.engines.base import Address
from helexa.neuron.engines.llamacpp.build import inspect_build, unused
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


def named_by_build(benchmark: str, quant: str = "", usual: str = "") -> tuple[str, str]:
    """A report's name, and in words the engine's build, which decides what it measures.

    A build from source for this machine has a section of its own on the page of figures, and so
    has another format than the usual one.
    """
    build, hardware = inspect_build(os.environ), Hardware.of_this_host(os.environ)
    sets = hardware.cpu.instruction_sets
    hardware.stop()
    missed = unused(build.features, sets)
    told = f"the wheel's engine, which leaves {', '.join(missed)} unused" if missed else ""
    own = not missed and any(name.startswith("avx512") for name in sets)
    parts = [benchmark, quant if quant != usual else "", "own build" if own else ""]
    return " ".join(filter(None, parts)), told or "an engine that uses all the CPU has"
