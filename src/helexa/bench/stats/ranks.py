"""Comparing two sets of samples by their ranks: no assumption about how noise is distributed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from helexa.bench.stats.summary import median

EXACT_UP_TO = 100
"""Products of sample sizes up to which the distribution is counted out."""


class RankSum(NamedTuple):
    """Rank sum of the second set with its expectation and variance under no difference."""

    w: float
    mean: float
    variance: float


def midranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1; equal values share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        stop = start
        while stop < len(order) and values[order[stop]] == values[order[start]]:
            stop += 1
        for i in order[start:stop]:
            ranks[i] = (start + 1 + stop) / 2
        start = stop
    return ranks


def rank_sum(old: Sequence[float], new: Sequence[float]) -> RankSum:
    """Wilcoxon's rank sum of ``new`` among both, with the variance corrected for ties."""
    ranks = midranks([*old, *new])
    m, n = len(old), len(new)
    total = m + n
    mean_rank = (total + 1) / 2
    spread = sum((rank - mean_rank) ** 2 for rank in ranks)
    variance = m * n * spread / (total * (total - 1)) if total > 1 else 0.0
    return RankSum(sum(ranks[m:]), n * mean_rank, variance)


def p_greater(old: Sequence[float], new: Sequence[float]) -> float:
    """One-sided Mann-Whitney: the chance of ranks this high in ``new`` if nothing had changed.

    Counted out for small sets, ties included; beyond them by the normal approximation with
    continuity correction.
    """
    if not old or not new:
        return 1.0
    ranks = midranks([*old, *new])
    observed = sum(ranks[len(old) :])
    if len(old) * len(new) <= EXACT_UP_TO:
        return _exact(ranks, len(new), observed)
    stat = rank_sum(old, new)
    if stat.variance == 0:
        return 1.0
    return upper_tail((stat.w - stat.mean - 0.5) / math.sqrt(stat.variance))


def _exact(ranks: list[float], chosen: int, observed: float) -> float:
    """Share of all choices of ``chosen`` ranks whose sum is at least ``observed``."""
    doubled = tuple(sorted(round(2 * rank) for rank in ranks))
    sums = _sums(doubled, chosen)
    aim = round(2 * observed)
    high = sum(count for total, count in sums.items() if total >= aim)
    return high / math.comb(len(ranks), chosen)


@lru_cache(maxsize=1024)
def _sums(doubled: tuple[int, ...], chosen: int) -> dict[int, int]:
    """How often each sum occurs over all choices of ``chosen`` of the ranks.

    Doubled midranks are integers, so sums can be counted in a table. Without ties the ranks are
    the same for all sets of a size, so the table is made once.
    """
    ways: list[dict[int, int]] = [{} for _ in range(chosen + 1)]
    ways[0][0] = 1
    for rank in doubled:
        for size in range(chosen, 0, -1):
            into = ways[size]
            for total, count in ways[size - 1].items():
                into[total + rank] = into.get(total + rank, 0) + count
    return ways[chosen]


def stratified_p_greater(strata: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float:
    """Van Elteren's test: is ``new`` higher than ``old`` over all strata together?

    Rank sums are weighted by 1 / (size + 1), which is optimal when each stratum shifts alike.
    Sees a small slowdown of everything that no single cell could prove.
    """
    excess = variance = 0.0
    for old, new in strata:
        if not old or not new:
            continue
        stat = rank_sum(old, new)
        weight = 1 / (len(old) + len(new) + 1)
        excess += weight * (stat.w - stat.mean)
        variance += weight**2 * stat.variance
    return upper_tail(excess / math.sqrt(variance)) if variance > 0 else 1.0


def upper_tail(z: float) -> float:
    """P(standard normal > z)."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: the family-wise error of all of them stays at alpha."""
    adjusted = [1.0] * len(ps)
    highest = 0.0
    for step, i in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - step) * ps[i]))
        adjusted[i] = highest
    return adjusted


def shift_ratio(old: Sequence[float], new: Sequence[float]) -> float:
    """Hodges-Lehmann estimate of new ÷ old: the median of all pairwise ratios (positive values)."""
    ratios = sorted(n / o for n in new for o in old if o > 0)
    return median(ratios) if ratios else 1.0


def superiority(old: Sequence[float], new: Sequence[float]) -> float:
    """Effect size: the chance that a ``new`` sample is above an ``old`` one (ties count half)."""
    if not old or not new:
        return 0.5
    wins = sum(1.0 if n > o else 0.5 if n == o else 0.0 for n in new for o in old)
    return wins / (len(old) * len(new))
