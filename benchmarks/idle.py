"""What helexa costs while nobody asks anything: CPU time per second, and how often it wakes.

A gateway before eight nodes without event streams, which it has to poll, and one before a real
node, whose events it hears; that node without a model, and with the built-in one, its engine by
itself. Everything sits still in the same seconds.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
from kit import report
from kit.gateway import start_cortex
from kit.node import SPARK, Node
from kit.process import Failed, cpu_seconds, tree
from kit.report import Report, TableData
from kit.stub import Stub

SETTLED_S = 3.0
GATEWAY_BAR, NODE_BAR, ENGINE_BAR = 10.0, 10.0, 1.0  # one percent of a core is nothing
"""CPU ms a second."""


@dataclass(frozen=True)
class Still:
    """A process that has nothing to do."""

    name: str
    pid: int
    bar: float


@dataclass(frozen=True)
class Spent:
    """What it did all the same, a second."""

    cpu_ms: float
    wakes: float


def wakes(pid: int) -> int:
    """How often its threads went to sleep of themselves so far."""
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                found += int(line.rpartition(":")[2])
    return found


def measure(processes: Iterable[Still], seconds: float) -> list[tuple[Still, Spent]]:
    """All of them, in the same ``seconds``; their children are not counted."""
    before = [(still, cpu_seconds([-still.pid]), wakes(still.pid)) for still in processes]
    began = time.perf_counter()
    time.sleep(seconds)
    took = time.perf_counter() - began
    return [
        (
            still,
            Spent((cpu_seconds([-still.pid]) - cpu) / took * 1e3, (wakes(still.pid) - n) / took),
        )
        for still, cpu, n in before
    ]


def loaded(folder: Path) -> tuple[Node, int]:
    """A node with the built-in model, and the process of its engine."""
    node = Node(folder)
    node.load(SPARK)
    (engine,) = set(tree([node.process.pid])) - {node.process.pid}
    return node, engine


def started(scratch: Path, stack: ExitStack) -> list[Still]:
    """Everything that is to sit still, as it will."""
    stub = Stub(scratch)
    stack.callback(stub.stop)
    empty = Node(scratch / "empty")
    stack.callback(empty.stop)
    node, engine = loaded(scratch / "loaded")
    stack.callback(node.stop)
    gateways = []
    for name, urls in (("polls", stub.urls), ("hears", [node.url])):
        (scratch / name).mkdir()
        process, _ = start_cortex(scratch / name, urls, core=None)
        stack.callback(process.stop)
        gateways.append(process.pid)
    return [
        Still("gateway, eight nodes that it polls", gateways[0], GATEWAY_BAR),
        Still("gateway, one node with events", gateways[1], GATEWAY_BAR),
        Still("node without a model", empty.process.pid, NODE_BAR),
        Still(f"node with {SPARK}", node.process.pid, NODE_BAR),
        Still(f"engine of {SPARK}", engine, ENGINE_BAR),
    ]


def run(seconds: float) -> Report:
    """Start, wait, measure, stop."""
    command = f"python benchmarks/idle.py --seconds {seconds:g}"
    found = report.report("idle", "what it costs while nobody asks", command)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-idle-")))
        processes = started(scratch, stack)
        time.sleep(SETTLED_S)
        spent = measure(processes, seconds)
    rows = [[still.name, f"{s.cpu_ms:.2f}", f"{s.wakes:.0f}"] for still, s in spent]
    found.tables.append(TableData("A second of nothing", ["", "CPU ms", "times woken"], rows))
    found.figures += [report.at_most(f"{p.name}, idle", s.cpu_ms, p.bar, "ms/s") for p, s in spent]
    return found


@click.command(help=__doc__)
@click.option("--seconds", default=20.0, show_default=True)
@report.json_option
def main(seconds: float, json_file: Path | None) -> None:
    try:
        found = run(seconds)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
