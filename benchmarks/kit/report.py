"""Figures with their bars: printed for people, written as JSON for ``figures.py``."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Literal

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kit.process import end_cleanly

ROOT = Path(__file__).resolve().parents[2]
Verdict = Literal["pass", "FAIL", "not measured"]


class Machine(msgspec.Struct, frozen=True):
    """Where a figure was measured."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    python: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB, "
            f"Linux {'.'.join(self.kernel.split('.')[:2])}, Python {self.python}"
        )


class Figure(msgspec.Struct, frozen=True):
    """One measured value and what it is held to.

    Args:
        bar: In words, with the unit; empty when nothing is promised.
        verdict: Whether the bar is met.
        note: What the reader should know about how it came to be.
    """

    name: str
    value: str
    bar: str = ""
    verdict: Verdict | None = None
    note: str = ""


class TableData(msgspec.Struct, frozen=True):
    """A table beside the figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Report(msgspec.Struct):
    """What one benchmark found."""

    benchmark: str
    about: str
    command: str
    machine: Machine
    commit: str
    taken: str
    figures: list[Figure] = []
    tables: list[TableData] = []


def machine() -> Machine:
    """This machine."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if "model name" in line]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    python = platform.python_version()
    return Machine(names[0] if names else "", cores, memory, platform.release(), python)


def commit() -> str:
    """The revision that was measured."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def report(benchmark: str, about: str, command: str) -> Report:
    """An empty report of this machine, now."""
    end_cleanly()
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    return Report(benchmark, about, command, machine(), commit(), taken)


def at_most(name: str, value: float, bar: float, unit: str, note: str = "") -> Figure:
    """A figure that must not exceed its bar."""
    verdict: Verdict = "pass" if value <= bar else "FAIL"
    return Figure(name, f"{value:.4g} {unit}".strip(), f"≤ {bar:g} {unit}".strip(), verdict, note)


def at_least(name: str, value: float, bar: float, unit: str, note: str = "") -> Figure:
    """A figure that must reach its bar."""
    verdict: Verdict = "pass" if value >= bar else "FAIL"
    return Figure(name, f"{value:.4g} {unit}".strip(), f"≥ {bar:g} {unit}".strip(), verdict, note)


def not_measured(name: str, bar: str, why: str) -> Figure:
    """A bar that could not be tried here."""
    return Figure(name, "–", bar, "not measured", why)


def table(data: TableData) -> Table:
    """For the terminal."""
    made = Table(title=data.title, title_justify="left", title_style="bold")
    for index, column in enumerate(data.columns):
        made.add_column(column, justify="left" if index == 0 else "right")
    for row in data.rows:
        made.add_row(*map(escape, row))
    return made


def finish(found: Report, json_file: Path | None) -> None:
    """Print; write the JSON; leave with status 1 when a bar is missed."""
    console = Console(width=None if Console().is_terminal else 120)
    console.print(f"[bold]{found.benchmark}[/bold]: {found.about}")
    console.print(f"{found.machine}; {found.commit}", highlight=False)
    for data in found.tables:
        console.print(table(data))
    rows = [[f.name, f.value, f.bar, f.verdict or "", f.note] for f in found.figures]
    if rows:
        console.print(table(TableData("Figures", ["", "measured", "bar", "", "note"], rows)))
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    raise SystemExit(any(figure.verdict == "FAIL" for figure in found.figures))


json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Also write the result here."
)
