"""The node against the bare engine, and the second turn of a conversation against its first.

Both sides are one engine process, the node's own: asked through the node, and directly while the
node is stopped (SIGSTOP), so that nothing but the way differs. The sides take turns, there and back
again, so that a machine that becomes slower or faster meanwhile does so for both; medians of the
rounds' ratios count, and beside them stands between what the median lies with 95 %. Tokens per
second are those of the time in which every stream of a burst had its first token and none had
ended: what comes before is the first token's own figure. The large model is one of random weights
in the shape of Qwen3-0.6B; with the built-in model, which decodes thousands of tokens a second, the
node is the whole cost.

What the node itself computes for a token is printed too: where the engine's threads hold every
core, that time is the engine's loss, and a ratio that is further off is noise.

What eight streams bring with other file formats is ``batching.py``. Predicted against measured
memory is ``memory_plan.py``, exact counts are ``metering.py``, shares of two callers
``fairness.py``, faults ``chaos.py``.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import click
import msgspec
import uvloop
from kit import report
from kit.chat import ask, body, together
from kit.engine import named_by_build
from kit.node import SPARK, Node, OpenNode
from kit.paired import ratio, there_and_back
from kit.process import Failed, end_cleanly, frozen
from kit.report import Figure, Report

from helexa.neuron.models.synthetic import QUANTS, QWEN3_0_6B, write_model

SLOTS, CONTEXT = 8, 2048
LEAST_ROUNDS = 3  # on a machine that is too slow for more
SETTLE_S = 0.1
"""Before a burst: what was due while the node was stopped is done by then."""
STREAMS = (1, SLOTS)
ENGINE = f"[engines.llamacpp]\nslots = {SLOTS}\nctx = {CONTEXT}\n"
ALONE = "[admission]\nreserve_seats = 0\nmax_queue_depth = 128\nmax_wait_secs = 300\n"


@dataclass(frozen=True)
class Bursts:
    """How much is asked, by the number of streams: tokens of an answer, and for how many seconds
    in all; ``LEAST_ROUNDS`` in any case."""

    tokens: dict[int, int]
    seconds: dict[int, float]


LARGE = Bursts({1: 24, SLOTS: 32}, {1: 60.0, SLOTS: 390.0})
SMALL = Bursts({1: 400, SLOTS: 200}, {1: 15.0, SLOTS: 15.0})


@dataclass
class Side:
    """One of the two that are compared.

    Args:
        pid: Whose CPU time counts.
        alone: Around every burst.
    """

    name: str
    port: int | str
    headers: dict[str, str]
    model: str
    pid: int
    alone: Callable[[], AbstractContextManager[None]] = nullcontext
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})
    firsts: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})
    tokens: int = 0
    cpu_s: float = 0.0

    def forget(self) -> None:
        """Nobody is warm in the first burst."""
        for kept in (*self.rates.values(), *self.firsts.values()):
            kept.clear()
        self.tokens, self.cpu_s = 0, 0.0


def sides(node: OpenNode, model: str) -> tuple[Side, Side]:
    """The node's engine asked directly, and through the node."""
    address, pid = node.engine
    key = {"authorization": f"Bearer {address.api_key}"}
    asleep = partial(frozen, node.process.pid)
    bare = Side("bare engine", address.uds or address.port, key, model, pid, asleep)
    return bare, Side("node", node.port, {}, model, node.process.pid)


def own_cpu_s(pid: int) -> float:
    """CPU seconds of one process, without those it started."""
    return time.clock_gettime_ns((~pid << 3) | 2) / 1e9  # CPUCLOCK_SCHED of another process


async def burst(side: Side, streams: int, tokens: int, number: int) -> None:
    """``streams`` answers at once; ``number`` makes prompts that nobody asked before, of the same
    length."""
    texts = [f"{number:06} {stream}: one two three four five" for stream in range(streams)]
    await asyncio.sleep(SETTLE_S)
    with side.alone():
        computed = own_cpu_s(side.pid)
        answers = await asyncio.gather(
            *(ask(side.port, body(side.model, t, tokens), headers=side.headers) for t in texts)
        )
        side.cpu_s += own_cpu_s(side.pid) - computed
    side.tokens += streams * tokens
    for answer in answers:
        if not answer.whole or answer.tokens != tokens:
            raise Failed(f"{side.name}: {answer.status} {bytes(answer.raw[-300:])!r}")
    side.rates[streams].append(together(answers))
    side.firsts[streams].append(statistics.median(a.first_s for a in answers))


async def compare(bare: Side, ours: Side, rounds: int, plan: Bursts) -> None:
    """Both sides in turns, after a burst of each that does not count."""
    bursts = count()
    for side in (bare, ours):
        await burst(side, SLOTS, plan.tokens[SLOTS], next(bursts))
        side.forget()
    spent = dict.fromkeys(STREAMS, 0.0)
    for number in range(rounds):
        for streams in STREAMS:
            if number >= LEAST_ROUNDS and spent[streams] > plan.seconds[streams]:
                continue
            began = time.perf_counter()
            for side in there_and_back(bare, ours, number):
                await burst(side, streams, plan.tokens[streams], next(bursts))
            spent[streams] += time.perf_counter() - began
        click.echo(f"{bare.model}: round {number + 1}/{rounds}", err=True)


def versus(name: str, bare: Side, ours: Side, bars: tuple[float, float | None]) -> list[Figure]:
    """The figures of one model: rate and first token, one stream and several."""
    found = []
    least, most = bars
    for streams in STREAMS:
        words = "one stream" if streams == 1 else f"{streams} streams"
        value, note = ratio(ours.rates[streams], bare.rates[streams], rates=True)
        speed = statistics.median(ours.rates[streams])
        note = f"{speed:,.0f} tokens/s; {note}"
        found.append(report.at_least(f"{name}, {words}: tokens/s", value, least, "×", note))
        value, note = ratio(ours.firsts[streams], bare.firsts[streams], rates=False)
        note = f"{statistics.median(ours.firsts[streams]) * 1e3:,.1f} ms; {note}"
        label = f"{name}, {words}: first token"
        if most is None:
            found.append(Figure(label, f"{value:.4g} ×", note=note))
        else:
            found.append(report.at_most(label, value, most, "×", note))
    node_us, engine_us = (side.cpu_s / side.tokens * 1e6 for side in (ours, bare))
    share = f"{100 * node_us / engine_us:.2g} % of the engine's {engine_us:,.0f} µs"
    found.append(Figure(f"{name}: the node's own CPU per token", f"{node_us:,.0f} µs", note=share))
    return found


def eight_to_one(side: Side) -> float:
    """Tokens per second of all streams together, to those of one."""
    return statistics.median(side.rates[SLOTS]) / statistics.median(side.rates[1])


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


async def measure(scratch: Path, rounds: int, large: bool, quant: str) -> list[Figure]:
    """Everything, one node after the other."""
    found: list[Figure] = []
    with ExitStack() as stack:
        node = OpenNode(scratch / "versus", ENGINE + ALONE)
        stack.callback(node.stop)
        if large:
            path = write_model(
                scratch / "qwen3-0.6b-shaped.gguf", msgspec.structs.replace(QWEN3_0_6B, quant=quant)
            )
            model = str(node.load(str(path))["id"])
            bare, ours = sides(node, model)
            await compare(bare, ours, rounds, LARGE)
            found += versus("0.6B shape", bare, ours, (0.98, 1.05))
            note = f"the bare engine: {eight_to_one(bare):.3g} ×"
            eight = eight_to_one(ours)
            found.append(report.at_least("0.6B shape: eight streams, to one", eight, 3, "×", note))
            node.ask("/models/unload", {"model_id": model})
        node.load(SPARK)
        bare, ours = sides(node, SPARK)
        await compare(bare, ours, rounds, SMALL)
        found += versus("spark", bare, ours, (0.80, None))
        node.stop()

        turns = Node(scratch / "turns", "[context_limit]\noutput_reserve_tokens = 256\n")
        stack.callback(turns.stop)
        turns.load(SPARK)
        found += await conversation(turns)
    return found


def run(rounds: int, large: bool, quant: str) -> Report:
    command = f"python benchmarks/node.py --rounds {rounds}"
    command += "" if large else " --no-large"
    command += "" if quant == QWEN3_0_6B.quant else f" --format {quant}"
    name, engine = named_by_build("node", quant, QWEN3_0_6B.quant)
    found = report.report(name, f"a node against its bare engine, {engine}", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        found.figures += uvloop.run(measure(Path(scratch), rounds, large, quant))
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=40, show_default=True, help="Rounds at most, with either model.")
@click.option("--large/--no-large", default=True, help="Whether to measure the large model.")
@click.option(
    "--format",
    "quant",
    type=click.Choice(QUANTS),
    default=QWEN3_0_6B.quant,
    show_default=True,
    help="Of the large model's file.",
)
@report.json_option
def main(rounds: int, large: bool, quant: str, json_file: Path | None) -> None:
    end_cleanly()  # a node of ours may be stopped just then
    try:
        found = run(rounds, large, quant)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
