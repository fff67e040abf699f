"""Random faults on a node while clients keep asking: it stays up, answers or refuses, and recovers.

kill -9 and SIGSTOP of the engine, a truncated file, a memory limit on the engine, an engine whose
port is refused, a full disk. Every request is answered whole, refused, or ends in an error event;
after the last fault the daemon's memory, descriptors and processes are what they were at the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from kit import report
from kit.chat import ask, body
from kit.mortal import engine_pid
from kit.node import SPARK, Node
from kit.process import Failed, tree

from helexa.spark import gguf_path

SETTINGS = """
[engines.llamacpp]
slots = 4
[life]
watchdog_secs = 1.5
unload_secs = 0.5
[admission]
max_queue_depth = 32
max_wait_secs = 20
"""
LANES = 4
RECOVERY_SECS = 45.0
LEAST_TRIES = 100
"""A machine that stood still (a suspended guest) has not been given its seconds."""
AFRESH = 2
"""After so many faults the model is loaded afresh, or the pauses before a restart grow to 30 s."""
SLACK_MB, SLACK_FDS = 20.0, 4
"""Cyclic garbage is collected every 50,000 objects, so memory is a saw with teeth of some MiB."""
REFUSALS = frozenset((400, 404, 429, 502, 503, 504))


class Clients:
    """Ask all the time, and judge what comes back."""

    def __init__(self, node: Node, seed: int) -> None:
        self.node = node
        self.rng = random.Random(seed)
        self.ends: Counter[str] = Counter()
        self.unclean: list[str] = []
        self.over = False

    async def run(self) -> None:
        """Until ``over``."""
        await asyncio.gather(*(self._lane(number) for number in range(LANES)))

    async def _lane(self, lane: int) -> None:
        while not self.over:
            tokens, stream = self.rng.choice((2, 40, 400)), self.rng.random() < 0.7
            payload = body(SPARK, f"Count from {lane}.", tokens, stream=stream)
            try:
                answer = await ask(self.node.port, payload, within_s=60)
            except TimeoutError:
                self._note("silent", f"no end of a {tokens}-token answer in 60 s")
                continue
            raw = bytes(answer.raw)
            if answer.whole or (answer.status == 200 and not stream and b'"usage"' in raw):
                self._note("answered")
            elif answer.status == 200 and b'"error"' in raw and b"[DONE]" not in raw:
                self._note("error event")
            elif answer.status in REFUSALS and b'"code"' in raw:
                self._note("refused")
                await asyncio.sleep(0.05)
            else:
                self._note("unclean", f"{answer.status}: {raw[-200:]!r}")

    def _note(self, end: str, fault: str | None = None) -> None:
        self.ends[end] += 1
        if fault is not None:
            self.unclean.append(fault)


class Faults:
    """What is done to the node, each by its name."""

    def __init__(self, node: Node, scratch: Path) -> None:
        self.node = node
        self.copy = scratch / "copy.gguf"
        self.all: dict[str, Callable[[], Awaitable[None]]] = {
            "kill -9": self.kill,
            "SIGSTOP": self.stop,
            "truncated file": self.truncate,
            "memory limit": self.limit_memory,
            "refused port": self.refuse,
            "full disk": self.fill_disk,
        }

    def engine(self) -> int | None:
        """The process id of spark's engine."""
        return engine_pid(self.node.folder / "state")

    async def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def stop(self) -> None:
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.engine()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def truncate(self) -> None:
        """A second model whose file ends in the middle: its load fails, the others go on."""
        whole = gguf_path().read_bytes()
        self.copy.write_bytes(whole[: len(whole) // 2])
        status, found = await asyncio.to_thread(
            self.node.ask, "/models/load", {"model_id": str(self.copy)}
        )
        if status == 200:
            raise Failed(f"half a file was loaded: {found}")
        await asyncio.to_thread(self.node.ask, "/models/unload", {"model_id": str(self.copy)})

    async def limit_memory(self) -> None:
        """The engine may not have another page: its next allocation fails."""
        pid = self.engine()
        if pid is None:
            return
        with contextlib.suppress(OSError, ValueError):
            used = address_space(pid)
            resource.prlimit(pid, resource.RLIMIT_AS, (used, used))
            await asyncio.sleep(0.5)
            self._signal(signal.SIGKILL)  # as the kernel does when memory is gone

    async def refuse(self) -> None:
        """The engine may open nothing any more: connections to its port are not accepted."""
        pid = self.engine()
        if pid is None:
            return
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3))
            await asyncio.sleep(0.5)
        self._signal(signal.SIGKILL)

    async def fill_disk(self) -> None:
        """Nothing the node writes finds room while a model comes and goes."""
        pid = self.node.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
        try:
            shutil.copy(gguf_path(), self.copy)
            for path in ("/models/load", "/models/unload"):
                await asyncio.to_thread(self.node.ask, path, {"model_id": str(self.copy)})
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def address_space(pid: int) -> int:
    """Bytes of address space a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


async def recovered(node: Node) -> float:
    """Seconds until the model answers again.

    Raises:
        Failed: The daemon is gone, or the model did not come back in time.
    """
    began, tries = time.perf_counter(), 0
    while time.perf_counter() - began < RECOVERY_SECS or tries < LEAST_TRIES:
        tries += 1
        if not node.process.alive:
            raise Failed(f"the daemon died: {node.process.last_words()}")
        answer = await ask(node.port, body(SPARK, "Count.", 2), within_s=RECOVERY_SECS)
        if answer.whole:
            return time.perf_counter() - began
        await asyncio.sleep(0.1)
    raise Failed(f"not back after {RECOVERY_SECS:.0f} s: {node.ask('/models')[1]}")


async def afresh(node: Node, number: int) -> None:
    """Load the model anew where its turn has come, after the fault of that number."""
    if number % AFRESH == AFRESH - 1:
        for path in ("/models/unload", "/models/load"):
            await asyncio.to_thread(node.ask, path, {"model_id": SPARK})


def standing(node: Node) -> dict[str, float]:
    """Memory of the daemon, its descriptors, and how many processes there are."""
    pid = node.process.pid
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {
        "MiB": pages * resource.getpagesize() / 2**20,
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "processes": len(tree([pid])),
    }


async def settled(node: Node, before: dict[str, float]) -> dict[str, float]:
    """How it stands once connections have gone, or after 10 s."""
    now = standing(node)
    for _ in range(100):
        now = standing(node)
        same = now["processes"] == before["processes"]
        if same and now["descriptors"] <= before["descriptors"] + SLACK_FDS:
            break
        await asyncio.sleep(0.1)
    return now


async def run(count: int, seed: int, scratch: Path) -> report.Report:
    """Fault after fault."""
    command = f"python benchmarks/chaos.py --faults {count} --seed {seed}"
    found = report.report("chaos", "random faults while clients keep asking", command)
    node = Node(scratch / "node", SETTINGS)
    faults = Faults(node, scratch)
    rng = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in faults.all}
    try:
        node.load(SPARK)
        clients = Clients(node, seed)
        asking = asyncio.create_task(clients.run())
        for number, fault in enumerate(faults.all.values()):  # what is made once is made now
            await fault()
            await recovered(node)
            await afresh(node, number)
        before = standing(node)
        names = list(faults.all) * (count // len(faults.all))
        names += rng.sample(list(faults.all), count - len(names))
        rng.shuffle(names)
        for number, name in enumerate(names):
            await asyncio.sleep(rng.random() * 0.5)
            await faults.all[name]()
            times[name].append(await recovered(node))
            await afresh(node, number)
            memory = standing(node)["MiB"]
            took = times[name][-1]
            click.echo(f"{number + 1}/{count}: {name}: {took:.1f} s, {memory:.0f} MiB", err=True)
        clients.over = True
        await asking
        after = await settled(node, before)
        figures = await node.quiet(SPARK)
    finally:
        node.stop()
    found.tables.append(_table(times))
    found.figures += _figures(clients, before, after, figures)
    return found


def _table(times: dict[str, list[float]]) -> report.TableData:
    rows = [[name, f"{len(each)}", f"{max(each, default=0):.1f}"] for name, each in times.items()]
    return report.TableData("Faults", ["", "times", "longest until it answers, s"], rows)


def _figures(
    clients: Clients, before: dict[str, float], after: dict[str, float], load: dict[str, Any]
) -> list[report.Figure]:
    ends = ", ".join(f"{count} {name}" for name, count in clients.ends.most_common())
    grown = {name: after[name] - before[name] for name in before}
    held = load.get("in_flight", -1) + load.get("kv_used_tokens", -1)
    for fault in clients.unclean[:5]:
        click.echo(fault, err=True)
    return [
        report.at_most("requests that did not end cleanly", len(clients.unclean), 0, "", ends),
        report.at_most("memory grown", grown["MiB"], SLACK_MB, "MiB", f"from {before['MiB']:.0f}"),
        report.at_most("descriptors left", grown["descriptors"], SLACK_FDS, ""),
        report.at_most("processes left", abs(grown["processes"]), 0, ""),
        report.at_most("seats and cells left", held, 0, ""),
    ]


@click.command(help=__doc__)
@click.option("--faults", "count", default=50, show_default=True)
@click.option("--seed", default=1, show_default=True)
@report.json_option
def main(count: int, seed: int, json_file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            found = uvloop.run(run(count, seed, Path(scratch)))
        except (Failed, OSError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
