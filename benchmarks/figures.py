"""Write docs/figures.md from the JSON that the benchmarks left in ``out/``.

    make bench && python benchmarks/figures.py

A page is only as new as its oldest result, so every section says when, where and of which
revision it was measured. Sections whose JSON is missing stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import msgspec
from kit.report import ROOT, Figure, Machine, Report, TableData

PAGE = ROOT / "docs" / "figures.md"
ORDER = (
    "gateway",
    "gateway without multiplex",
    "gateway long answers",
    "gateway awake",
    "ledger",
    "hops",
    "hops awake",
    "streams",
    "prompt",
    "dialects",
    "routing",
    "fleet",
    "cold_start",
    "hub",
    "thrash",
    "start",
    "idle",
    "stack",
    "sizes",
    "node",
    "node BF16 own build",
    "batching",
    "batching own build",
    "vllm",
    "prefill_chunks",
    "fairness",
    "metering",
    "budgets",
    "fan_out",
    "soak",
    "chaos",
    "memory_plan",
)
INTRO = """\
# Figures

Every figure on this page is printed by a command in this repository, as a ratio to a peer in the
same run wherever there is one.
`make bench` and `make soak` print them all; `python benchmarks/figures.py` renews this page with
what they left in `out/`.
The peers of the first table are optional: nginx from the system, the others with
`python -m venv .bench && .bench/bin/pip install sglang-router 'litellm[proxy]'`.

What is measured there is CPU time of the gateway's processes per unit of work.
It moves less than throughput when the machine has other things to do, but it does move: a busy
machine makes wake-ups cheaper and caches colder.
The ratio to nginx in the same run is the figure to read.
The interpreter counts too: 3.11.2 is Debian's, built with profile-guided optimisation as those of
most distributions are; one without (pyenv builds such ones) takes more for the same.
"""


def load_reports(folder: Path) -> list[Report]:
    """The results in ``folder``, in the page's order; what is no report is passed over."""
    found = {}
    for file in sorted(folder.glob("*.json")):
        try:
            report = msgspec.json.decode(file.read_bytes(), type=Report)
        except msgspec.DecodeError as error:
            click.echo(f"{file}: not a report: {error}", err=True)
            continue
        found[report.benchmark] = report
    known = [found.pop(name) for name in ORDER if name in found]
    return [*known, *found.values()]


def page(reports: list[Report], before: str = "") -> str:
    """The whole page; sections of ``before`` that were not measured anew stay as they are."""
    machines = {report.machine for report in reports}
    alone = machines.pop() if len(machines) == 1 and not before else None
    lines = [f"Measured on: {alone}.", ""] if alone else []
    sections = kept_sections(before)
    for report in reports:
        where = None if alone else report.machine
        sections[report.benchmark] = "\n".join(section(report, where)).strip()
    known = [sections.pop(name) for name in ORDER if name in sections]
    return "\n\n".join(["\n".join([INTRO, *lines]).strip(), *known, *sections.values()]) + "\n"


def kept_sections(page: str) -> dict[str, str]:
    """The sections of an earlier page, each with the machine that the page named for all."""
    head, *parts = page.split("\n## ")
    machine = head.partition("Measured on: ")[2].partition(".\n")[0]
    found = {}
    for part in parts:
        title, _, rest = part.partition("\n\n")
        about, _, more = rest.partition("\n\n")
        if machine and ", on " not in about.rpartition("revision")[2]:
            about = f"{about.rstrip('.')}, on {machine}."
        found[title] = f"## {title}\n\n{about}\n\n{more}".strip()
    return found


def section(report: Report, machine: Machine | None = None) -> Iterator[str]:
    """One benchmark: how, when, its tables, its figures against their bars."""
    yield f"## {report.benchmark}"
    yield ""
    where = f", on {machine}" if machine is not None else ""
    about = report.about[0].upper() + report.about[1:]
    yield f"{about}. `{report.command}`, {report.taken}, revision `{report.commit}`{where}."
    yield ""
    for data in report.tables:
        yield f"{data.title}:"
        yield ""
        yield from table(data)
        yield ""
    if report.figures:
        yield from table(figure_table(report.figures))
        yield ""


def figure_table(figures: Iterable[Figure]) -> TableData:
    """Figures with their bars."""
    rows = [[f.name, f.value, f.bar, f.verdict or "", f.note] for f in figures]
    return TableData("", ["", "measured", "bar", "", "note"], rows)


def table(data: TableData) -> Iterator[str]:
    """As Markdown."""
    yield "| " + " | ".join(data.columns) + " |"
    yield "|" + "---|" * len(data.columns)
    for row in data.rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


@click.command(help=__doc__)
@click.argument(
    "folder", type=click.Path(path_type=Path, exists=True, file_okay=False), default=ROOT / "out"
)
@click.option("--output", type=click.Path(path_type=Path), default=PAGE, show_default="the page")
def main(folder: Path, output: Path) -> None:
    reports = load_reports(folder)
    if not reports:
        raise click.UsageError(f"there are no results in {folder}; run make bench first")
    before = output.read_text(encoding="utf-8") if output.exists() else ""
    output.write_text(page(reports, before), encoding="utf-8")
    click.echo(f"{output}: {', '.join(report.benchmark for report in reports)}")


if __name__ == "__main__":
    main()
