"""Every question that is asked of the store, answered in frozen structs.

The API sends them as they are, reports print them. A host is shown by its hardware, never by its
name, unless that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from helexa.bench.row import CellKey
from helexa.bench.stats.curves import Level, flatness, knee
from helexa.bench.stats.summary import Summary, median, summarise
from helexa.bench.stats.verdict import TOGETHER, WORSE, Compared, Verdict, judge, judge_groups
from helexa.bench.store.cell import HIGHER_IS_BETTER, METRICS, Cell
from helexa.bench.store.reader import ALL, Lines

LOADS = ("cold", "swap")
"""Scenarios that say what loading costs."""


class CellAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A cell with its medians.

    Args:
        verdict: Against the last build before it that had a good run.
        dead: Every run failed, and not because the target was full.
    """

    target: str
    hardware: str
    kind: str
    model: str
    scenario: str
    build: str
    engine: str
    quant: str
    first_at: float
    last_at: float
    ok_runs: int
    failed_runs: int
    primary: str
    metrics: dict[str, Summary]
    verdict: Verdict | None = None
    refused: int = 0
    requests: int = 0
    dead: bool = False

    @property
    def still_failing(self) -> bool:
        """Every run fails, and no build before it was better: no verdict says so."""
        return self.dead and (self.verdict is None or self.verdict.word != "broken")


class Point(msgspec.Struct, frozen=True, omit_defaults=True):
    """One point of a line: median with its interval."""

    x: float
    label: str
    n: int
    median: float
    low: float
    high: float
    at: float = 0.0


class Failed(msgspec.Struct, frozen=True):
    """A build of which every run failed, so that it has no point."""

    label: str
    at: float


class Series(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a chart."""

    target: str
    hardware: str
    model: str
    scenario: str
    metric: str
    higher_is_better: bool
    points: tuple[Point, ...]
    failed: tuple[Failed, ...] = ()


class History(msgspec.Struct, frozen=True):
    """What a verdict rests on, over builds: medians, oldest first, None where every run failed."""

    target: str
    model: str
    scenario: str
    medians: tuple[float | None, ...]


class Curve(msgspec.Struct, frozen=True, omit_defaults=True):
    """A target's curve over streams or prompt tokens, with what it comes to."""

    target: str
    hardware: str
    model: str
    build: str
    first_token_ms: tuple[Point, ...]
    rate: tuple[Point, ...]
    refused: dict[str, int] = {}
    knee: int | None = None
    flatness: float | None = None


def hardware(cell: Cell, *, show_host: bool = False) -> str:
    """``2× RTX 5090``, the operator's label, or the kind of target; the host's name if asked."""
    shown = cell.label or cell.gpus or ("endpoint" if cell.kind == "openai" else "unknown hardware")
    return f"{shown} ({cell.host})" if show_host and cell.host else shown


def answer(cell: Cell, verdict: Verdict | None = None, *, show_host: bool = False) -> CellAnswer:
    """A cell as it is shown."""
    summaries = {name: summarise(cell.samples.get(name, ())) for name in METRICS}
    return CellAnswer(
        target=cell.target,
        hardware=hardware(cell, show_host=show_host),
        kind=cell.kind,
        model=cell.model,
        scenario=cell.scenario,
        build=cell.build,
        engine=cell.engine,
        quant=cell.quant,
        first_at=cell.first_at,
        last_at=cell.last_at,
        ok_runs=cell.ok_runs,
        failed_runs=cell.failed_runs,
        primary=cell.primary,
        metrics={name: s for name, s in summaries.items() if s is not None},
        verdict=verdict,
        refused=cell.refused,
        requests=cell.requests,
        dead=cell.dead,
    )


def pairs(cells: Iterable[Cell]) -> list[tuple[Cell, Cell | None]]:
    """Of cells by target, model and scenario, oldest first: the newest, and the one before it."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.target, cell.model, cell.scenario), []).append(cell)
    return [(g[-1], g[-2] if len(g) > 1 else None) for g in groups.values()]


def compared(new: Cell, old: Cell, metric: str | None = None) -> Compared:
    """Two cells' samples of one metric, the cell's primary one by default."""
    name = metric or new.primary
    return Compared(
        key=CellKey(new.target, new.build, new.model, new.scenario),
        metric=name,
        old_build=old.build,
        old=tuple(old.samples.get(name, ())),
        new=tuple(new.samples.get(name, ())),
        higher_is_better=name in HIGHER_IS_BETTER,
        broken=old.ok_runs > 0 and new.dead,
    )


class Judged(msgspec.Struct, frozen=True):
    """The newest build of everything, and what it changed.

    Args:
        cells: By target, model and scenario.
        verdicts: By a cell's line; there is none where only one build was measured.
        worse: What is broken first, then whole models, then cells.
    """

    cells: list[Cell]
    verdicts: dict[tuple[str, str, str], Verdict]
    worse: list[Verdict]


def judged(cells: Iterable[Cell]) -> Judged:
    """Every newest build against the one before it, all of them at once.

    Whatever is shown of it: a verdict is corrected for the number of cells that were looked at,
    and is not to change with the choice of a target.
    """
    newest = pairs(cells)
    found = [compared(new, old) for new, old in newest if old is not None]
    verdicts = judge(found)
    worse = [v for v in (*judge_groups(found), *verdicts) if v.word in WORSE]
    worse.sort(key=lambda v: (v.word != "broken", v.scenario != TOGETHER, -abs(v.change)))
    return Judged(
        [new for new, _ in newest],
        {(v.target, v.model, v.scenario): v for v in verdicts},
        worse,
    )


def summary(
    found: Judged, cells: Iterable[Cell] | None = None, *, show_host: bool = False
) -> list[CellAnswer]:
    """The newest build of everything, or of some ``cells``, against the build before it."""
    return [
        answer(cell, found.verdicts.get(cell.line), show_host=show_host)
        for cell in (found.cells if cells is None else cells)
    ]


class Cells(Protocol):
    """Where two sides of a comparison come from (the store's reader)."""

    def build_cells(self, build: str) -> list[Cell]:
        """Every cell of one build."""

    def latest_cells(self, lines: Lines = ALL, depth: int = 2) -> list[Cell]:
        """The newest builds of some cells."""


Side = dict[tuple[str, ...], Cell]


def sides(cells: Cells, a: str, b: str) -> tuple[Side, Side]:
    """Two builds of every target, or the newest builds of two targets, cell by cell."""
    old, new = cells.build_cells(a), cells.build_cells(b)
    if old or new:
        return _by(old, "target", "model", "scenario"), _by(new, "target", "model", "scenario")
    return (
        _by(cells.latest_cells(Lines(a), 1), "model", "scenario"),
        _by(cells.latest_cells(Lines(b), 1), "model", "scenario"),
    )


def compare(old: Side, new: Side, metric: str | None = None) -> tuple[list[Verdict], list[CellKey]]:
    """The new side against the old one.

    Returns:
        Verdicts of whole models and of every cell that both have; and the cells that only one has.
    """
    both = [key for key in old if key in new]
    alone = [
        CellKey(cell.target, cell.build, cell.model, cell.scenario)
        for key, cell in (*old.items(), *new.items())
        if not (key in old and key in new)
    ]
    found = [compared(new[key], old[key], metric) for key in both]
    return [*judge_groups(found), *judge(found)], alone


def _by(cells: Iterable[Cell], *names: str) -> Side:
    return {tuple(getattr(cell, name) for name in names): cell for cell in cells}


def series(cells: Iterable[Cell], metric: str, *, show_host: bool = False) -> list[Series]:
    """A metric over builds, one line per target, model and scenario."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.target, cell.model, cell.scenario), []).append(cell)
    lines = []
    for (target, model, scenario), group in groups.items():
        points = [_point(float(i), cell.build, cell, metric) for i, cell in enumerate(group)]
        kept = tuple(point for point in points if point is not None)
        if kept:
            shown = hardware(group[-1], show_host=show_host)
            better = metric in HIGHER_IS_BETTER
            failed = tuple(Failed(cell.build, cell.first_at) for cell in group if cell.dead)
            lines.append(Series(target, shown, model, scenario, metric, better, kept, failed))
    return lines


def histories(lines: Iterable[tuple[Lines, list[list[float]]]]) -> list[History]:
    """Of every line of cells, its primary metric over builds."""
    return [
        History(
            line.target,
            line.model,
            line.scenario,
            tuple(median(sorted(samples)) if samples else None for samples in builds),
        )
        for line, builds in lines
    ]


def concurrency(cells: Iterable[Cell], *, show_host: bool = False) -> list[Curve]:
    """First token and throughput over streams at once, with the knee."""
    curves = []
    for group in _newest_groups(cells, "concurrency"):
        levels = [
            Level(int(size), first.median, refused=cell.refused)
            for size, cell in group
            if (first := summarise(cell.samples.get("first_token_ms", ()))) is not None
        ]
        curves.append(_curve(group, "throughput", knee(levels), None, show_host=show_host))
    return curves


def scaling(cells: Iterable[Cell], *, show_host: bool = False) -> list[Curve]:
    """First token and decode rate over prompt tokens, with how flat decoding stays."""
    curves = []
    for group in _newest_groups(cells, "chat"):
        rates = {
            int(size): rate.median
            for size, cell in group
            if (rate := summarise(cell.samples.get("decode_rate", ()))) is not None
        }
        curves.append(_curve(group, "decode_rate", None, flatness(rates), show_host=show_host))
    return curves


def _newest_groups(cells: Iterable[Cell], kind: str) -> list[list[tuple[float, Cell]]]:
    groups: dict[tuple[str, str, str], list[tuple[float, Cell]]] = {}
    newest: dict[tuple[str, str], str] = {}
    for cell in cells:
        name, _, size = cell.scenario.partition(":")
        if name == kind and size.isdigit():
            groups.setdefault((cell.target, cell.model, cell.build), []).append((float(size), cell))
    for (target, model, build), group in groups.items():
        rival = groups.get((target, model, newest.get((target, model), "")))
        if rival is None or max(c.last_at for _, c in group) > max(c.last_at for _, c in rival):
            newest[target, model] = build
    return [
        sorted(groups[target, model, build], key=lambda item: item[0])
        for (target, model), build in newest.items()
    ]


def _curve(
    group: list[tuple[float, Cell]],
    rate: str,
    at_knee: int | None,
    flat: float | None,
    *,
    show_host: bool,
) -> Curve:
    first, last = group[0][1], group[-1][1]
    return Curve(
        target=first.target,
        hardware=hardware(last, show_host=show_host),
        model=first.model,
        build=first.build,
        first_token_ms=_points(group, "first_token_ms"),
        rate=_points(group, rate),
        refused={str(int(size)): cell.refused for size, cell in group if cell.refused},
        knee=at_knee,
        flatness=flat,
    )


def _points(group: list[tuple[float, Cell]], metric: str) -> tuple[Point, ...]:
    found = [_point(size, cell.scenario, cell, metric) for size, cell in group]
    return tuple(point for point in found if point is not None)


def _point(x: float, label: str, cell: Cell, metric: str) -> Point | None:
    s = summarise(cell.samples.get(metric, ()))
    return None if s is None else Point(x, label, s.n, s.median, s.low, s.high, cell.first_at)
