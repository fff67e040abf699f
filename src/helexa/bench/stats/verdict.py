"""Has a build become slower? One verdict per cell, honest about how often it may be wrong.

::

    cells of a model ─▶ together slower? (van Elteren, Holm over groups) ─yes─▶ which cells?
    on a target     └─▶ each alone slower? (Mann-Whitney, Holm over all cells)  (Holm within)

The first road sees a few percent on everything with five samples a cell, and has a verdict of its
own (``judge_groups``); the second one scenario that broke. They share the allowed error
(``share_alone``): if nothing has changed, any alarm at all, of a cell or of a group, is rarer than
``ALPHA``. Below
``LEAST_SHIFT`` nothing is called a change, however significant: nobody would act on it.
A group's own verdict stands under the scenario ``TOGETHER``.
"""

from __future__ import annotations

import math
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

Word = Literal["slower", "faster", "same", "unsure", "broken"]
WORSE: frozenset[Word] = frozenset(("slower", "broken"))
"""What a build is not let through with."""

ALPHA = 0.05
LEAST_SHIFT = 0.03
LEAST_SAMPLES = 3
TOGETHER = "everything"


class Compared(msgspec.Struct, frozen=True):
    """Samples of one cell on the build before and on this one.

    Args:
        broken: It had good runs before, and now every run of it fails: no figure shows that.
    """

    key: CellKey
    metric: str
    old_build: str
    old: tuple[float, ...]
    new: tuple[float, ...]
    higher_is_better: bool = False
    broken: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """One cell's judgement.

    Args:
        word: ``unsure`` is too few runs, or a shift that they do not prove; ``broken`` that
            nothing succeeds any more where something did before.
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
    slower, faster = (_adjusted(cells, alpha, worse=worse) for worse in (True, False))
    return [_verdict(cell, slower[i], faster[i], alpha) for i, cell in enumerate(cells)]


def judge_groups(cells: Sequence[Compared], alpha: float = ALPHA) -> list[Verdict]:
    """A verdict for all cells of a model on a target together, where there are several.

    Sees what no single cell can prove: with many cells of few runs each, none survives the
    correction for their number, and all of them lean to one side.
    """
    groups = [[cells[i] for i in at] for at in _groups(cells).values()]
    slower, faster = (_gates(cells, groups, alpha, worse=worse) for worse in (True, False))
    return [
        _group_verdict(group, slower[i], faster[i], alpha)
        for i, group in enumerate(groups)
        if len(group) > 1
    ]


def _groups(cells: Sequence[Compared]) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault((cell.key.target, cell.key.model), []).append(i)
    return groups


def share_alone(cells: Sequence[Compared], alpha: float = ALPHA) -> float:
    """How much of ``alpha`` single cells have; groups have the rest.

    Half of it. But few runs have few ranks: five and five have no p below 1/252, which among 12
    cells comes to 12/252. Where that is more than half, they have as much as it takes, and nothing
    where all of it would not do (Tarone, 1990).
    """
    sizes = [(len(c.old), len(c.new)) for c in cells if c.old and c.new]
    if len(_groups(cells)) == len(cells) or not sizes:
        return alpha  # no group has two cells
    least = len(cells) / max(math.comb(old + new, new) for old, new in sizes)
    return max(alpha / 2, least) if least <= alpha else 0.0


def _at_share(p: float, share: float, alpha: float) -> float:
    """``p`` as if ``share`` of it were all of ``alpha``."""
    if share <= 0:
        return 1.0
    return alpha if math.isclose(p, share) else min(1.0, p * alpha / share)  # ranks meet it exactly


def _gates(
    cells: Sequence[Compared], groups: Sequence[Sequence[Compared]], alpha: float, *, worse: bool
) -> list[float]:
    """Every group's adjusted p."""
    share = alpha - share_alone(cells, alpha)
    ps = holm([_together(group, worse=worse) for group in groups])
    return [_at_share(p, share, alpha) for p in ps]


def _together(group: Sequence[Compared], *, worse: bool) -> float:
    return stratified_p_greater([_sides(cell, worse=worse) for cell in group])


def _adjusted(cells: Sequence[Compared], alpha: float, *, worse: bool) -> list[float]:
    """The smaller of the two roads' adjusted p for every cell."""
    singles = [p_greater(*_sides(cell, worse=worse)) for cell in cells]
    groups = list(_groups(cells).values())
    gates = _gates(cells, [[cells[i] for i in at] for at in groups], alpha, worse=worse)
    alone = share_alone(cells, alpha)
    adjusted = [_at_share(p, alone, alpha) for p in holm(singles)]
    for gate, at in zip(gates, groups, strict=True):
        for i, p in zip(at, holm([singles[i] for i in at]), strict=True):
            adjusted[i] = min(adjusted[i], max(gate, p))
    return adjusted


def _sides(cell: Compared, *, worse: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    up = worse != cell.higher_is_better
    if up:
        return cell.old, cell.new
    return tuple(-x for x in cell.old), tuple(-x for x in cell.new)


def _verdict(cell: Compared, slower: float, faster: float, alpha: float) -> Verdict:
    change = shift_ratio(cell.old, cell.new) - 1 if cell.old and cell.new else 0.0
    worse = _worse(cell, change)
    word = _word(slower, faster, worse, alpha)
    if min(len(cell.old), len(cell.new)) < LEAST_SAMPLES:
        word = "unsure"
    if cell.broken:
        word = "broken"
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


def _group_verdict(
    group: Sequence[Compared], slower: float, faster: float, alpha: float
) -> Verdict:
    """``change`` is the middle one of its cells', in the direction where + is worse."""
    worse = median(
        sorted(
            _worse(cell, shift_ratio(cell.old, cell.new) - 1)
            for cell in group
            if cell.old and cell.new
        )
        or [0.0]
    )
    key = group[0].key
    return Verdict(
        target=key.target,
        model=key.model,
        scenario=TOGETHER,
        metric=TOGETHER,
        old_build=group[0].old_build,
        new_build=key.build,
        word=_word(slower, faster, worse, alpha),
        old_median=1.0,
        new_median=1.0 + worse,
        change=worse,
        p=faster if worse < 0 else slower,
        effect=median(sorted(superiority(*_sides(cell, worse=True)) for cell in group)),
        samples=(sum(len(c.old) for c in group), sum(len(c.new) for c in group)),
    )


def _word(slower: float, faster: float, worse: float, alpha: float) -> Word:
    if slower <= alpha and worse >= LEAST_SHIFT:
        return "slower"
    if faster <= alpha and worse <= -LEAST_SHIFT:
        return "faster"
    return "same" if abs(worse) < LEAST_SHIFT else "unsure"  # half as fast is not the same


def _worse(cell: Compared, change: float) -> float:
    return -change if cell.higher_is_better else change
