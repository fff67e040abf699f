"""5,000 open streams, one event per second each, through the gateway: memory and delay.

The stub writes into every event when it was sent; the load generator reads it when it arrives.
The same load straight at the stub shows what of the delay belongs to the two ends.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
from kit import report
from kit.gateway import KEYS, cortex, key, wait_until_served
from kit.peers import Tools
from kit.process import Failed
from kit.stub import Stub, load

MEMORY_BAR_KB, DELAY_BAR_MS = 60, 20
GAP_MS = 1000


def measure(port: int, pids: list[int], keys: list[str], streams: int, seconds: float) -> Any:
    """Open the streams over some seconds, then one window with all of them open."""
    return load(
        port,
        pids,
        keys,
        streams=streams,
        stream=True,
        stamps=True,
        spread=max(1.0, streams / 500),
        warmup=2.0,
        seconds=seconds,
        drain=0.0,
    )


def run(streams: int, seconds: float) -> report.Report:
    """Measure direct and through the gateway."""
    found = report.report(
        "streams",
        f"{streams:,} open streams at one event per second each",
        f"python benchmarks/streams.py --streams {streams} --seconds {seconds:g}",
    )
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        stub = Stub(scratch, "--tokens=3600", f"--gap-ms={GAP_MS}", "--stamp")
        stack.callback(stub.stop)
        direct = measure(stub.ports[0], [], [], streams, seconds)
        stub.play(tokens=1, gap_ms=0)  # for the one request that shows readiness
        target = cortex(Tools(None, scratch), stub)
        assert target is not None
        stack.callback(target.process.stop, 1.0)
        wait_until_served(target)
        stub.play(tokens=3600, gap_ms=GAP_MS)
        keys = [key(index) for index in range(KEYS)]
        through = measure(target.port, [target.process.pid], keys, streams, seconds)
    found.figures += figures(direct, through, streams)
    return found


def figures(direct: Any, through: Any, streams: int) -> list[report.Figure]:
    """The bars."""
    per_stream = through["rss_growth_bytes"] / streams / 1000
    note = (
        f"p50 {through['delay_p50_ms']:.2f} ms; straight from the stub "
        f"{direct['delay_p50_ms']:.2f} / {direct['delay_p99_ms']:.2f} ms"
    )
    return [
        report.at_least("streams open", through["open"], streams, ""),
        report.at_most("memory per stream", per_stream, MEMORY_BAR_KB, "kB"),
        report.at_most("relay delay, p99", through["delay_p99_ms"], DELAY_BAR_MS, "ms", note),
        report.Figure("events relayed", f"{through['events_per_s']:,.0f} /s"),
        report.Figure("CPU of the gateway", f"{through['cpu_pct']:.0f} % of a core"),
        report.at_most("errors", through["errors"], 0, ""),
    ]


@click.command(help=__doc__)
@click.option("--streams", default=5000, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Length of the window.")
@report.json_option
def main(streams: int, seconds: float, json_file: Path | None) -> None:
    try:
        found = run(streams, seconds)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
