"""Two sides that take turns, there and back again, and the ratio of what they did.

A machine that becomes slower or faster meanwhile does so for both, so the rounds' ratios count
and not the ratio of what was measured in all.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import TypeVar

TURNS = 2  # of each side in a round: one on the way there, one on the way back

_Side = TypeVar("_Side")


def there_and_back(one: _Side, other: _Side, number: int) -> tuple[_Side, ...]:
    """The sides of a round in the order of their turns; each begins every other round."""
    there = (one, other) if number % 2 else (other, one)
    return (*there, *reversed(there))


def per_round(turns: Sequence[float], mean: Callable[[Sequence[float]], float]) -> list[float]:
    """One figure for each round's turns."""
    return [mean(turns[at : at + TURNS]) for at in range(0, len(turns), TURNS)]


def ratio(ours: Sequence[float], bare: Sequence[float], *, rates: bool) -> tuple[float, str]:
    """Median of the rounds' ratios, and between what it lies with 95 %."""
    mean = statistics.harmonic_mean if rates else statistics.fmean
    pairs = zip(per_round(ours, mean), per_round(bare, mean), strict=True)
    each = [a / b for a, b in pairs]
    low, high = confidence(each)
    return statistics.median(each), f"{low:.3f} to {high:.3f} (95 %), {len(each)} rounds"


def confidence(values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """The middle 95 % of medians of as many values drawn from these (bootstrap)."""
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return medians[draws // 40], medians[-1 - draws // 40]
