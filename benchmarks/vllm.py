"""Tokens per second through a node against bare vLLM, at one and eight streams.

Two vLLM servers with the same arguments and the same model, one of them started by a node. They
take turns, each first every other time; the one that waits is stopped (SIGSTOP), because idle
workers spin. The model is the built-in one: the smaller the model, the more a hop would show.
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
from pathlib import Path

import click
import msgspec
from kit import chat, report
from kit.node import Node
from kit.process import Failed, Process, cpu_seconds, free_port, tree

from helexa import spark
from helexa.neuron.engines.base import Host
from helexa.neuron.engines.vllm.build import find_build
from helexa.neuron.engines.vllm.engine import Vllm
from helexa.neuron.models.inspect import inspect

BAR = 0.97
STREAMS = (1, 8)
SLOTS = 10
SETTINGS = """
[engines.vllm]
python = "{python}"
args = ["--max-num-seqs", "{slots}"]
[admission]
reserve_seats = 0
"""


def start_bare(scratch: Path, model: str, engine: Vllm) -> tuple[Process, int]:
    """The server alone, with the arguments a node would give it."""
    facts = inspect(spark.safetensors_dir(), model)
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


async def one_round(port: int, model: str, streams: int, tokens: int, answers: int) -> float:
    """Tokens per second of ``streams`` clients that ask one after the other."""

    async def client(number: int) -> int:
        count = 0
        for turn in range(answers):
            text = f"Repeat: river stone {number} {turn}"
            switch = {"chat_template_kwargs": {"enable_thinking": False}}
            found = await chat.ask(port, chat.body(model, text, tokens, **switch))
            if not found.whole or found.tokens != tokens:
                raise Failed(f"an answer broke off: {found.status} {bytes(found.raw[-300:])!r}")
            count += found.tokens
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(client(number) for number in range(streams)))
    return sum(counts) / (time.perf_counter() - began)


def run(rounds: int, tokens: int, answers: int) -> report.Report:
    """Measure both in turns."""
    command = f"python benchmarks/vllm.py --rounds {rounds} --tokens {tokens} --answers {answers}"
    found = report.report("vllm", "tokens/s through a node, to bare vLLM", command)
    build = find_build(None, os.environ)
    if build is None:
        bar = f"≥ {BAR}"
        why = "vLLM is not installed (make vllm-env)"
        found.figures += [report.not_measured(name_of(n), bar, why) for n in STREAMS]
        return found
    model = str(spark.safetensors_dir())
    args = ["--max-num-seqs", str(SLOTS)]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        bare, bare_port = start_bare(scratch, model, Vllm(os.environ, build, args))
        stack.callback(stop, bare)
        wait_until_ready(bare, bare_port)
        settings = SETTINGS.format(python=build.python, slots=SLOTS)
        node = Node(scratch / "node", settings)
        stack.callback(node.stop)
        status, loaded = node.ask("/models/load", {"model_id": model}, timeout=400)
        if status != 200:
            raise Failed(f"vLLM did not load: {loaded}")
        engine = [pid for pid in tree([node.process.pid]) if pid != node.process.pid]
        sides = {"bare": (bare_port, tree([bare.pid])), "node": (node.port, engine)}
        for _, pids in sides.values():
            with awake(pids):
                pass
        stack.callback(wake, [pid for _, pids in sides.values() for pid in pids])
        rates: dict[tuple[str, int], list[float]] = {}
        spent = dict.fromkeys(sides, 0.0)
        for turn in range(-1, rounds):  # the first one warms both up
            for streams in STREAMS:
                for name in sorted(sides, reverse=turn % 2 == 0):
                    port, pids = sides[name]
                    with awake(pids):
                        before = cpu_seconds([-node.process.pid])
                        rate = asyncio.run(one_round(port, model, streams, tokens, answers))
                        cost = cpu_seconds([-node.process.pid]) - before
                    if turn >= 0:
                        rates.setdefault((name, streams), []).append(rate)
                        spent[name] += cost / (streams * tokens * answers)
    found.figures += figures(rates, spent["node"] / (rounds * len(STREAMS)))
    return found


def wake(pids: list[int]) -> None:
    """Let what was stopped hear that it is to end."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def stop(process: Process) -> None:
    """End a server that may be stopped."""
    wake(tree([process.pid]))
    process.stop(10.0)


def name_of(streams: int) -> str:
    """A figure's name."""
    return f"tokens/s at {streams} stream{'s' if streams > 1 else ''}, through the node to bare"


def figures(rates: dict[tuple[str, int], list[float]], cpu_s: float) -> list[report.Figure]:
    """The bar at each number of streams: upper quartiles, for what else runs only slows down."""
    made = []
    for streams in STREAMS:
        bare, node = (_upper(rates[name, streams]) for name in ("bare", "node"))
        note = f"{node:.0f} and {bare:.0f} tokens/s; the node's own {cpu_s * 1e6:.0f} µs a token"
        made.append(report.at_least(name_of(streams), node / bare, BAR, "×", note))
    return made


def _upper(values: list[float]) -> float:
    return statistics.quantiles(values, n=4)[2] if len(values) > 1 else values[0]


@click.command(help=__doc__)
@click.option("--rounds", default=16, show_default=True)
@click.option("--tokens", default=128, show_default=True, help="Of every answer.")
@click.option("--answers", default=1, show_default=True, help="Of every client in a round.")
@report.json_option
def main(rounds: int, tokens: int, answers: int, json_file: Path | None) -> None:
    try:
        found = run(rounds, tokens, answers)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    sys.exit(main())
