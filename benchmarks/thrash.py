"""Two models that fit one at a time, and a client for each that never stops asking.

How often they are swapped, how long anyone waits, and what is lost against a fixed rota of the
same turns on the same node, which is told who comes next and waits for nobody.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import click
import uvloop
from kit import report
from kit.chat import ask, body
from kit.process import Failed
from kit.standstill import Standstill
from kit.swap import SLOTS, Swap

from helexa.cortex.residency.world import Rules

TOKENS = 20
ANSWER_S = 2.0
"""More than the longest answer: what a place that is about to go may still take to end."""


class Client:
    """Keeps ``SLOTS`` requests for one model under way while it may."""

    def __init__(self, port: int, model: str, clock: Standstill) -> None:
        self.port = port
        self.clock = clock
        self.model = model
        self.may = asyncio.Event()
        self.may.set()
        self.waits: list[float] = []
        self.failed: list[str] = []
        self.done = 0

    async def run(self) -> None:
        """Until cancelled."""
        await asyncio.gather(*(self._lane() for _ in range(SLOTS)))

    async def _lane(self) -> None:
        payload = body(self.model, "Say something.", TOKENS)
        while True:
            await self.may.wait()
            answer = await ask(self.port, payload)
            if answer.whole:
                self.done += 1
                self.waits.append(self.clock.between(answer.began, answer.first))
            else:
                self.failed.append(bytes(answer.raw or answer.head)[-600:].decode())


async def asking(swap: Swap, seconds: float, clock: Standstill) -> list[Client]:
    """Both clients at the gateway for so long."""
    clients = [Client(swap.port, model, clock) for model in swap.models]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(client.run()) for client in clients]
        await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()
    return clients


async def rota(swap: Swap, turn: float, clock: Standstill) -> float:
    """Requests per second of a fixed rota at the node itself: one turn each, and the swaps."""
    done, began = 0, time.perf_counter()
    for model in swap.models:
        await asyncio.to_thread(swap.node.load, model)
        client = Client(swap.node.port, model, clock)
        running = asyncio.create_task(client.run())
        await asyncio.sleep(turn)
        client.may.clear()
        await swap.node.quiet(model)
        running.cancel()
        await asyncio.wait([running])
        await asyncio.to_thread(swap.node.ask, "/models/unload", {"model_id": model})
        done += client.done
    return done / clock.between(began, time.perf_counter())


async def run(seconds: float, load_s: float, residency: float, scratch: Path) -> report.Report:
    """Start, ask, compare."""
    command = f"python benchmarks/thrash.py --seconds {seconds:g} --load-secs {load_s:g}"
    command += f" --min-residency-secs {residency:g}"
    found = report.report("thrash", "Two models that fit one at a time.", command)
    swap = Swap(scratch, load_s, f"min_residency_secs = {residency}")
    try:
        async with Standstill() as clock:
            turn = Rules(min_residency_s=residency).turn(load_s)
            best = await rota(swap, turn, clock)
            await swap.ready()
            began = time.perf_counter()
            clients = await asking(swap, seconds, clock)
            elapsed = clock.between(began, time.perf_counter())
        swaps = [datetime.fromisoformat(e["ts"]).timestamp() for e in swap.events("model unloaded")]
    finally:
        swap.stop()
    for failure in [f for client in clients for f in client.failed][:5]:
        click.echo(failure, err=True)
    rate = sum(client.done for client in clients) / elapsed
    longest = max((wait for client in clients for wait in client.waits), default=seconds)
    gap = min((after - before for before, after in pairwise(swaps)), default=seconds)
    bound = turn + 2 * (ANSWER_S + load_s + 1.0) + turn
    found.figures += [
        report.at_least("least time between two swaps", gap, turn, "s", f"{len(swaps)} swaps"),
        report.at_most("longest wait for a first token", longest, bound, "s", stood_still(clock)),
        report.at_least(
            "requests/s ÷ fixed rota", rate / best, 0.8, "", f"{rate:.1f} / {best:.1f}"
        ),
        report.at_most("requests that failed", sum(len(c.failed) for c in clients), 0, ""),
    ]
    return found


def stood_still(clock: Standstill) -> str:
    """What was taken out, if anything was."""
    return f"without {clock.total:.0f} s in which the machine stood still" if clock.total else ""


@click.command(help=__doc__)
@click.option("--seconds", default=300.0, show_default=True)
@click.option("--load-secs", default=3.0, show_default=True)
@click.option("--min-residency-secs", default=10.0, show_default=True)
@report.json_option
def main(
    seconds: float, load_secs: float, min_residency_secs: float, json_file: Path | None
) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            found = uvloop.run(run(seconds, load_secs, min_residency_secs, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
