"""How the engine's threads share a small host: decode speed, alone and beside busy neighbours.

llama.cpp's threads meet at a barrier after every operation. A thread that waits spins, and on a
host with other work it spins while the thread it waits for has no core. This prints tokens/s of
one stream for each way of waiting, alone and with one busy process per core, and each as a ratio
to the library's own default in the same run::

    python benchmarks/engine_threads.py --model /tmp/random-0.6b.gguf --tokens 32

Without ``--model`` it takes the built-in one. ``scripts/tiny_models.py`` makes larger ones.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from kit.process import end_cleanly
from msgspec.structs import replace

from helexa import spark
from helexa.neuron.engines.base import Address, Host, Launch, Plan
from helexa.neuron.engines.http import ask
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.llamacpp.planning import SPIN, threads_for
from helexa.neuron.engines.supervisor import EngineProcess, EngineSpec
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect

Row = tuple[str, int, int | None]
Speeds = tuple[float, float]
DEFAULT_SPIN = None
BURN = "while True: pass"


def settings(facts: ModelFacts, cores: int) -> list[Row]:
    """Name, threads and spin count (None leaves it to OpenMP) of each row."""
    chosen = threads_for(facts, cores)
    spins = [0, 300, 1_000, 3_000]
    rows: list[Row] = [("library default", cores, DEFAULT_SPIN)]
    rows += [(f"{cores} threads, spin {spin}", cores, spin) for spin in spins]
    rows += [("1 thread", 1, 0), (f"as planned ({chosen}, spin {SPIN})", chosen, SPIN)]
    return rows


def launch_with(engine: LlamaCpp, facts: ModelFacts, plan: Plan, spin: int | None) -> Launch:
    """The engine's launch with another way of waiting."""
    made = engine.launch(facts, plan, facts.model_id)
    env = {k: v for k, v in made.env.items() if k != "GOMP_SPINCOUNT"}
    return replace(made, env=env if spin is None else {**env, "GOMP_SPINCOUNT": str(spin)})


@asynccontextmanager
async def engine_with(
    facts: ModelFacts, threads: int, spin: int | None, state: Path
) -> AsyncIterator[Address]:
    """An engine process with a thread count and a way of waiting."""
    engine = LlamaCpp(os.environ)
    host = Host((), (), 1 << 20, 1 << 20, threads)
    plan = engine.plan(facts, host, {"slots": 1, "ctx": 2048, "threads": threads})
    spec = EngineSpec(
        engine.name,
        facts.model_id,
        lambda: launch_with(engine, facts, plan, spin),
        lambda address: engine.ready(address, facts.model_id),
    )
    process = EngineProcess(spec, state)
    try:
        yield await process.start()
    finally:
        await process.stop()


async def decode_speed(address: Address, tokens: int) -> float:
    """Tokens per second of one stream, from the wall clock."""
    body = {"prompt": "Hello", "n_predict": tokens, "ignore_eos": True, "cache_prompt": False}
    await ask(address, "POST", "/completion", {**body, "n_predict": 2}, timeout_s=120)
    began = time.perf_counter()
    answer = await ask(address, "POST", "/completion", body, timeout_s=600)
    taken = time.perf_counter() - began
    return float(json.loads(answer.body)["tokens_predicted"]) / taken


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Processes that compute without pause."""
    burning = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


async def one_round(facts: ModelFacts, rows: list[Row], tokens: int, cores: int) -> list[Speeds]:
    """Every row once: tokens per second alone and beside one busy process per core."""
    found = []
    for _, threads, spin in rows:
        with tempfile.TemporaryDirectory() as state:
            async with engine_with(facts, threads, spin, Path(state)) as address:
                alone = await decode_speed(address, tokens)
                with neighbours(cores):
                    found.append((alone, await decode_speed(address, max(8, tokens // 4))))
    return found


async def measure(facts: ModelFacts, tokens: int, cores: int, rounds: int) -> None:
    rows = settings(facts, cores)
    each = [await one_round(facts, rows, tokens, cores) for _ in range(rounds)]
    print(f"{facts.model_id}, {cores} cores, {tokens} tokens, one stream, median of {rounds}")
    print(f"{'':28}{'alone':>12}{'ratio':>8}{'beside ' + str(cores):>12}{'ratio':>8}")
    first: Speeds | None = None
    for (name, _, _), *speeds in zip(rows, *each, strict=True):
        alone, beside = (statistics.median(kind) for kind in zip(*speeds, strict=True))
        first = first or (alone, beside)
        print(
            f"{name:28}{alone:>8.0f} t/s{alone / first[0]:>8.2f}"
            f"{beside:>8.0f} t/s{beside / first[1]:>8.2f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=spark.gguf_path())
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    end_cleanly()
    cores = len(os.sched_getaffinity(0))
    asyncio.run(measure(inspect(args.model, args.model.stem), args.tokens, cores, args.rounds))


if __name__ == "__main__":
    main()
