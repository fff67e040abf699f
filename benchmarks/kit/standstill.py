"""A clock that stands still when the machine does.

Long runs meet other work: a machine that is suspended, or that gives us no processor for seconds,
is not what they measure. Whatever kept even a ticker from running is taken out, and reported.
"""

from __future__ import annotations

import asyncio
import time
from typing import Self

TICK_S, STALL_S = 0.05, 0.5


class Standstill:
    """Use ``async with``; times are of ``perf_counter``."""

    def __init__(self) -> None:
        self._stalls: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _tick(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            if now - last > STALL_S:
                self._stalls.append((last, now))
            last = now

    @property
    def total(self) -> float:
        """Seconds that are taken out."""
        return sum(stop - start for start, stop in self._stalls)

    def between(self, start: float, stop: float) -> float:
        """Seconds from ``start`` to ``stop`` in which the machine ran."""
        lost = sum(max(0.0, min(stop, b) - max(start, a)) for a, b in self._stalls)
        return stop - start - lost
