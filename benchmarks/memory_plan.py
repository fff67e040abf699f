"""Predicted memory against what an engine process really has, over context × slots × KV type.

Real engine processes on the CPU, started as a node starts them: with its plan, its prefill chunk
and the cells that it never grants; the built-in model and one of random weights in the shape of
Qwen3-0.6B. Resident memory is read when what is reserved has been touched: the small model has
filled every slot, the large one has answered one prompt of a whole prefill chunk (what that leaves
untouched, the attention mask of the rest of the pool, is a hundredth of it).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
from kit import report
from kit.process import Failed

from helexa.neuron.engines.base import Plan
from helexa.neuron.engines.llamacpp.config import ServerConfig
from helexa.neuron.engines.llamacpp.engine import server_config
from helexa.neuron.engines.llamacpp.planning import make_plan
from helexa.neuron.hardware import Hardware
from helexa.neuron.hardware.readings import resident_mb
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import QWEN3_0_6B, write_model
from helexa.spark import gguf_path

SMALL = ((1024, 1, "f16"), (2048, 2, "f16"), (512, 8, "f16"), (2048, 4, "q8_0"))
LARGE = ((2048, 1, "f16"), (4096, 2, "f16"), (2048, 8, "f16"), (8192, 4, "q8_0"))
BAR_PCT = 10.0
KEY = "benchmark"
SMALL_BYTES = 64 << 20
HOST_MB = -1


@contextmanager
def engine(config: ServerConfig) -> Iterator[tuple[int, int]]:
    """An engine process as a node starts it; its pid and port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helexa.neuron.engines.llamacpp.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(msgspec.json.encode(config) + b"\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline() or b"{}")
        if "port" not in told:
            raise Failed(f"the engine did not start: {told.get('error', 'no report')}")
        yield process.pid, told["port"]
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def prompt(port: int, tokens: int, slot: int = 0) -> None:
    """One prompt of ``tokens`` tokens in a slot of its own."""
    body = json.dumps({"prompt": [5] * tokens, "max_tokens": 1, "id_slot": slot}).encode()
    headers = {"Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, headers)
    with urllib.request.urlopen(request, timeout=300) as answer:
        answer.read()


def compare(path: Path, context: int, slots: int, kv_type: str) -> tuple[int, int]:
    """Predicted and measured MiB of one setting."""
    plan = planned(path, context, slots, kv_type)
    facts = inspect(path, "m")
    with engine(server_config(facts, plan, "m", KEY)) as (pid, port):
        for slot in range(slots if facts.weight_bytes < SMALL_BYTES else 0):
            prompt(port, context - 8, slot)
        prompt(port, plan.batch + 8)
        measured = resident_mb(pid)
    return plan.memory_mb[HOST_MB], measured


def planned(path: Path, context: int, slots: int, kv_type: str) -> Plan:
    """What a node would start for these wishes."""
    hardware = Hardware.of_this_host(os.environ)
    wanted = {"slots": slots, "ctx": context, "kv_type": kv_type, "gpu_layers": 0}
    cells = {"cells": slots * context}
    try:
        return make_plan(inspect(path, "m"), hardware.host(), wanted | {"extra": cells})
    finally:
        hardware.stop()


@click.command(help=__doc__)
@report.json_option
def main(json_file: Path | None) -> None:
    found = report.report(
        "memory_plan", "predicted against measured memory", "python benchmarks/memory_plan.py"
    )
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        large = write_model(Path(folder) / "qwen3-0.6b-shaped.gguf", QWEN3_0_6B)
        for name, path, settings in (
            ("helexa/spark", gguf_path(), SMALL),
            ("Qwen3-0.6B shape, Q8_0", large, LARGE),
        ):
            worst = 0.0
            for context, slots, kv_type in settings:
                try:
                    predicted, measured = compare(path, context, slots, kv_type)
                except Failed as error:
                    raise click.ClickException(str(error)) from error
                off = 100 * (predicted / measured - 1)
                worst = max(worst, abs(off))
                what = f"{name}: {slots} × {context} {kv_type}"
                rows.append([what, f"{predicted}", f"{measured}", f"{off:+.1f}"])
            figure = report.at_most(
                f"off by, {name}", worst, BAR_PCT, "%", "worst of four settings"
            )
            found.figures.append(figure)
    columns = ["slots × context, KV type", "predicted MiB", "measured MiB", "%"]
    found.tables.append(report.TableData("Memory of one engine process", columns, rows))
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
