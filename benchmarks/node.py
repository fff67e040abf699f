"""The node against the bare engine, and against its own promises: reuse, fairness, a start at once.

Same machine, same run, same settings: the bare engine is started by the node's own engine file
with the same plan, and the two are asked in turns; medians of the rounds' ratios count, so that a
noisy minute hits both. The large model is one of random weights in the shape of Qwen3-0.6B; with
the built-in model, which decodes thousands of tokens a second, the node is the whole cost.

Predicted against measured memory is ``memory_plan.py``, exact counts are ``metering.py``, faults
are ``chaos.py``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import uvloop
from kit import report
from kit.chat import Answer, ask, body
from kit.node import SPARK, Node
from kit.process import Failed
from kit.report import Figure, Report

from helexa.neuron.engines.base import Address
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.supervisor import EngineProcess, EngineSpec
from helexa.neuron.hardware import Hardware
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import QWEN3_0_6B, write_model
from helexa.spark import gguf_path

SLOTS, CONTEXT = 8, 2048
STREAMS = (1, SLOTS)
ENGINE = f"[engines.llamacpp]\nslots = {SLOTS}\nctx = {CONTEXT}\n"
ALONE = "[admission]\nreserve_seats = 0\nmax_queue_depth = 128\nmax_wait_secs = 300\n"


@dataclass
class Side:
    """One of the two that are compared."""

    name: str
    port: int
    headers: dict[str, str]
    model: str
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})
    firsts: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})


@asynccontextmanager
async def bare_engine(path: Path, model: str, state: Path) -> AsyncIterator[Address]:
    """The engine as the node would start it, without the node."""
    engine, hardware = LlamaCpp(os.environ), Hardware.of_this_host(os.environ)
    facts = inspect(path, model)
    wanted = {"slots": SLOTS, "ctx": CONTEXT, "headroom_mb": 2048, "cache_ram_mb": 256}
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
        yield await process.start()
    finally:
        await process.stop()


async def burst(side: Side, streams: int, tokens: int, mark: str) -> None:
    """``streams`` answers at once; no two prompts alike, the same for both sides."""
    texts = [f"{mark} {number}: one two three four five" for number in range(streams)]
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(ask(side.port, body(side.model, t, tokens), headers=side.headers) for t in texts)
    )
    seconds = time.perf_counter() - began
    for answer in answers:
        if not answer.whole or answer.tokens != tokens:
            raise Failed(f"{side.name}: {answer.status} {bytes(answer.raw[-300:])!r}")
    one = answers[0].rate if streams == 1 else streams * tokens / seconds
    side.rates[streams].append(one)
    side.firsts[streams].append(statistics.median(a.first_s for a in answers))


async def compare(
    path: Path, model: str, node: Node, scratch: Path, rounds: int, tokens: dict[int, int]
) -> tuple[Side, Side]:
    """Both sides in turns."""
    async with bare_engine(path, model, scratch / f"bare-{path.stem}") as address:
        key = {"authorization": f"Bearer {address.api_key}"}
        bare = Side("bare engine", address.port, key, model)
        ours = Side("node", node.port, {}, model)
        for number in range(-1, rounds):
            for streams in STREAMS:
                for side in (bare, ours) if number % 2 else (ours, bare):
                    await burst(side, streams, tokens[streams], f"round {number}")
            if number < 0:  # nobody is warm in the first
                for side in (bare, ours):
                    for kept in (*side.rates.values(), *side.firsts.values()):
                        kept.clear()
            click.echo(f"{model}: round {number + 1}/{rounds}", err=True)
    return bare, ours


def ratio(ours: Sequence[float], bare: Sequence[float]) -> tuple[float, str]:
    """Median of the rounds' ratios, and their middle half."""
    each = sorted(a / b for a, b in zip(ours, bare, strict=True))
    low, high = each[len(each) // 4], each[-1 - len(each) // 4]
    return statistics.median(each), f"middle half {low:.3f} to {high:.3f}"


def versus(name: str, bare: Side, ours: Side, bars: tuple[float, float | None]) -> list[Figure]:
    """The figures of one model: rate and first token, one stream and several."""
    found = []
    least, most = bars
    for streams in STREAMS:
        words = "one stream" if streams == 1 else f"{streams} streams"
        value, note = ratio(ours.rates[streams], bare.rates[streams])
        speed = statistics.median(ours.rates[streams])
        note = f"{speed:,.0f} tokens/s; {note}"
        found.append(report.at_least(f"{name}, {words}: tokens/s", value, least, "×", note))
        value, note = ratio(ours.firsts[streams], bare.firsts[streams])
        note = f"{statistics.median(ours.firsts[streams]) * 1e3:,.1f} ms; {note}"
        label = f"{name}, {words}: first token"
        if most is None:
            found.append(Figure(label, f"{value:.4g} ×", note=note))
        else:
            found.append(report.at_most(label, value, most, "×", note))
    return found


async def conversation(node: Node) -> list[Figure]:
    """The second turn of a conversation that fills the context."""
    words = " ".join(f"{n} apple" for n in range(1230))
    turns = [{"role": "user", "content": f"Read this: {words}"}]
    first = await ask(node.port, body(SPARK, "", 16, messages=turns))
    if not first.whole:
        raise Failed(f"the first turn failed: {bytes(first.raw[-300:])!r}")
    pieces = [e["choices"][0]["delta"].get("content", "") for e in first.events if e["choices"]]
    turns += [
        {"role": "assistant", "content": "".join(pieces)},
        {"role": "user", "content": "Count."},
    ]
    second = await ask(node.port, body(SPARK, "", 16, messages=turns))
    one, two = first.end, second.end
    share = 100 * two["timings"]["prompt_ms"] / one["timings"]["prompt_ms"]
    usage, timings = two["usage"], two["timings"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    wrong = abs(usage["prompt_tokens"] - cached - timings["prompt_n"])
    tokens = one["usage"]["prompt_tokens"]
    note = f"{tokens} tokens, then {usage['prompt_tokens']} of which {cached} cached"
    return [
        report.at_most("second turn's prefill, of the first's", share, 10, "%", note),
        report.at_most("cached count off by", wrong, 0, "tokens"),
    ]


def caller(name: str, number: int) -> dict[str, str]:
    """Headers of a gateway for one principal."""
    return {
        "x-helexa-gateway": "benchmark/1",
        "x-helexa-account-id": name,
        "x-helexa-key-id": name,
        "x-request-id": f"{name}-{number}",
    }


async def outstanding(
    node: Node, name: str, count: int, until: float, done: Callable[[str, Answer], None]
) -> None:
    """Keep ``count`` requests of one principal outstanding."""

    async def one(lane: int) -> None:
        number = 0
        while time.perf_counter() < until:
            number += 1
            payload = body(SPARK, f"Count from {lane}.", 96)
            answer = await ask(node.port, payload, headers=caller(name, lane * 100_000 + number))
            done(name, answer)

    await asyncio.gather(*(one(lane) for lane in range(count)))


async def fairness(node: Node, seconds: float) -> list[Figure]:
    """A keeps 64 outstanding, B 8; then B asks one at a time."""
    got: Counter[str] = Counter()
    errors: list[str] = []
    waits: list[float] = []
    until = time.perf_counter() + seconds

    def count(name: str, answer: Answer) -> None:
        if not answer.whole:
            errors.append(f"{answer.status} {bytes(answer.raw[-200:])!r}")
        elif time.perf_counter() < until:
            got[name] += answer.tokens

    async with asyncio.TaskGroup() as group:
        for name, size in (("A", 64), ("B", 8)):
            group.create_task(outstanding(node, name, size, until, count))
    share = 100 * got["A"] / max(1, got.total())

    def queued(name: str, answer: Answer) -> None:
        if not answer.whole:
            errors.append(f"{answer.status} {bytes(answer.raw[-200:])!r}")
        elif name == "B":
            waits.append(float(answer.header("x-helexa-queue-ms") or "nan"))

    until = time.perf_counter() + min(10.0, seconds)
    async with asyncio.TaskGroup() as group:
        for name, size in (("A", 64), ("B", 1)):
            group.create_task(outstanding(node, name, size, until, queued))
    note = f"{got['A']:,} and {got['B']:,} tokens in {seconds:.0f} s"
    worst = f"of {len(waits)} requests; the longest {max(waits):.0f} ms"
    return [
        report.at_most("A's share: 64 outstanding against B's 8", share, 55, "%", note),
        report.at_most("B with one outstanding waits", statistics.median(waits), 10, "ms", worst),
        report.at_most("errors while they compete", len(errors), 0, "", "; ".join(errors[:1])),
    ]


async def measure(scratch: Path, rounds: int, seconds: float, large: bool) -> list[Figure]:
    """Everything, one node after the other."""
    found: list[Figure] = []
    with ExitStack() as stack:

        def start(name: str, settings: str) -> Node:
            node = Node(scratch / name, settings)
            stack.callback(node.stop)
            return node

        node = start("versus", ENGINE + ALONE)
        if large:
            path = write_model(scratch / "qwen3-0.6b-shaped.gguf", QWEN3_0_6B)
            model = str(node.load(str(path))["id"])
            sides = await compare(path, model, node, scratch, rounds, {1: 24, SLOTS: 24})
            found += versus("0.6B shape", *sides, (0.98, 1.05))
            several = statistics.median(sides[1].rates[SLOTS])
            times = several / statistics.median(sides[1].rates[1])
            found.append(report.at_least("0.6B shape: eight streams, to one", times, 3, "×"))
            node.ask("/models/unload", {"model_id": model})
        node.load(SPARK)
        sides = await compare(gguf_path(), SPARK, node, scratch, 3 * rounds, {1: 400, SLOTS: 200})
        found += versus("spark", *sides, (0.80, None))
        node.stop()

        node = start("turns", "[context_limit]\noutput_reserve_tokens = 256\n")
        node.load(SPARK)
        found += await conversation(node)
        node.stop()

        node = start("fair", f"[engines.llamacpp]\nslots = {SLOTS}\n[admission]\n"
                     "max_queue_depth = 128\nmax_wait_secs = 300\n")  # fmt: skip
        node.load(SPARK)
        found += await fairness(node, seconds)
    return found


def run(rounds: int, seconds: float, large: bool) -> Report:
    command = f"python benchmarks/node.py --rounds {rounds} --seconds {seconds:g}"
    command += "" if large else " --no-large"
    found = report.report("node", "a node against its bare engine and its promises", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        found.figures += uvloop.run(measure(Path(scratch), rounds, seconds, large))
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=5, show_default=True, help="Rounds with the large model.")
@click.option("--seconds", default=60.0, show_default=True, help="Length of the fairness run.")
@click.option("--large/--no-large", default=True, help="Whether to measure the large model.")
@report.json_option
def main(rounds: int, seconds: float, large: bool, json_file: Path | None) -> None:
    try:
        found = run(rounds, seconds, large)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
