"""When requests of an open-loop run arrive."""

from __future__ import annotations

import random


def poisson(rate: float, count: int, seed: int) -> list[float]:
    """Seconds from the start of ``count`` arrivals at ``rate`` per second, seeded."""
    draw = random.Random(seed)
    at, times = 0.0, []
    for _ in range(count):
        at += draw.expovariate(rate)
        times.append(at)
    return times
