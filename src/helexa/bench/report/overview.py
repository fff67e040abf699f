"""One screen of everything: a sign for every cell, figures for as many as a browser draws.

In columns and without repeated names, since there may be ten thousand cells: what a browser has to
fetch and keep is then a fiftieth of the whole answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from helexa.bench.report.answers import Judged, hardware
from helexa.bench.row import in_order
from helexa.bench.stats.summary import summarise
from helexa.bench.stats.verdict import Verdict
from helexa.bench.store.cell import Cell, primary_of
from helexa.bench.store.reader import Lines

MOST_DRAWN = 1000
"""Rows that a browser draws in half a second; whoever wants others chooses a target."""
MOST_WORSE = 6
SHOWN = ("first_token_ms", "decode_rate", "throughput", "load_ms")
Column = list[float | None]


class Names(msgspec.Struct, frozen=True):
    """What there is, whatever was asked for; columns hold places in these lists.

    ``hardware`` goes with ``target``, and ``primary``, what a verdict rests on, with ``scenario``.
    """

    target: list[str]
    hardware: list[str]
    model: list[str]
    scenario: list[str]
    primary: list[str]
    build: list[str]


class Standing(msgspec.Struct, frozen=True):
    """Where every cell stands that was asked for.

    ``word`` is a verdict's, or ``new``, ``failing`` (every run fails, and no build before it was
    better) or ``no figure``; ``change`` as in a verdict, where it is one.
    """

    target: list[int]
    model: list[int]
    scenario: list[int]
    build: list[int]
    word: list[str]
    change: Column


class Figures(msgspec.Struct, frozen=True):
    """A metric's medians with their intervals, to five digits; None where there is no sample."""

    median: Column
    low: Column
    high: Column
    p95: Column


class Rows(msgspec.Struct, frozen=True):
    """Of the first cells all that a table shows.

    ``ways`` is the primary metric over builds, as in ``History``.
    """

    first_at: list[float]
    last_at: list[float]
    ok_runs: list[int]
    failed_runs: list[int]
    refused: list[int]
    old_median: Column
    new_median: Column
    p: Column
    samples: list[tuple[int, int] | None]
    figures: dict[str, Figures]
    ways: list[Column]


class Overview(msgspec.Struct, frozen=True):
    """The newest build of everything against the one before it.

    ``rows`` are whole targets, or the beginning of the first one; ``worse`` the worst of
    ``worse_count``.
    """

    names: Names
    cells: Standing
    rows: Rows
    worse: list[Verdict]
    worse_count: int


def overview(
    found: Judged,
    wanted: Lines,
    ways: dict[tuple[str, str, str], Column],
    *,
    show_host: bool = False,
) -> Overview:
    """What of ``found`` is ``wanted``; ``ways`` are the histories by line."""
    cells = chosen(found, wanted)
    rows = drawn(cells)
    worse = [v for v in found.worse if wanted.takes(v.target, v.model, v.scenario)]
    names = _names(found.cells, show_host=show_host)
    return Overview(
        names,
        _standing(cells, found, names),
        _rows(rows, found, [ways.get(cell.line, []) for cell in rows]),
        worse[:MOST_WORSE],
        len(worse),
    )


def chosen(found: Judged, wanted: Lines) -> list[Cell]:
    """The cells that fit."""
    return [cell for cell in found.cells if wanted.takes(*cell.line)]


def drawn(cells: Sequence[Cell], most: int = MOST_DRAWN) -> list[Cell]:
    """As many whole targets as fit ``most`` rows; of one that does not, its first."""
    if len(cells) <= most:
        return list(cells)
    end = max(i for i in range(most + 1) if i == 0 or cells[i].target != cells[i - 1].target)
    return list(cells[: end or most])


def _names(cells: Sequence[Cell], *, show_host: bool) -> Names:
    of_target: dict[str, str] = {}
    for cell in cells:
        of_target.setdefault(cell.target, hardware(cell, show_host=show_host))
    scenarios = sorted({cell.scenario for cell in cells}, key=in_order)
    return Names(
        target=list(of_target),
        hardware=list(of_target.values()),
        model=_distinct(cell.model for cell in cells),
        scenario=scenarios,
        primary=[primary_of(name) for name in scenarios],
        build=_distinct(cell.build for cell in cells),
    )


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _standing(cells: Sequence[Cell], found: Judged, names: Names) -> Standing:
    def places(name: str) -> list[int]:
        at = {value: i for i, value in enumerate(getattr(names, name))}
        return [at[getattr(cell, name)] for cell in cells]

    words = [_word(cell, found.verdicts.get(cell.line)) for cell in cells]
    return Standing(
        target=places("target"),
        model=places("model"),
        scenario=places("scenario"),
        build=places("build"),
        word=[word for word, _ in words],
        change=[change for _, change in words],
    )


def _word(cell: Cell, verdict: Verdict | None) -> tuple[str, float | None]:
    if cell.dead and (verdict is None or verdict.word != "broken"):
        return "failing", None
    if verdict is None:
        return "new", None
    if verdict.word == "broken":
        return "broken", None
    if not all(verdict.samples):
        return "no figure", None
    return verdict.word, round(verdict.change, 4)


def _rows(cells: Sequence[Cell], found: Judged, ways: list[Column]) -> Rows:
    verdicts = [found.verdicts.get(cell.line) for cell in cells]
    return Rows(
        first_at=[cell.first_at for cell in cells],
        last_at=[cell.last_at for cell in cells],
        ok_runs=[cell.ok_runs for cell in cells],
        failed_runs=[cell.failed_runs for cell in cells],
        refused=[cell.refused for cell in cells],
        old_median=[None if v is None else short(v.old_median) for v in verdicts],
        new_median=[None if v is None else short(v.new_median) for v in verdicts],
        p=[None if v is None else short(v.p) for v in verdicts],
        samples=[None if v is None else v.samples for v in verdicts],
        figures={name: column for name in SHOWN if (column := _figures(cells, name)) is not None},
        ways=[[None if x is None else short(x) for x in way] for way in ways],
    )


def _figures(cells: Sequence[Cell], metric: str) -> Figures | None:
    """A metric's columns; None where no cell has it."""
    summaries = [summarise(cell.samples.get(metric, ())) for cell in cells]
    if not any(summaries):
        return None

    def column(name: str) -> Column:
        return [None if s is None else short(getattr(s, name)) for s in summaries]

    return Figures(column("median"), column("low"), column("high"), column("p95"))


def short(value: float) -> float:
    """To five digits: more than is shown, and than a median of five runs knows."""
    return float(f"{value:.5g}")
