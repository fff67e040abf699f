"""Tokens per second through a node against bare vLLM, at one and eight streams.

Two vLLM servers with the same arguments and the same model: one as ``vllm serve`` would start it,
asked for a plain stream; the other started by a node. They take turns, there and back again, each
first in every other round; the one that waits is stopped (SIGSTOP), because idle workers spin.
Medians of the rounds' ratios count.

Two models: one of random weights in the shape of Qwen3-0.6B, whose steps take what a real model's
take, and which carries the bar; and the built-in one, which decodes a token in a few milliseconds,
so that what a hop costs shows as large as it ever will. Of that it is only said whether it would
meet the bar.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
from kit import chat, report
from kit.node import Node
from kit.paired import ratio, there_and_back
from kit.process import Failed, Process, cpu_seconds, free_port, tree

from helexa import spark
from helexa.neuron.engines.base import Host
from helexa.neuron.engines.vllm.build import VllmBuild, find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import QWEN3_0_6B
from helexa.neuron.models.synthetic_folder import write_folder

BAR = 0.97
STREAMS = (1, 8)
USAGE_TURNS = 4
ARGS = ["--max-num-seqs", "10", "--max-model-len", "2048", "--kv-cache-memory-bytes", "536870912"]
LONGEST_S = 150.0  # of the rounds with one model; on a machine that is slower, fewer rounds
# Of an answer, at one stream and at eight: many, so that their beginning says little.
LARGE_TOKENS, SMALL_TOKENS = {1: 32, 8: 128}, {1: 256, 8: 128}
SETTINGS = """
[engines.vllm]
python = "{python}"
args = {args}
[admission]
reserve_seats = 0
"""


@dataclass
class Side:
    """One of the two that are compared.

    Args:
        server: vLLM's process that speaks HTTP, one thread for all streams.
        pids: What is stopped while the other one has its turn.
        spent: CPU seconds of ``server``.
    """

    port: int
    server: int
    pids: list[int]
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})
    tokens: int = 0
    spent: float = 0.0

    def forget(self) -> None:
        """Nobody is warm in the first round."""
        self.rates = {streams: [] for streams in STREAMS}
        self.tokens, self.spent = 0, 0.0


def start_bare(scratch: Path, model: str, engine: Vllm) -> tuple[Process, int]:
    """The server alone, with the arguments a node would give it."""
    facts = inspect(Path(model), model)
    host = Host((), (), 24_000, 20_000, os.cpu_count() or 1)
    plan = engine.plan(facts, host, {"cache_ram_mb": 256})
    launch = engine.launch(facts, plan, model)
    told = msgspec.json.decode(launch.secret)
    port = free_port()
    command = [launch.argv[0], "-m", "vllm.entrypoints.openai.api_server", *told["argv"]]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, scratch / "vllm.log", environ=launch.env)
    return process, port


def wait_until_ready(process: Process, port: int, patience: float = 300.0) -> None:
    """Return when the bare server answers."""
    until = time.monotonic() + patience
    while time.monotonic() < until and process.alive:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5),
        ):
            return
        time.sleep(0.2)
    raise Failed(f"vLLM is not ready: {process.last_words()}")


def parent(pid: int) -> int:
    """The process that started ``pid``."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def awake(pids: list[int]) -> Iterator[None]:
    """These processes run only inside of this."""
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)


def wake(pids: list[int]) -> None:
    """Let what was stopped hear that it is to end."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stop(process: Process) -> None:
    """End a server that may be stopped."""
    wake(tree([process.pid]))
    process.stop(10.0)


async def burst(side: Side, model: str, streams: int, tokens: int, **more: object) -> None:
    """``streams`` answers at once, to requests with ``more`` members."""

    async def client(number: int) -> None:
        text = f"Repeat: river stone {number}"
        switch = {"chat_template_kwargs": {"enable_thinking": False}, **more}
        found = await chat.ask(side.port, chat.body(model, text, tokens, **switch))
        if not found.whole or found.tokens != tokens:
            raise Failed(f"an answer broke off: {found.status} {bytes(found.raw[-300:])!r}")

    computed = cpu_seconds([-side.server])
    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(streams)))
    side.rates[streams].append(streams * tokens / (time.perf_counter() - began))
    side.spent += cpu_seconds([-side.server]) - computed
    side.tokens += streams * tokens


@contextmanager
def both(scratch: Path, model: str, build: VllmBuild) -> Iterator[tuple[Side, Side, Node]]:
    """Bare vLLM and a node that serves the same, both ready and stopped."""
    scratch.mkdir()
    with ExitStack() as stack:
        engine = Vllm(os.environ, build, ARGS)
        bare, port = start_bare(scratch, model, engine)
        stack.callback(stop, bare)
        wait_until_ready(bare, port)
        sides = [Side(port, bare.pid, tree([bare.pid]))]
        with awake(sides[0].pids):
            pass
        settings = SETTINGS.format(python=build.python, args=msgspec.json.encode(ARGS).decode())
        node = Node(scratch / "node", settings)
        stack.callback(node.stop)
        status, loaded = node.ask("/models/load", {"model_id": model}, timeout=400)
        if status != 200:
            raise Failed(f"vLLM did not load: {loaded}")
        started = [pid for pid in tree([node.process.pid]) if pid != node.process.pid]
        server = next(pid for pid in started if parent(pid) == node.process.pid)
        sides.append(Side(node.port, server, started))
        with awake(started):
            pass
        stack.callback(wake, [pid for side in sides for pid in side.pids])
        yield sides[0], sides[1], node


def compare(
    bare: Side, ours: Side, node: Node, model: str, rounds: int, tokens: dict[int, int]
) -> float:
    """Both in turns; CPU seconds that the node itself took for a token."""
    began, own = time.perf_counter(), 0.0
    for number in range(-1, rounds):
        if number > 0 and time.perf_counter() - began > LONGEST_S:
            click.echo(f"{number} rounds must do, the machine is slow", err=True)
            break
        share = 4 if number < 0 else 1  # the first round warms up
        for streams in STREAMS:
            for side in there_and_back(bare, ours, number):
                before = cpu_seconds([-node.process.pid])
                with awake(side.pids):
                    asyncio.run(burst(side, model, streams, tokens[streams] // share))
                if side is ours:
                    own += cpu_seconds([-node.process.pid]) - before
        if number < 0:
            own = 0.0
            bare.forget()
            ours.forget()
        click.echo(f"round {number + 1}/{rounds}", err=True)
    return own / ours.tokens


def figures(
    name: str, bare: Side, ours: Side, own_s: float, *, promised: bool
) -> list[report.Figure]:
    """The ratio at each number of streams, held to the bar or only compared with it."""
    made = []
    for streams in STREAMS:
        value, spread = ratio(ours.rates[streams], bare.rates[streams], rates=True)
        mine, theirs = (statistics.median(side.rates[streams]) for side in (ours, bare))
        note = f"{mine:,.4g} and {theirs:,.4g} tokens/s; {spread}"
        if promised:
            made.append(report.at_least(label(name, streams), value, BAR, "×", note))
        else:
            note += f"; {'at least' if value >= BAR else 'less than'} {BAR}"
            made.append(report.Figure(label(name, streams), f"{value:.4g} ×", note=note))
    made.append(report.Figure(f"{name}: the node's own CPU per token", f"{own_s * 1e6:,.0f} µs"))
    mine, theirs = (side.spent / side.tokens * 1e6 for side in (ours, bare))
    made.append(
        report.Figure(
            f"{name}: CPU per token of vLLM's own server, under the node",
            f"{mine:,.0f} µs",
            note=f"bare: {theirs:,.0f} µs",
        )
    )
    return made


def cost_of_usage(bare: Side, model: str) -> report.Figure:
    """What counting by usage with every chunk would cost vLLM; see docs/decisions."""
    plain, counted = (Side(bare.port, bare.server, bare.pids) for _ in range(2))
    usage = {"include_usage": True, "continuous_usage_stats": True}
    with awake(bare.pids):
        for _ in range(USAGE_TURNS):
            asyncio.run(burst(plain, model, 8, 128))
            asyncio.run(burst(counted, model, 8, 128, stream_options=usage))
    per_token = [side.spent / side.tokens * 1e6 for side in (counted, plain)]
    return report.Figure(
        "CPU per token of vLLM's own server at 8 streams, with usage in every chunk",
        f"{per_token[0] / per_token[1]:.2f} ×",
        note=f"of a plain stream's; {per_token[0]:,.0f} and {per_token[1]:,.0f} µs",
    )


def label(name: str, streams: int) -> str:
    """A figure's name."""
    return f"{name}, {'one stream' if streams == 1 else f'{streams} streams'}: tokens/s"


def run(rounds: int, large_rounds: int) -> report.Report:
    """Measure both models, one after the other."""
    command = f"python benchmarks/vllm.py --rounds {rounds} --large-rounds {large_rounds}"
    found = report.report("vllm", "tokens/s through a node, to bare vLLM", command)
    build = find_build(None, os.environ)
    if build is None:
        why = "vLLM is not installed (make vllm-env)"
        names = [label("0.6B shape", n) for n in STREAMS]
        found.figures += [report.not_measured(name, f"≥ {BAR}", why) for name in names]
        return found
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        scratch = Path(folder)
        large = str(write_folder(scratch / "qwen3-0.6b-shaped", QWEN3_0_6B))
        small = str(spark.safetensors_dir())
        for name, model, turns, tokens in (
            ("0.6B shape", large, large_rounds, LARGE_TOKENS),
            ("spark", small, rounds, SMALL_TOKENS),
        ):
            if not turns:
                continue
            with both(scratch / name, model, build) as (bare, ours, node):
                own_s = compare(bare, ours, node, model, turns, tokens)
                found.figures += figures(name, bare, ours, own_s, promised=model == large)
                if model == small:
                    found.figures.append(cost_of_usage(bare, model))
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=8, show_default=True, help="With the built-in model; 0 is none.")
@click.option(
    "--large-rounds", default=4, show_default=True, help="With the 0.6B shape; 0 is none."
)
@report.json_option
def main(rounds: int, large_rounds: int, json_file: Path | None) -> None:
    try:
        found = run(rounds, large_rounds)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    sys.exit(main())
