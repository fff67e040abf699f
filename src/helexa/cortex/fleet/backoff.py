"""How long to wait before trying a thing again; one per (node, thing)."""

from __future__ import annotations

import random


class Backoff:
    """Doubling waits with jitter, forgotten at the first success.

    Args:
        first_s: Wait after the first failure.
        longest_s: No wait is longer than this (before jitter).
        rng: Spreads waits over ±20 %, so that nodes are not tried in step.
    """

    __slots__ = ("_first", "_longest", "_rng", "failures")

    def __init__(self, first_s: float, longest_s: float, rng: random.Random) -> None:
        self._first = first_s
        self._longest = longest_s
        self._rng = rng
        self.failures = 0

    def failed(self) -> float:
        """Count a failure; the seconds to wait now."""
        wait = min(self._longest, self._first * 2.0 ** min(self.failures, 20))
        self.failures += 1
        return self.spread(wait)

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures = 0

    def spread(self, seconds: float) -> float:
        """``seconds`` with jitter."""
        return seconds * self._rng.uniform(0.8, 1.2)
