"""What a relayed request and a relayed token cost, against nginx and two well-known gateways.

Same machine, same run, same stub nodes: every target takes its turn in every round, and the
median of the rounds counts, so that a noisy minute hits all of them. The figure is CPU time of
the gateway's processes per unit of work. The load generator and the stub share core 0, the
gateway under test has core 1. The nodes offer helexa's gateway what every node of ours offers, one
connection for all requests; ``--no-multiplex`` shows it without, as everybody else asks them.
``--awake`` gives idle cores something to do, as machines with other work have.

Peers are measured if they are installed: nginx from the system, the others from a virtual
environment of their own::

    python -m venv .bench && .bench/bin/pip install sglang-router 'litellm[proxy]'
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import click
from kit import peers, report
from kit.awake import keep_awake
from kit.gateway import cortex, key, wait_until_served
from kit.process import Failed
from kit.report import Figure, Report, TableData
from kit.stub import Stub, load

STARTS: dict[str, peers.Start] = {
    "nginx": peers.nginx,
    "helexa": cortex,
    "bare relay": peers.bare,
    "sglang-router": peers.sglang,
    "litellm": peers.litellm,
}
CLIENT_KEYS = [key(index) for index in range(0, 1000, 31)]


@dataclass(frozen=True)
class Row:
    """One kind of work, and what it may cost in units of nginx."""

    name: str
    bar: float
    streams: int
    gap_ms: float
    stream: bool

    @property
    def unit(self) -> str:
        """The member of the load generator's result that counts."""
        return "cpu_us_per_event" if self.stream else "cpu_us_per_request"


ROWS = (
    Row("plain chat request, 32 connections", 2.5, 32, 0, False),
    Row("streamed event, back to back, 32 streams", 1.25, 32, 0, True),
    Row("streamed event, paced 10 ms, 128 streams", 1.2, 128, 10, True),
)
LITELLM_PART = 0.01
TOKENS = 64


@dataclass
class Cell:
    """The rounds of one target on one row."""

    costs: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    errors: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def cost(self) -> float:
        """CPU microseconds per unit."""
        return statistics.median(self.costs)


Cells = dict[tuple[str, Row], Cell]


def measure(cell: Cell, row: Row, target: peers.Target, seconds: float) -> None:
    """One round of one cell."""
    result = load(
        target.port,
        [target.process.pid],
        CLIENT_KEYS,
        streams=row.streams,
        stream=row.stream,
        seconds=seconds,
    )
    cell.costs.append(result[row.unit])
    cell.rates.append(result["events_per_s" if row.stream else "requests_per_s"])
    cell.errors += result["errors"]
    cell.faults += result["faults"]


def rounds(
    stub: Stub, targets: Sequence[peers.Target], rows: Sequence[Row], count: int, seconds: float
) -> Cells:
    """Every target on every row, ``count`` times, in turns."""
    cells: Cells = {(target.name, row): Cell() for target in targets for row in rows}
    for number in range(count):
        for row in rows:
            stub.play(gap_ms=row.gap_ms)
            # The order turns, so that nobody always follows the same neighbour.
            for target in [*targets[number % len(targets) :], *targets[: number % len(targets)]]:
                measure(cells[target.name, row], row, target, seconds)
                click.echo(f"round {number + 1}/{count}: {row.name}: {target.name}", err=True)
    stub.play(gap_ms=0)
    return cells


def cost_table(cells: Cells, names: Sequence[str], rows: Sequence[Row]) -> TableData:
    """CPU µs per unit, and the ratio to nginx in brackets."""
    lines = []
    for row in rows:
        floor = cells[("nginx", row)].cost if ("nginx", row) in cells else None
        line = [row.name]
        for name in names:
            cell = cells.get((name, row))
            if cell is None:
                line.append("not installed")
                continue
            times = f" ({cell.cost / floor:.2f} ×)" if floor else ""
            line.append(f"{cell.cost:,.4g}{times}")
        lines.append(line)
    title = "CPU µs of the gateway per unit of work (ratio to nginx)"
    return TableData(title, ["", *names], lines)


def rate_table(cells: Cells, names: Sequence[str], rows: Sequence[Row]) -> TableData:
    """Units per second that the clients saw, and errors."""
    lines = []
    for row in rows:
        found = [cells.get((name, row)) for name in names]
        seen = [(statistics.median(c.rates), c.errors) if c else None for c in found]
        lines.append([row.name, *(f"{s[0]:,.0f} /s, {s[1]} errors" if s else "" for s in seen)])
    return TableData("What the clients saw", ["", *names], lines)


def bars(row: Row) -> dict[str, float]:
    """What helexa may cost on a row, as a part of each peer."""
    found = {"nginx": row.bar, "sglang-router": 1.0}
    # A paced event of LiteLLM would need more cores than there are: it never keeps the pace.
    return found if row.gap_ms else found | {"litellm": LITELLM_PART}


def verdict(row: Row, ours: Cell, peer: str, other: Cell | None, bar: float) -> Figure:
    """One bar; the note has the range of the rounds."""
    name = f"{row.name}, to {peer}"
    if other is None:
        return report.not_measured(name, f"≤ {bar:g} ×", f"{peer} not installed")
    ratios = [a / b for a, b in zip(ours.costs, other.costs, strict=True)]
    note = f"rounds {min(ratios):.3g} to {max(ratios):.3g}"
    return report.at_most(name, ours.cost / other.cost, bar, "×", note)


def verdicts(cells: Cells, names: Sequence[str], rows: Sequence[Row]) -> list[Figure]:
    """The bars of the targets that were asked for."""
    figures = []
    for row in rows:
        ours = cells.get(("helexa", row))
        if ours is not None:
            figures += [
                verdict(row, ours, peer, cells.get((peer, row)), bar)
                for peer, bar in bars(row).items()
                if peer in names
            ]
    errors = sum(cell.errors for (name, _), cell in cells.items() if name == "helexa")
    figures.append(report.at_most("errors of helexa", errors, 0, ""))
    return figures


def start(
    names: Sequence[str], tools: peers.Tools, stub: Stub, stack: ExitStack
) -> list[peers.Target]:
    """Those of ``names`` that are installed, serving."""
    targets = []
    for name in names:
        target = STARTS[name](tools, stub)
        if target is None:
            click.echo(f"{name}: not installed", err=True)
            continue
        stack.callback(target.process.stop)
        targets.append(target)
    for target in targets:
        wait_until_served(target)
    return targets


def run(
    names: Sequence[str],
    peers_folder: Path | None,
    count: int,
    seconds: float,
    rows: Sequence[Row],
    tokens: int = TOKENS,
    *,
    multiplex: bool = True,
    awake: bool = False,
) -> Report:
    """Start, measure, stop."""
    command = f"python benchmarks/gateway.py --rounds {count} --seconds {seconds:g}"
    name, title = "gateway", "the price of a relayed request and token"
    if tokens != TOKENS:
        name, title = "gateway long answers", f"{title}, answers of {tokens} events"
        command += f" --tokens {tokens}"
    if not multiplex:
        name, title = f"{name} without multiplex", f"{title}, a connection for each request"
        command += " --no-multiplex"
    if awake:
        name, title = f"{name} awake", f"{title}, on cores that do not sleep"
        command += " --awake"
    found = report.report(name, title, command)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="helexa-bench-")))
        offer = "--multiplex" if multiplex else "--no-multiplex"
        stub = Stub(scratch, f"--tokens={tokens}", offer)
        stack.callback(stub.stop)
        targets = start(names, peers.Tools(peers_folder, scratch), stub, stack)
        for core in (0, 1) if awake else ():
            stack.callback(keep_awake(core, scratch).stop)
        cells = rounds(stub, targets, rows, count, seconds)
    found.tables += [cost_table(cells, names, rows), rate_table(cells, names, rows)]
    found.figures += verdicts(cells, names, rows)
    for (name, row), cell in cells.items():
        if cell.errors:
            click.echo(f"{name}, {row.name}: {cell.errors} errors: {cell.faults[:3]}", err=True)
    return found


@click.command(help=__doc__)
@click.option("--seconds", default=3.0, show_default=True, help="Length of one round.")
@click.option("--rounds", "count", default=5, show_default=True, help="Rounds; medians count.")
@click.option("--tokens", default=TOKENS, show_default=True, help="Events of a streamed answer.")
@click.option(
    "--multiplex/--no-multiplex",
    default=True,
    show_default=True,
    help="Whether the nodes offer one connection for many requests, as ours do.",
)
@click.option(
    "--awake", is_flag=True, help="Keep the cores busy with work of the lowest priority beside."
)
@click.option("--only", default=",".join(STARTS), show_default=True, help="Targets to measure.")
@click.option("--rows", default="1,2,3", show_default=True, help="Rows of the table.")
@click.option(
    "--peers",
    "peers_folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=report.ROOT / ".bench" if (report.ROOT / ".bench").is_dir() else None,
    help="Virtual environment with the peers.  [default: .bench]",
)
@report.json_option
def main(
    seconds: float,
    count: int,
    tokens: int,
    only: str,
    rows: str,
    peers_folder: Path | None,
    json_file: Path | None,
    *,
    multiplex: bool,
    awake: bool,
) -> None:
    names = [name.strip() for name in only.split(",")]
    unknown = sorted(set(names) - set(STARTS))
    if unknown:
        raise click.UsageError(f"--only: no target {', '.join(unknown)}; there are {list(STARTS)}")
    chosen = [ROWS[int(number) - 1] for number in rows.split(",")]
    folder = peers_folder.resolve() if peers_folder else None
    try:
        found = run(names, folder, count, seconds, chosen, tokens, multiplex=multiplex, awake=awake)
    except Failed as error:
        raise click.ClickException(str(error)) from error
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
