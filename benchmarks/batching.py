"""What eight streams bring together, of one stream's tokens per second, by file format.

One stream reads every weight for every token; eight share the reading, and the arithmetic is what
remains. So the ratio says how far a format is from the machine's memory at one stream, and how good
its kernels are at eight rows: the fewer bytes a weight has, the sooner arithmetic is the limit.
The bare engine as the node starts it, with models of random weights in the shape of Qwen3-0.6B.
Tokens per second are those of the time in which all streams of a burst are being written. The
speed of a prompt, 64 rows at once and without the output layer, is what no number of streams can
reach; its ratio to one stream is printed as the ceiling.

CPU time per token is printed too: on a machine with other work only that can be compared. Nobody
serves ``F32``; it is measured when it is asked for.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import uvloop
from kit import report
from kit.chat import Answer, ask, body, together
from kit.engine import bare_engine, named_by_build
from kit.process import Failed, cpu_seconds
from kit.report import Figure

from helexa.neuron.engines.base import Address
from helexa.neuron.models.synthetic import QUANTS, QWEN3_0_6B, write_model

STREAMS = (1, 8)
SERVED = tuple(quant for quant in QUANTS if quant != "F32")
TOKENS = 32
WANTED = {"slots": max(STREAMS), "ctx": 2048, "gpu_layers": 0, "cache_ram_mb": 0}
LONG = "one two three four five six seven eight " * 12
COLUMNS = ["format", "MB", "one", "GB/s", "eight", "ratio", "prompt", "ceiling"]
COLUMNS += ["CPU ms: one", "eight", "prompt"]
TITLE = "The bare engine, tokens/s and CPU time per token"


@dataclass
class Found:
    """What bursts of one kind brought."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return statistics.median(self.rates)

    @property
    def cost(self) -> float:
        """CPU milliseconds for a token; what disturbs only adds to it."""
        return min(self.cpu_ms)


async def burst(address: Address, pid: int, streams: int) -> tuple[float, float]:
    """So many answers at once: tokens per second and CPU milliseconds for a token."""
    texts = [f"stream {n}" for n in range(streams)]  # the same every time, so they are cached
    answers, cpu_s = await answered(address, pid, TOKENS, texts)
    return together(answers), 1e3 * cpu_s / (streams * TOKENS)


async def prompt(address: Address, pid: int, mark: str) -> tuple[float, float]:
    """A prompt of several chunks: tokens per second and CPU milliseconds for a token."""
    (answer,), cpu_s = await answered(address, pid, 1, [f"{mark} {LONG}"])
    tokens = float(answer.end["usage"]["prompt_tokens"])
    return tokens / answer.first_s, 1e3 * cpu_s / tokens


async def answered(
    address: Address, pid: int, tokens: int, texts: list[str]
) -> tuple[list[Answer], float]:
    """Whole answers to all of ``texts`` at once, and the engine's CPU seconds."""
    port, key = address.uds or address.port, {"authorization": f"Bearer {address.api_key}"}
    computed = cpu_seconds([pid])
    answers = await asyncio.gather(*(ask(port, body("m", t, tokens), headers=key) for t in texts))
    if not all(answer.whole for answer in answers):
        raise Failed(f"an answer broke off: {bytes(answers[0].raw[-300:])!r}")
    return list(answers), cpu_seconds([pid]) - computed


async def measure(quant: str, rounds: int, scratch: Path) -> list[str]:
    """The row of one format."""
    path = write_model(scratch / f"{quant}.gguf", msgspec.structs.replace(QWEN3_0_6B, quant=quant))
    size = path.stat().st_size
    one, eight, long = found = (Found(), Found(), Found())
    async with bare_engine(path, "m", scratch / quant, WANTED) as (address, pid):
        for number in range(-1, rounds):
            took = [await burst(address, pid, n) for n in STREAMS]
            took.append(await prompt(address, pid, f"prompt {number}"))
            for kind, (rate, cost) in zip(found, took, strict=True):
                if number >= 0:
                    kind.rates.append(rate)
                    kind.cpu_ms.append(cost)
    path.unlink()
    speeds = [f"{one.rate:.1f}", f"{one.rate * size / 1e9:.1f}", f"{eight.rate:.1f}"]
    speeds += [f"{eight.rate / one.rate:.2f}", f"{long.rate:.0f}", f"{long.rate / one.rate:.2f}"]
    return [quant, f"{size / 1e6:,.0f}", *speeds, *(f"{kind.cost:.1f}" for kind in found)]


@click.command(help=__doc__)
@click.option("--format", "quants", type=click.Choice(QUANTS), multiple=True, help="Only these.")
@click.option("--rounds", default=3, show_default=True, help="Bursts of each kind.")
@report.json_option
def main(quants: tuple[str, ...], rounds: int, json_file: Path | None) -> None:
    command = " ".join(["python benchmarks/batching.py", *(f"--format {q}" for q in quants)])
    name, engine = named_by_build("batching")
    found = report.report(name, f"eight streams and one, by file format, {engine}", command)
    rows = []
    try:
        for quant in quants or SERVED:
            with tempfile.TemporaryDirectory(prefix="helexa-bench-") as scratch:
                rows.append(uvloop.run(measure(quant, rounds, Path(scratch))))
            click.echo("  ".join(rows[-1]), err=True)
    except (Failed, OSError) as error:
        raise click.ClickException(str(error)) from error
    found.tables.append(report.TableData(TITLE, COLUMNS, rows))
    best = max(rows, key=lambda row: float(row[5]))
    found.figures.append(Figure("eight streams, to one, at best", f"{best[5]} ×", note=best[0]))
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
