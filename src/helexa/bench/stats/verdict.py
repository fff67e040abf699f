"""Has a build become slower? One verdict per cell, honest about how often it may be wrong.

::

    cells of a target ─▶ together slower? (van Elteren, Holm over targets) ─yes─▶ which cells?
                     └─▶ each alone slower? (Mann-Whitney, Holm over all cells)   (Holm within)

With several targets half of the allowed error goes to each road: the first sees a few percent on
everything with five samples a cell, the second one scenario that broke. With one target they are
the same test. If nothing has changed, any alarm at all is rarer than ``ALPHA``. Below
``LEAST_SHIFT`` nothing is called a change, however significant: nobody would act on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from helexa.bench.row import CellKey
from helexa.bench.stats.ranks import (
    holm,
    p_greater,
    shift_ratio,
    stratified_p_greater,
    superiority,
)
from helexa.bench.stats.summary import median

Word = Literal["slower", "faster", "same", "unsure"]

ALPHA = 0.05
LEAST_SHIFT = 0.03
LEAST_SAMPLES = 3


class Compared(msgspec.Struct, frozen=True):
    """Samples of one cell on the build before and on this one."""

    key: CellKey
    metric: str
    old_build: str
    old: tuple[float, ...]
    new: tuple[float, ...]
    higher_is_better: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """One cell's judgement.

    Args:
        change: New ÷ old − 1 of the metric as measured; + is more.
        p: Holm-adjusted, one-sided in the direction of ``word``.
        effect: Chance that a new sample is worse than an old one; 0.5 is no difference.
    """

    target: str
    model: str
    scenario: str
    metric: str
    old_build: str
    new_build: str
    word: Word
    old_median: float
    new_median: float
    change: float
    p: float
    effect: float
    samples: tuple[int, int]


def judge(cells: Sequence[Compared], alpha: float = ALPHA) -> list[Verdict]:
    """A verdict for every cell."""
    slower, faster = _adjusted(cells, worse=True), _adjusted(cells, worse=False)
    return [_verdict(cell, slower[i], faster[i], alpha) for i, cell in enumerate(cells)]


def _adjusted(cells: Sequence[Compared], *, worse: bool) -> list[float]:
    """The smaller of the two roads' adjusted p for every cell."""
    sides = [_sides(cell, worse=worse) for cell in cells]
    singles = [p_greater(old, new) for old, new in sides]
    groups: dict[str, list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault(cell.key.target, []).append(i)
    alone = holm(singles)
    if len(groups) == 1:
        return alone
    gates = holm([stratified_p_greater([sides[i] for i in at]) for at in groups.values()])
    adjusted = [min(1.0, 2 * p) for p in alone]
    for gate, at in zip(gates, groups.values(), strict=True):
        for i, p in zip(at, holm([singles[i] for i in at]), strict=True):
            adjusted[i] = min(adjusted[i], max(2 * gate, p))
    return adjusted


def _sides(cell: Compared, *, worse: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    up = worse != cell.higher_is_better
    if up:
        return cell.old, cell.new
    return tuple(-x for x in cell.old), tuple(-x for x in cell.new)


def _verdict(cell: Compared, slower: float, faster: float, alpha: float) -> Verdict:
    change = shift_ratio(cell.old, cell.new) - 1 if cell.old and cell.new else 0.0
    worse = -change if cell.higher_is_better else change
    word: Word = "same"
    if min(len(cell.old), len(cell.new)) < LEAST_SAMPLES:
        word = "unsure"
    elif slower <= alpha and worse >= LEAST_SHIFT:
        word = "slower"
    elif faster <= alpha and worse <= -LEAST_SHIFT:
        word = "faster"
    above = superiority(cell.old, cell.new)
    return Verdict(
        target=cell.key.target,
        model=cell.key.model,
        scenario=cell.key.scenario,
        metric=cell.metric,
        old_build=cell.old_build,
        new_build=cell.key.build,
        word=word,
        old_median=median(sorted(cell.old)) if cell.old else 0.0,
        new_median=median(sorted(cell.new)) if cell.new else 0.0,
        change=change,
        p=faster if worse < 0 else slower,
        effect=1 - above if cell.higher_is_better else above,
        samples=(len(cell.old), len(cell.new)),
    )
