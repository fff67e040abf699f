"""How large helexa is: installed, and in memory while it serves the built-in model."""

from __future__ import annotations

import http.client
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
from kit import report
from kit.household import start_household
from kit.process import Failed, rss_bytes
from stack import ask

INSTALL_BARS_MB = {"": 60, "[neuron]": 200}
MEMORY_BARS_MB = {"cortex": 90, "neuron": 90, "engine": 250}


def pip(*arguments: str) -> None:
    """Run pip of this interpreter, or of the first that has it.

    Raises:
        Failed: It did; with the end of its words.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"pip {' '.join(arguments)}: {done.stderr[-800:]}")


def installed_mb(folder: Path) -> float:
    """What the files take, in MB; bytecode is not counted twice."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def install(scratch: Path) -> list[report.Figure]:
    """Build the wheel and install it with and without the node's extra."""
    pip("wheel", "--no-deps", "-w", str(scratch), str(report.ROOT))
    wheel = next(scratch.glob("helexa-*.whl"))
    figures = []
    for extra, bar in INSTALL_BARS_MB.items():
        target = scratch / f"site{extra.strip('[]')}"
        pip("install", "--target", str(target), f"{wheel}{extra}")
        name = f"pip install helexa{extra}, site-packages"
        figures.append(report.at_most(name, installed_mb(target), bar, "MB"))
    return figures


def memory(scratch: Path) -> list[report.Figure]:
    """Resident memory after some requests."""
    household = start_household(scratch)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", household.port, timeout=60)
        for number in range(50):
            ask(connection, f"Repeat: {number}", 32)
        pids = household.pids()
        sizes = {role: own_rss_mb(pids[role]) for role in MEMORY_BARS_MB}
    finally:
        household.process.stop(20.0)
    return [
        report.at_most(f"resident memory, {role}", sizes[role], bar, "MB")
        for role, bar in MEMORY_BARS_MB.items()
    ]


def own_rss_mb(pid: int) -> float:
    """Of the process alone, without its children."""
    return rss_bytes([-pid]) / 1e6


@click.command(help=__doc__)
@click.option("--install/--no-install", "with_install", default=True, help="Needs a network.")
@report.json_option
def main(with_install: bool, json_file: Path | None) -> None:
    found = report.report("sizes", "on disk and in memory", "python benchmarks/sizes.py")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        try:
            found.figures += install(scratch) if with_install else []
            found.figures += memory(scratch)
        except (Failed, OSError, KeyError) as error:
            raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
