"""Two callers compete for a node: one keeps 64 requests outstanding, the other 8, then 1.

The same requests from both, eight seats. Seats go by tokens, not by requests or by who asks most:
the pushy one's share of the output stays near a half, and whoever asks for one answer at a time
does not wait.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import uvloop
from kit import report
from kit.chat import Answer, ask, body
from kit.node import SPARK, Node
from kit.process import Failed
from kit.report import Figure, Report

SETTINGS = """
[engines.llamacpp]
slots = 8
[admission]
max_queue_depth = 128
max_wait_secs = 300
"""


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


def run(seconds: float) -> Report:
    """Start a node, let them compete."""
    command = f"python benchmarks/fairness.py --seconds {seconds:g}"
    found = report.report("fairness", "two callers compete for eight seats", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        node = Node(Path(scratch) / "node", SETTINGS)
        try:
            node.load(SPARK)
            found.figures += uvloop.run(fairness(node, seconds))
        finally:
            node.stop()
    return found


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long they compete.")
@report.json_option
def main(seconds: float, json_file: Path | None) -> None:
    try:
        found = run(seconds)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
