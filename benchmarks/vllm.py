"""Tokens per second through a node against bare vLLM, at one and eight streams.

Two vLLM servers with the same arguments and the same model: one as ``vllm serve`` would start it,
asked for a plain stream; the other started by a node. They take turns, there and back again, each
first in every other round; the one that waits is stopped (SIGSTOP), because idle workers spin.
Medians of the rounds' ratios count. With ``--started-alike`` the other server is started as a node
starts it too, and asked on its own socket: what is left is what the hop costs.

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
import subprocess
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
from helexa.neuron.engines.base import Host, Launch
from helexa.neuron.engines.vllm.build import VllmBuild, find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.models.inspect import inspect
from helexa.neuron.models.synthetic import QWEN3_0_6B
from helexa.neuron.models.synthetic_folder import write_folder

BAR = 0.97
STREAMS = (1, 8)
USAGE_TURNS = 4
# A pool that holds eight prompts also as a node bounds them before it has seen the engine's count:
# it lets all in at once, as vLLM does, and what is measured is the hop.
ARGS = ["--max-num-seqs", "10", "--max-model-len", "2048", "--kv-cache-memory-bytes", "1073741824"]
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
        port: Of this machine; or the path of a Unix socket.
        server: vLLM's process that speaks HTTP, one thread for all streams.
        pids: What is stopped while the other one has its turn.
        key: What ``server`` demands.
        spent: CPU seconds of ``server``.
        whole: CPU seconds of all its processes.
    """

    port: int | str
    server: int
    pids: list[int]
    key: str = ""
    rates: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in STREAMS})
    tokens: int = 0
    spent: float = 0.0
    whole: float = 0.0

    def forget(self) -> None:
        """Nobody is warm in the first round."""
        self.rates = {streams: [] for streams in STREAMS}
        self.tokens, self.spent, self.whole = 0, 0.0, 0.0


def launch_of(model: str, engine: Vllm) -> Launch:
    """How a node would start it."""
    facts = inspect(Path(model), model)
    host = Host((), (), 24_000, 20_000, os.cpu_count() or 1)
    return engine.launch(facts, engine.plan(facts, host, {"cache_ram_mb": 256}), model)


@contextmanager
def started_bare(scratch: Path, launch: Launch) -> Iterator[Side]:
    """The server alone, with the arguments and the environment a node would give it."""
    told = msgspec.json.decode(launch.secret)
    port = free_port()
    command = [launch.argv[0], "-m", "vllm.entrypoints.openai.api_server", *told["argv"]]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, scratch / "vllm.log", environ=launch.env)
    try:
        wait_until_ready(process, port)
        yield Side(port, process.pid, tree([process.pid]))
    finally:
        stop(process)


@contextmanager
def started_alike(scratch: Path, launch: Launch) -> Iterator[Side]:
    """The server as a node starts it, asked without one. It ends when its stdin is closed."""
    with (
        (scratch / "vllm.log").open("ab") as log,
        subprocess.Popen(
            launch.argv,
            env=launch.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(launch.secret + b"\n")
            child.stdin.flush()
            said = msgspec.json.decode(child.stdout.readline() or b"{}")
            if "uds" not in said:
                raise Failed(f"vLLM is not ready: {said.get('error', 'it ended')}")
            yield Side(said["uds"], child.pid, tree([child.pid]), key=launch.api_key)
        finally:
            wake(tree([child.pid]))


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
    headers = {"authorization": f"Bearer {side.key}"} if side.key else {}

    async def client(number: int) -> None:
        text = f"Repeat: river stone {number}"
        switch = {"chat_template_kwargs": {"enable_thinking": False}, **more}
        asked = chat.body(model, text, tokens, **switch)
        found = await chat.ask(side.port, asked, headers=headers)
        if not found.whole or found.tokens != tokens:
            raise Failed(f"an answer broke off: {found.status} {bytes(found.raw[-300:])!r}")

    everything = [-pid for pid in side.pids]
    computed, whole = cpu_seconds([-side.server]), cpu_seconds(everything)
    began = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(streams)))
    side.rates[streams].append(streams * tokens / (time.perf_counter() - began))
    side.spent += cpu_seconds([-side.server]) - computed
    side.whole += cpu_seconds(everything) - whole
    side.tokens += streams * tokens


@contextmanager
def both(
    scratch: Path, model: str, build: VllmBuild, *, alike: bool = False
) -> Iterator[tuple[Side, Side, Node]]:
    """Bare vLLM and a node that serves the same, both ready and stopped."""
    scratch.mkdir()
    with ExitStack() as stack:
        launch = launch_of(model, Vllm(os.environ, build, ARGS))
        start = started_alike if alike else started_bare
        sides = [stack.enter_context(start(scratch, launch))]
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
    return made + cpu_figures(name, bare, ours, own_s)


def cpu_figures(name: str, bare: Side, ours: Side, own_s: float) -> list[report.Figure]:
    """CPU per token: of the node, of vLLM's server, and of vLLM as a whole."""
    server, served = (side.spent / side.tokens * 1e6 for side in (ours, bare))
    whole, alone = (side.whole / side.tokens * 1e3 for side in (ours, bare))
    return [
        report.Figure(f"{name}: the node's own CPU per token", f"{own_s * 1e6:,.0f} µs"),
        report.Figure(
            f"{name}: CPU per token of vLLM's own server, under the node",
            f"{server:,.0f} µs",
            note=f"bare: {served:,.0f} µs",
        ),
        report.Figure(
            f"{name}: CPU per token of all of vLLM, under the node",
            f"{whole:,.1f} ms",
            note=f"bare: {alone:,.1f} ms",
        ),
    ]


def cost_of_usage(bare: Side, model: str) -> report.Figure:
    """What counting by usage with every chunk would cost vLLM; see docs/decisions."""
    plain, counted = (Side(bare.port, bare.server, bare.pids, bare.key) for _ in range(2))
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


def run(rounds: int, large_rounds: int, *, alike: bool) -> report.Report:
    """Measure both models, one after the other."""
    command = f"python benchmarks/vllm.py --rounds {rounds} --large-rounds {large_rounds}"
    command += " --started-alike" if alike else ""
    other = "vLLM started alike" if alike else "bare vLLM"
    found = report.report("vllm", f"tokens/s through a node, to {other}", command)
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
            with both(scratch / name, model, build, alike=alike) as (bare, ours, node):
                own_s = compare(bare, ours, node, model, turns, tokens)
                promised = model == large and not alike
                found.figures += figures(name, bare, ours, own_s, promised=promised)
                if model == small:
                    found.figures.append(cost_of_usage(bare, model))
    return found


@click.command(help=__doc__)
@click.option("--rounds", default=8, show_default=True, help="With the built-in model; 0 is none.")
@click.option(
    "--large-rounds", default=4, show_default=True, help="With the 0.6B shape; 0 is none."
)
@click.option("--started-alike", is_flag=True, help="Only the hop: both servers as nodes start it.")
@report.json_option
def main(rounds: int, large_rounds: int, started_alike: bool, json_file: Path | None) -> None:
    try:
        found = run(rounds, large_rounds, alike=started_alike)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    sys.exit(main())
