"""Four real nodes under load: the split, a node that dies, one that joins, and cancels at random.

Gateway and nodes are real processes; the engines take time and no processor (``slow_neuron.py``).
Lanes of streamed requests with distinct prompts keep the fleet busy all the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click
import uvloop
from kit import report
from kit.chat import Answer, ask, body
from kit.fleet import KEY, SlowFleet
from kit.node import SPARK
from kit.process import Failed

LANES, TOKENS = 24, 12
HEADERS = {"authorization": f"Bearer {KEY}"}
WORDS = [f"word{index}" for index in range(2000)]


class Lanes:
    """Clients that ask all the time.

    Args:
        cancel: Share of requests that are left early.
    """

    def __init__(self, port: int, seed: int, cancel: float = 0.0) -> None:
        self.port = port
        self.answers: list[Answer] = []
        self.asked = 0
        self._rng = random.Random(seed)
        self._cancel = cancel

    async def run(self, until: Callable[[], bool]) -> None:
        """Ask in ``LANES`` lanes until that is true, and wait for what is under way."""
        await asyncio.gather(*(self._lane(until) for _ in range(LANES)))

    async def _lane(self, until: Callable[[], bool]) -> None:
        rng = self._rng
        while not until():
            self.asked += 1
            payload = body(SPARK, " ".join(rng.choices(WORDS, k=40)), TOKENS)
            leave = None
            if rng.random() < self._cancel:
                leave = rng.choice((0, 1, 200, 600, 1500))
                # Some leave before there is an answer, some while it comes.
                if not leave:
                    await self._left_early(payload, rng.random() * 0.2)
                    continue
            answer = await ask(self.port, payload, headers=HEADERS, leave_after=leave, within_s=60)
            self.answers.append(answer)

    async def _left_early(self, payload: bytes, after_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(after_s):
                await ask(self.port, payload, headers=HEADERS)

    def by_node(self) -> Counter[str]:
        """Answers by the node they came from."""
        return Counter(a.header("x-helexa-node") for a in self.answers if a.status)


async def split(fleet: SlowFleet, requests: int) -> report.Figure:
    """Equal nodes, distinct prompts."""
    lanes = Lanes(fleet.port, 1)
    await lanes.run(lambda: lanes.asked >= requests)
    counts = lanes.by_node()
    mean = sum(counts.values()) / len(fleet.nodes)
    worst = max(abs(counts[name] - mean) / mean for name in fleet.nodes)
    note = ", ".join(f"{counts[name]}" for name in fleet.nodes)
    return report.at_most("split: farthest from even", 100 * worst, 10, "%", note)


async def kill(fleet: SlowFleet, victim: str, seconds: float) -> list[report.Figure]:
    """A node and its engine die at once, in the middle of everything."""
    lanes, over = Lanes(fleet.port, 2), False
    running = asyncio.create_task(lanes.run(lambda: over))
    await asyncio.sleep(seconds / 3)
    for pid in fleet.nodes[victim].pids():
        os.kill(pid, signal.SIGKILL)
    await asyncio.sleep(seconds * 2 / 3)
    over = True
    await running
    lost = [a for a in lanes.answers if not a.whole]
    own = [a for a in lost if a.header("x-helexa-node") == victim]
    for answer in lost:
        if answer not in own:
            said = bytes(answer.head[:300] + answer.raw[-400:])
            click.echo(f"lost: {answer.status} {answer.first} {said!r}", err=True)
    silent = [a for a in own if b'"error"' not in a.raw]
    note = f"of {len(lanes.answers)}; {len(own)} had begun on the node that died"
    return [
        report.at_most("kill -9: lost that had not begun there", len(lost) - len(own), 0, "", note),
        report.at_most("kill -9: streams that ended without an error event", len(silent), 0, ""),
    ]


async def join(fleet: SlowFleet, name: str) -> report.Figure:
    """From telling the gateway about a node to its first answer, under load."""
    node = await asyncio.to_thread(fleet.start_node, name)
    lanes = Lanes(fleet.port, 3)
    began = time.perf_counter()
    first = 0.0

    def used() -> bool:
        nonlocal first
        now = time.perf_counter()
        if not first and lanes.by_node()[name]:
            first = now - began
        return bool(first) or now - began > 20

    order = {"name": name, "endpoint": node.url}
    await asyncio.gather(lanes.run(used), asyncio.to_thread(fleet.get, "/admin/nodes", order))
    return report.at_most("a new node's first answer after", first or 99.0, 2, "s")


async def cancels(fleet: SlowFleet, requests: int) -> list[report.Figure]:
    """Clients that leave whenever they like; then nothing may be held anywhere."""
    lanes = Lanes(fleet.port, 4, cancel=0.5)
    await lanes.run(lambda: lanes.asked >= requests)
    held = await quiet(fleet)
    failed = [a for a in lanes.answers if a.status not in (0, 200)]
    note = f"{lanes.asked} requests, {sum(a.whole for a in lanes.answers)} read to their end"
    return [
        report.at_most(f"held after random cancels: {name}", count, 0, "", note)
        for name, count in held.items()
    ] + [report.at_most("refused among them", len(failed), 0, "")]


async def quiet(fleet: SlowFleet) -> dict[str, int]:
    """What is still held once everything is over, or after 20 s."""
    held: dict[str, int] = {}
    for _ in range(200):
        held = await asyncio.to_thread(_held, fleet)
        if not any(held.values()):
            break
        await asyncio.sleep(0.1)
    return held


def _held(fleet: SlowFleet) -> dict[str, int]:
    alive = [node for node in fleet.nodes.values() if node.process.alive]
    figures = [node.figures(SPARK) for node in alive]
    return {
        "leases at the gateway": sum(n["leases"] for n in fleet.get("/admin/fleet")["nodes"]),
        "grants at the gateway": len(fleet.get("/admin/grants")["grants"]),
        "seats and queues at the nodes": sum(f["in_flight"] + f["queue_depth"] for f in figures),
        "KV cells at the nodes": sum(f["kv_used_tokens"] for f in figures),
    }


async def run(requests: int, seconds: float, scratch: Path) -> report.Report:
    """One thing after the other, on one fleet."""
    command = f"python benchmarks/fleet.py --requests {requests}"
    found = report.report("fleet", "four real nodes under load", command)
    fleet = SlowFleet(scratch, 4)
    running = asyncio.current_task()
    if running is not None:  # an exit from within a callback of the loop would be swallowed
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    try:
        async with asyncio.timeout(60):
            while len(fleet.serving()) < 4:
                await asyncio.sleep(0.05)
        found.figures.append(await split(fleet, max(960, requests // 10)))
        found.figures += await cancels(fleet, requests)
        found.figures += await kill(fleet, "node-1", seconds)
        found.figures.append(await join(fleet, "node-4"))
    finally:
        fleet.stop()
    return found


@click.command(help=__doc__)
@click.option("--requests", default=10_000, show_default=True, help="With random cancels.")
@click.option("--seconds", default=9.0, show_default=True, help="Of load around the death.")
@report.json_option
def main(requests: int, seconds: float, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            found = uvloop.run(run(requests, seconds, Path(scratch)))
        except (Failed, OSError, TimeoutError, asyncio.CancelledError) as error:
            raise click.ClickException(str(error) or "nothing came in time") from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
