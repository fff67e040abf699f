"""What a handful of samples says: median with its uncertainty, percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import msgspec

CONFIDENCE = 0.95


class Summary(msgspec.Struct, frozen=True):
    """Median of ``n`` samples and the bootstrap interval around it."""

    n: int
    median: float
    low: float
    high: float
    p95: float
    p99: float


def summarise(samples: Sequence[float], confidence: float = CONFIDENCE) -> Summary | None:
    """Median, interval and tails; None without samples."""
    if not samples:
        return None
    ordered = sorted(samples)
    low, high = median_interval(ordered, confidence)
    return Summary(
        len(ordered),
        median(ordered),
        low,
        high,
        percentile(ordered, 0.95),
        percentile(ordered, 0.99),
    )


def median(ordered: Sequence[float]) -> float:
    """Of samples in order; the mean of the middle two when their number is even."""
    n = len(ordered)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


def percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between closest ranks of samples in order."""
    at = (len(ordered) - 1) * share
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def median_interval(
    ordered: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The percentile bootstrap interval of the median of samples in order, exactly.

    Resampling is not needed: of ``n`` draws with replacement, the number that falls on the ``k``
    smallest samples is binomial (n, k/n), and the resample's median is at most the ``k``-th
    sample if that number reaches the middle (Efron, 1979). For an even ``n`` the lower and the
    upper middle bound the median, so the interval is at most wider.
    """
    low, high = _bounds(len(ordered), confidence)
    return ordered[low], ordered[high]


@lru_cache(maxsize=1024)
def _bounds(n: int, confidence: float) -> tuple[int, int]:
    """Indices of the interval's ends among ``n`` samples in order."""
    tail = (1 - confidence) / 2
    lower, upper = (n + 1) // 2, n // 2 + 1  # draws at or below it that put the median there
    low = next(k for k in range(1, n + 1) if _at_least(n, lower, k / n) > tail)
    high = next(k for k in range(1, n + 1) if _at_least(n, upper, k / n) >= 1 - tail)
    return low - 1, high - 1


def _at_least(n: int, hits: int, chance: float) -> float:
    """P(Binomial(n, chance) >= hits)."""
    if chance >= 1:
        return 1.0
    return sum(math.comb(n, i) * chance**i * (1 - chance) ** (n - i) for i in range(hits, n + 1))
