"""How often ``helexa bench`` is right about a build: simulated sweeps with known truth.

Every sweep has so many targets of 12 cells with five runs before and five after; runs vary by 2 %
(log-normal). In half of the sweeps one target becomes slower by 8 %, in the other half nothing
changes.

The table has what no test of ranks can know: where the runs of one sweep share what the next sweep
has otherwise (heat, a neighbour), unchanged builds differ.
"""

from __future__ import annotations

import random
from pathlib import Path

import click
from kit import report

from helexa.bench.row import CellKey
from helexa.bench.stats.verdict import Compared, judge, judge_groups

NOISE, SLOWDOWN, CELLS, RUNS = 0.02, 1.08, 12, 5
FOUND_BAR, FALSE_BAR = 95.0, 5.0
SCATTER = (0.0, 0.005, 0.01, 0.02)


def sweep(draw: random.Random, targets: int, slow: int | None) -> list[Compared]:
    """One sweep's samples; target ``slow`` is slower, if any."""

    def runs(by: float) -> tuple[float, ...]:
        return tuple(by * 100 * draw.lognormvariate(0, NOISE) for _ in range(RUNS))

    return [
        Compared(
            CellKey(f"node{target}", "new", "model", f"scenario:{cell}"),
            "answer_ms",
            "old",
            runs(1.0),
            runs(SLOWDOWN if target == slow else 1.0),
        )
        for target in range(targets)
        for cell in range(CELLS)
    ]


def shared(draw: random.Random, scatter: float) -> list[Compared]:
    """One target of which nothing changes but what its cells' runs of one sweep have in common."""

    def runs() -> tuple[float, ...]:
        ours = draw.lognormvariate(0, scatter)
        return tuple(ours * 100 * draw.lognormvariate(0, NOISE) for _ in range(RUNS))

    return [
        Compared(CellKey("node0", "new", "model", f"scenario:{i}"), "answer_ms", "old", runs(),
                 runs())
        for i in range(CELLS)
    ]  # fmt: skip


def slower(cells: list[Compared]) -> set[str]:
    """Targets that at least one verdict calls slower, of a cell or of a model's cells together."""
    verdicts = (*judge(cells), *judge_groups(cells))
    return {verdict.target for verdict in verdicts if verdict.word == "slower"}


@click.command(help=__doc__)
@click.option("--sweeps", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@report.json_option
def main(sweeps: int, seed: int, json_file: Path | None) -> None:
    command = f"python benchmarks/bench_verdicts.py --sweeps {sweeps} --seed {seed}"
    found = report.report("bench_verdicts", "verdicts on simulated sweeps", command)
    draw = random.Random(seed)
    for targets in (1, 2, 4, 8):
        hit = sum("node0" in slower(sweep(draw, targets, 0)) for _ in range(sweeps))
        false = sum(bool(slower(sweep(draw, targets, None))) for _ in range(sweeps))
        name = f"{targets} target{'s' if targets > 1 else ''}"
        note = f"{sweeps} sweeps of {targets * CELLS} cells"
        found.figures += [
            report.at_least(f"{name}, 8 % slowdown found", hit * 100 / sweeps, FOUND_BAR,
                            "of 100", note),
            report.at_most(f"{name}, false alarms", false * 100 / sweeps, FALSE_BAR,
                           "of 100", note),
        ]  # fmt: skip
    rows = []
    for scatter in SCATTER:
        alarms = sum(bool(slower(shared(draw, scatter))) for _ in range(sweeps))
        rows.append([f"{scatter:.1%}", f"{alarms * 100 / sweeps:.1f}"])
    found.tables.append(
        report.TableData(
            f"False alarms where sweeps differ, one target of {CELLS} cells",
            ["scatter that a cell's runs share", "alarms of 100 sweeps"], rows,
        )
    )  # fmt: skip
    report.finish(found, json_file)


if __name__ == "__main__":
    main()
