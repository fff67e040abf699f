"""Owns a vLLM as a node does, says so on stdout, and waits to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from helexa import spark
from helexa.neuron.engines.base import Host
from helexa.neuron.engines.supervisor import (
    EngineChange,
    EngineProcess,
    EngineSpec,
    SupervisorSettings,
)
from helexa.neuron.engines.vllm.build import find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.models.inspect import inspect

MODEL = "helexa/spark"


async def main(state: Path) -> None:
    """One line of JSON for every life that is ready: its processes and its socket."""
    engine = Vllm(os.environ, find_build(None, os.environ))
    facts = inspect(spark.safetensors_dir(), MODEL)
    plan = engine.plan(facts, Host((), (), 24_000, 20_000, 2), {"slots": 2, "max_devices": 2})

    def tell(change: EngineChange) -> None:
        if change.state == "ready" and change.address is not None:
            told = {"leader": process.pid, "pids": process.pids(), "uds": change.address.uds}
            print(json.dumps(told), flush=True)

    process = EngineProcess(
        EngineSpec(
            engine.name,
            MODEL,
            lambda: engine.launch(facts, plan, MODEL),
            lambda address: engine.ready(address, MODEL),
        ),
        state,
        settings=SupervisorSettings(start_deadline_s=240, backoff_min_s=0.02),
        on_change=tell,
    )
    await process.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
