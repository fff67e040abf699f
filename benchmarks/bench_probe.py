"""How wrong the probe of ``helexa bench`` is, and what it costs, against a server of known timing.

The stub writes into every event when it was sent; the probe's own times are held against that.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import click
import uvloop
from kit import report
from kit.process import PROXY_CORE
from kit.stub import MODEL, Stub

from helexa.bench.probe.stream import Prober
from helexa.bench.probe.timed import Timed

FIRST_BAR_MS, GAP_BAR_PCT, CPU_BAR_US = 1.0, 2.0, 30.0


async def sweep(url: str, streams: int, rounds: int) -> tuple[list[Timed], float]:
    """``streams`` at once, ``rounds`` times; answers and CPU seconds of this process."""
    prober = Prober(url, None, 120)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
    await asyncio.gather(*(prober.ask(body) for _ in range(streams)))
    begun, found = time.process_time(), []
    for _ in range(rounds):
        found += await asyncio.gather(*(prober.ask(body) for _ in range(streams)))
    return found, time.process_time() - begun


def stamps(timed: Timed) -> list[float]:
    """When the stub sent each event, in seconds of the clock that ``perf_counter`` reads."""
    return [int(part) / 1e9 for part in timed.text.split("@") if part]


@click.command(help=__doc__)
@click.option("--streams", default=64, show_default=True)
@click.option("--tokens", default=100, show_default=True)
@click.option("--gap-ms", default=10.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@report.json_option
def main(streams: int, tokens: int, gap_ms: float, rounds: int, json_file: Path | None) -> None:
    command = f"python benchmarks/bench_probe.py --streams {streams} --gap-ms {gap_ms:g}"
    found = report.report("bench_probe", "the probe's own error and price", command)
    os.sched_setaffinity(0, {PROXY_CORE})
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        stub = Stub(Path(folder), f"--tokens={tokens}", f"--gap-ms={gap_ms}", "--prefill-ms=50",
                    "--stamp")  # fmt: skip
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                answers, cpu = runner.run(sweep(stub.urls[0], streams, rounds))
        finally:
            stub.stop()
    if any(not timed.ok for timed in answers):
        raise click.ClickException(next(timed.error for timed in answers if not timed.ok))
    sent = [stamps(timed) for timed in answers]
    late = [
        timed.first_ms - (first[0] - timed.sent_at) * 1000
        for timed, first in zip(answers, sent, strict=True)
        if timed.first_ms is not None
    ]
    told = [median((b - a) * 1000 for a, b in pairwise(times)) for times in sent]
    seen = [median(timed.gaps_ms) for timed in answers]
    off = [abs(s / t - 1) * 100 for s, t in zip(seen, told, strict=True)]
    events = sum(len(times) for times in sent)
    found.figures += [
        report.at_most("first token, error (median)", median(late), FIRST_BAR_MS, "ms",
                       f"99 of 100 within {sorted(late)[int(len(late) * 0.99)]:.2f} ms"),
        report.at_most("inter-token time, error (median)", median(off), GAP_BAR_PCT, "%",
                       f"{streams} streams; worst stream {max(off):.2f} %"),
        report.at_most("CPU per event", cpu / events * 1e6, CPU_BAR_US, "µs"),
    ]  # fmt: skip
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
