"""What a durable budget costs: the latency of a grant, and CPU per request beside nginx.

First the ledger alone: 2,000 grants a second for capped keys on a loop that is busy half of the
time, each settled a moment later; in memory, in SQLite, in PostgreSQL. Then what a new key's first
grant waits for where the loop never sleeps: its block is taken by a thread that gets the
interpreter only because the loop stands still for it now and then. Then whole gateways on the
plain row of ``gateway.py``, in turns: nginx, helexa with nothing to keep, helexa with the default
ledger and no caps, and helexa with every key capped. All threads are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import click
import uvloop
from gateway import ROWS, rounds
from kit import peers, report
from kit.gateway import start_cortex, wait_until_served
from kit.process import Failed
from kit.stub import Stub

from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal
from helexa.cortex.ledger.base import Grant, Ledger, Settlement
from helexa.cortex.ledger.opening import MEMORY, OpenLedger

RATE = 2000
KEYS = 50
TURN_MS, BUSY = 2.0, 0.5
"""uvloop's timers count in milliseconds: a sleep of less is none, and the loop never idle."""
FULL_TURN_MS = 0.1
"""Of a loop that never rests: it lets go of the interpreter between its callbacks only."""
HOLD_S = 0.01
ESTIMATE, COST = 600, 150
CAP = 10**12
WARM_S = 1.0
"""Not measured but for the first grants: blocks grow to what a key needs."""
NEW_KEY_S = 0.3
"""As seldom as that each finds a batch under way, which nobody hurries on such a loop."""
GRANT_BAR_MS = 1.0
STARVED_BAR_MS = 50.0
PLAIN_BAR = 4.0


class Load:
    """Grants at a steady rate on a loop that has other things to do."""

    def __init__(
        self, opened: OpenLedger, seconds: float, turn_ms: float = TURN_MS, busy: float = BUSY
    ) -> None:
        self.book = opened.book
        self.spin_s, self.rest_s = busy * turn_ms / 1000, (1 - busy) * turn_ms / 1000
        self.who = [Principal("acme", f"key-{index}", caps=(Cap(CAP),)) for index in range(KEYS)]
        self.left = int(RATE * seconds)
        self.number = 0
        self.times: list[float] = []
        self.first: dict[int, float] = {}
        self.spun = 0.0
        self.tasks: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Every turn: a part of it busy, and the requests that are due."""
        began = self.loop.time()
        while self.number < self.left:
            due = int((self.loop.time() - began) * RATE)
            while self.number < min(due, self.left):
                self.number += 1
                self._one(self.number)
            spin = time.thread_time()
            until = time.perf_counter() + self.spin_s
            while time.perf_counter() < until:
                pass
            self.spun += time.thread_time() - spin
            await asyncio.sleep(self.rest_s)
        await asyncio.gather(*self.tasks)
        await asyncio.sleep(2 * HOLD_S)
        await self.book.written()

    def _one(self, number: int) -> None:
        asked = time.perf_counter()
        name = f"req_{number:09d}"
        found = self.book.grant(self.who[number % KEYS], name, 1, ESTIMATE)
        if isinstance(found, Grant):
            self._granted(number, name, asked)
            return

        async def wait() -> None:
            await found
            self._granted(number, name, asked)

        task = self.loop.create_task(wait())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _granted(self, number: int, name: str, asked: float) -> None:
        took = (time.perf_counter() - asked) * 1000
        self.first.setdefault(number % KEYS, took)
        if number > RATE * WARM_S:
            self.times.append(took)
        self.loop.call_later(HOLD_S, self._settle, name)

    def _settle(self, name: str) -> None:
        self.book.settle(Settlement(name, 1, COST - 50, 50, node="n", model="m"))


@contextlib.asynccontextmanager
async def ledger(url: str) -> AsyncIterator[OpenLedger]:
    """An open ledger whose life is looked after."""
    opened = OpenLedger(
        url, gateway="bench", epoch=time.time_ns(), lease_s=60, hold_wait_s=1, log=get_logger()
    )
    chore = asyncio.ensure_future(opened.run())
    try:
        yield opened
    finally:
        chore.cancel()
        await asyncio.wait([chore])
        await opened.close(clean=True)


async def latency(url: str, seconds: float) -> tuple[Load, float]:
    """The load that was run, and CPU µs of the process per request beyond the busy half."""
    async with ledger(url) as opened:
        load = Load(opened, seconds)
        await opened.book.learn(load.who)  # as a gateway does when it starts
        cpu = time.process_time()
        await load.run()
        return load, (time.process_time() - cpu - load.spun) / load.number * 1e6


async def starved(url: str, seconds: float) -> list[float]:
    """What new keys wait for their first grant while the loop never sleeps (ms)."""
    waits: list[float] = []

    async def newcomers(book: Ledger) -> None:
        for number in itertools.count():
            asked = time.perf_counter()
            found = book.grant(
                Principal("acme", f"new-{number}", caps=(Cap(CAP),)), f"new_{number}", 1, ESTIMATE
            )
            if not isinstance(found, Grant):
                await found
            waits.append((time.perf_counter() - asked) * 1000)
            await asyncio.sleep(NEW_KEY_S)

    async with ledger(url) as opened:
        load = Load(opened, seconds, turn_ms=FULL_TURN_MS, busy=1.0)
        await opened.book.learn(load.who)
        task = asyncio.ensure_future(newcomers(opened.book))
        await load.run()
        task.cancel()
        await asyncio.wait([task])
    return sorted(waits)


def latencies(folder: Path, url: str | None, seconds: float) -> list[report.Figure]:
    """The first part."""
    places = {"memory": MEMORY, "SQLite": f"sqlite://{folder}/ledger.db"}
    if url is not None:
        places["PostgreSQL"] = url
    figures, floor = [], 0.0
    for name, place in places.items():
        load, cpu = uvloop.run(latency(place, seconds + WARM_S))
        times, first = sorted(load.times), sorted(load.first.values())
        floor = floor or cpu
        note = f"p50 {times[len(times) // 2] * 1000:.1f} µs, longest {times[-1]:.2f} ms; "
        note += f"first grant of a key: p50 {first[len(first) // 2]:.2f} ms; "
        note += f"CPU {cpu:.1f} µs a request"
        note += f", {cpu - floor:+.1f} to memory" if name != "memory" else ""
        p99 = times[int(len(times) * 0.99)]
        label = f"grant, p99, {name}"
        figures.append(report.at_most(label, p99, GRANT_BAR_MS, "ms", note))
    waits = uvloop.run(starved(f"sqlite://{folder}/starved.db", seconds))
    label, half = "first grant of a key, SQLite, loop never idle", waits[len(waits) // 2]
    note = f"median of {len(waits)}; longest {waits[-1]:.1f} ms"
    return [*figures, report.at_most(label, half, STARVED_BAR_MS, "ms", note)]


def gateway_target(
    name: str, lines: str, cap: int | None
) -> Callable[[peers.Tools, Stub], peers.Target | None]:
    """A gateway with these further lines in its configuration."""

    def start(tools: peers.Tools, stub: Stub) -> peers.Target:
        folder = tools.scratch / name.replace(" ", "-").replace(",", "")
        folder.mkdir()
        process, port = start_cortex(folder, stub.urls, cap=cap, lines=lines)
        return peers.Target(name, port, process)

    return start


TARGETS = {
    "nginx": peers.nginx,
    "memory": gateway_target("memory", f'[ledger]\nurl = "{MEMORY}"\n', None),
    "durable": gateway_target("durable", "", None),
    "capped": gateway_target("capped", "", CAP),
}


def plain_rows(count: int, seconds: float) -> list[report.Figure]:
    """The second part."""
    row = ROWS[0]
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        stub = Stub(scratch)
        stack.callback(stub.stop)
        targets = []
        for start in TARGETS.values():
            target = start(peers.Tools(None, scratch), stub)
            if target is not None:
                stack.callback(target.process.stop)
                targets.append(target)
        for target in targets:
            wait_until_served(target)
        cells = rounds(stub, targets, [row], count, seconds)
    costs = {target.name: cells[target.name, row] for target in targets}
    nginx = statistics.median(costs["nginx"].costs) if "nginx" in costs else None
    figures = []
    for name in ("memory", "durable", "capped"):
        cost = costs[name].cost
        note = f"{cost:.1f} µs; {cost - costs['memory'].cost:+.1f} to nothing kept"
        label = f"plain request, {name}, to nginx"
        figures.append(
            report.at_most(label, cost / nginx, PLAIN_BAR, "×", note)
            if nginx
            else report.not_measured(label, f"≤ {PLAIN_BAR:g} ×", "nginx not installed")
        )
    errors = sum(cell.errors for cell in costs.values())
    return [*figures, report.at_most("errors", errors, 0, "")]


@contextlib.contextmanager
def postgres(url: str | None) -> Iterator[str | None]:
    """The given database, or one of a server of our own if it is installed."""
    if url is not None:
        yield url
        return
    sys.path.insert(0, str(report.ROOT))
    try:
        from tests import postgres as servers  # noqa: PLC0415
    except ImportError:
        yield None
        return
    if servers.binaries() is None:
        yield None
        return
    with servers.server() as server:
        yield server.database()


@click.command(help=__doc__)
@click.option("--seconds", default=5.0, show_default=True, help="Length of one measurement.")
@click.option("--rounds", "count", default=3, show_default=True, help="Of the gateways.")
@click.option("--postgres", "url", help="A database to use.  [default: a server of its own]")
@click.option("--only", type=click.Choice(["grants", "gateways"]), help="One part of it.")
@report.json_option
def main(
    seconds: float, count: int, url: str | None, only: str | None, json_file: Path | None
) -> None:
    command = f"python benchmarks/ledger.py --seconds {seconds:g} --rounds {count}"
    found = report.report("ledger", "the price of a durable budget", command)
    try:
        if only != "gateways":
            with postgres(url) as place, tempfile.TemporaryDirectory() as folder:
                found.figures += latencies(Path(folder), place, seconds)
        if only != "grants":
            found.figures += plain_rows(count, min(seconds, 3.0))
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
