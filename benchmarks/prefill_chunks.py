"""What the size of a prefill chunk costs, and how soon a prompt that is cancelled ends.

One engine process for each setting, as the node starts it, with a model of random weights in the
shape of Qwen3-0.6B. A long prompt is read once for its speed; then the same prompt is dropped at
three places, several times each, and the engine asked until its slot is free: always just after a
chunk has ended, so that the whole of the next is in front of it. The server hears of it when it
writes that chunk's progress, and has begun another chunk by then or not: how often it had not is
told too. Tokens per CPU second are those of all its threads: on a machine with other work only they
can be compared.

The second table is of a chunk that takes seconds, dropped at its beginning, with the node's own
account of slots: asking the engine for its slots all the time, and leaving it alone for a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import click
import msgspec
import uvloop
from kit import report
from kit.engine import bare_engine
from kit.process import Failed, cpu_seconds
from kit.report import Figure

from helexa.neuron.engines.base import Address
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.models.synthetic import QUANTS, QWEN3_0_6B, write_model
from helexa.neuron.slots import QUIET_AFTER_S, Slots

SETTINGS = ((64, "auto"), (64, "off"), (32, "off"), (16, "auto"), (16, "off"), (8, "auto"))
PLACES, CANCELS = 3, 12
ONE_CHUNK = 1.4
"""Of a chunk's mean time: later ones take longer."""
PATIENCE_S = 900.0
LONG_CHUNK = 768
"""Takes seconds, so that a second without answers comes before its end."""


Rows = list[list[str]]


class Engine:
    """One running engine."""

    def __init__(self, engine: LlamaCpp, address: Address, pid: int) -> None:
        self.engine = engine
        self.address = address
        self.pid = pid

    async def read(self, tokens: int, until: int) -> tuple[float, float]:
        """Have a prompt read until so many of its tokens are; seconds and CPU seconds for them.

        The connection is dropped then.
        """
        body = {"prompt": [5 + n % 900 for n in range(tokens)], "max_tokens": 1, "stream": True}
        raw = json.dumps(body | {"return_progress": True, "cache_prompt": False}).encode()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.address.uds or "")
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        computed, began = cpu_seconds([self.pid]), time.perf_counter()
        key = self.address.api_key.encode()
        head = b"POST /v1/completions HTTP/1.1\r\nhost: e\r\nauthorization: Bearer %b\r\n" % key
        writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(raw), raw))
        try:
            while True:
                line = await reader.readline()
                if not line:
                    raise Failed("the engine broke off")
                if _processed(line) >= until:
                    seconds = time.perf_counter() - began
                    return seconds, cpu_seconds([self.pid]) - computed
        finally:
            writer.transport.abort()

    async def free(self) -> float:
        """Seconds until no slot is busy."""
        began = time.perf_counter()
        while await self._running():
            await asyncio.sleep(0.002)
        return time.perf_counter() - began

    async def let_go(self, tokens: int, quiet_after_s: float) -> float:
        """Seconds until the node knows that a prompt has left, dropped at its beginning."""
        gone = asyncio.Event()
        slots = Slots(self._running, time.monotonic, PATIENCE_S, quiet_after_s)
        await self.read(tokens, 0)
        began = time.perf_counter()
        slots.leave("it", 1, lambda _seen: gone.set())
        await gone.wait()
        return time.perf_counter() - began

    async def _running(self) -> int:
        return (await self.engine.load(self.address)).running


def _processed(line: bytes) -> int:
    at = line.find(b'"processed":')
    return int(line[at + 12 : line.index(b",", at)]) if at > 0 else -1


@contextlib.asynccontextmanager
async def running(path: Path, chunk: int, attention: str, scratch: Path) -> AsyncIterator[Engine]:
    """An engine with chunks of so many tokens."""
    extra = {"batch": chunk, "flash_attention": attention}
    wanted = {"slots": 1, "ctx": 4096, "gpu_layers": 0, "extra": extra}
    async with bare_engine(path, "m", scratch, wanted) as (address, pid):
        yield Engine(LlamaCpp(os.environ), address, pid)


async def by_chunk(tokens: int, path: Path, scratch: Path) -> tuple[Rows, dict[str, float]]:
    """A row for each setting, and how long cancels took at worst (ms)."""
    rows, worst = [], {}
    for chunk, attention in SETTINGS:
        async with (
            asyncio.timeout(PATIENCE_S),
            running(path, chunk, attention, scratch / f"{chunk}{attention}") as engine,
        ):
            seconds, computed = await engine.read(tokens, tokens)
            await engine.free()
            gone = []
            for n in range(CANCELS):
                await engine.read(tokens, tokens * (n % PLACES + 1) // (PLACES + 1))
                gone.append(1e3 * await engine.free())
        name = f"{chunk}, flash attention {attention}"
        worst[name] = max(gone)
        one = 1e3 * seconds * chunk / tokens
        soon = sum(ms < ONE_CHUNK * one for ms in gone)
        speeds = [f"{tokens / seconds:.0f}", f"{tokens / computed:.0f}", f"{one:.0f}"]
        seen = [f"{statistics.median(gone):.0f}", f"{max(gone):.0f}", f"{soon} of {CANCELS}"]
        rows.append([name, *speeds, *seen])
        click.echo(f"{name}: {' '.join(rows[-1][1:])}", err=True)
    return rows, worst


async def alone(path: Path, scratch: Path) -> Rows:
    """A row for each way of asking an engine that is in a long chunk, in turns."""
    ways = {"all the time": math.inf, "with a second's pause": QUIET_AFTER_S}
    took: dict[str, list[float]] = {way: [] for way in ways}
    async with (
        asyncio.timeout(PATIENCE_S),
        running(path, LONG_CHUNK, "auto", scratch / "long") as engine,
    ):
        one, _ = await engine.read(LONG_CHUNK, LONG_CHUNK)
        await engine.free()
        for n in range(CANCELS):
            for way in sorted(ways, reverse=n % 2 == 1):
                took[way].append(await engine.let_go(3 * LONG_CHUNK, ways[way]))
                click.echo(f"asked {way}: {took[way][-1]:.1f} s, a chunk {one:.1f} s", err=True)
    return [
        [way, f"{one:.1f}", f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"]
        for way, seconds in took.items()
    ]


@click.command(help=__doc__)
@click.option("--tokens", default=384, show_default=True, help="Length of the prompt.")
@click.option("--format", "quant", type=click.Choice(QUANTS), default=QWEN3_0_6B.quant)
@report.json_option
def main(tokens: int, quant: str, json_file: Path | None) -> None:
    command = f"python benchmarks/prefill_chunks.py --tokens {tokens}"
    command += "" if quant == QWEN3_0_6B.quant else f" --format {quant}"
    found = report.report("prefill_chunks", "the size of a prefill chunk", command)
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
        try:
            shape = msgspec.structs.replace(QWEN3_0_6B, quant=quant)
            path = write_model(Path(scratch) / "qwen3-0.6b-shaped.gguf", shape)
            rows, worst = uvloop.run(by_chunk(tokens, path, Path(scratch)))
            long = uvloop.run(alone(path, Path(scratch)))
        except (Failed, TimeoutError, msgspec.MsgspecError) as error:
            raise click.ClickException(str(error) or "the machine is too slow") from error
    columns = ["tokens a chunk", "tokens/s", "tokens/CPU s", "one chunk, ms"]
    columns += ["cancel seen, ms", "at worst", "within one chunk"]
    found.tables.append(report.TableData("Prefill by chunk", columns, rows))
    columns = ["asked for its slots", "one chunk, s", "cancel seen, s", "at worst"]
    title = f"A chunk of {LONG_CHUNK} tokens, dropped {CANCELS} times each way"
    found.tables.append(report.TableData(title, columns, long))
    quick, slowest = min(worst, key=worst.__getitem__), max(worst.values())
    note = f"{quick}; at worst {slowest:.0f} ms with another"
    found.figures.append(Figure("quickest cancel, at worst", f"{worst[quick]:.0f} ms", note=note))
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
