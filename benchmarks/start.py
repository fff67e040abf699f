"""How long a command takes to start: the gateway until it serves, its help, its imports."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
from kit import report
from kit.gateway import start_cortex
from kit.process import Failed

START_BAR_MS, HELP_BAR_MS = 400, 150
IMPORT_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)")


def start_ms() -> float:
    """From the process's start to its ready line; one node in the file, no keys."""
    with tempfile.TemporaryDirectory(prefix="helexa-bench-") as folder:
        process, _ = start_cortex(Path(folder), ["http://127.0.0.1:9"], core=None, keys=0)
        took = time.perf_counter() - process.started
        process.stop()
    return took * 1e3


def help_ms() -> float:
    """``helexa cortex --help``."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "helexa.cli", "cortex", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begun) * 1e3


def python_ms() -> float:
    """An interpreter that does nothing: the part that is not ours."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - begun) * 1e3


def slowest_imports(count: int = 12) -> list[list[str]]:
    """The packages that take longest to import for ``helexa cortex``, with their own imports."""
    program = "import helexa.cortex.build, helexa.cli.cortex, uvloop"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    times = [
        (int(match[2]) / 1e3, len(match[3]) // 2, match[4])
        for match in map(IMPORT_LINE.search, done.stderr.splitlines())
        if match
    ]
    wide = sorted((took, name) for took, _, name in times if not name.startswith("helexa"))
    return [[name, f"{took:.1f}"] for took, name in wide[: -count - 1 : -1]]


def median(what: Callable[[], float], count: int) -> tuple[float, str]:
    """The median of ``count`` runs, and their range in words."""
    values = [what() for _ in range(count)]
    return statistics.median(values), f"{min(values):.0f} to {max(values):.0f} ms in {count} runs"


@click.command(help=__doc__)
@click.option("--runs", default=9, show_default=True)
@report.json_option
def main(runs: int, json_file: Path | None) -> None:
    found = report.report("start", "start-up", f"python benchmarks/start.py --runs {runs}")
    try:
        start_ms()  # compiles what has not been compiled yet
        took, note = median(start_ms, runs)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    found.figures.append(
        report.at_most("helexa cortex, until it serves", took, START_BAR_MS, "ms", note)
    )
    took, note = median(help_ms, runs)
    found.figures.append(report.at_most("helexa cortex --help", took, HELP_BAR_MS, "ms", note))
    took, _ = median(python_ms, runs)
    found.figures.append(report.Figure("python -c pass", f"{took:.0f} ms"))
    title = "Slowest foreign imports of the gateway, with what they import"
    found.tables.append(report.TableData(title, ["module", "ms"], slowest_imports()))
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
