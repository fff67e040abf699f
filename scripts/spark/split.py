"""The line between training and evaluation, and the source of random choices on either side.

A combination of words belongs to the evaluation when a hash of it says so (about one in ten); the
training generator redraws until the hash says no. Phrasings of capitals and sums are split by
hand, into the lists of `plain.py`. Nothing else separates the two: the same code writes both.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
SHARE = 26  # of 256


def is_held_out(kind: str, parts: Sequence[str]) -> bool:
    """Say whether a combination, say ("name", ["get", "weather"]), is kept for evaluation."""
    text = "\x1f".join((kind, *parts)).lower()
    return hashlib.blake2b(text.encode(), digest_size=1).digest()[0] < SHARE


@dataclass(slots=True)
class Draw:
    """Random choices, all combinations on one side of the split.

    `used` records each combination handed out, so that tests can prove the separation.
    """

    rng: random.Random
    held_out: bool = False
    used: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def between(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def combination(self, kind: str, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
        """Call `make` until its result is on our side; single words are on both."""
        while True:
            parts = make()
            if len(parts) < 2 or is_held_out(kind, parts) == self.held_out:
                self.used.append((kind, parts))
                return parts

    def words(self, pool: Sequence[str], low: int, high: int) -> tuple[str, ...]:
        """Between `low` and `high` words of the pool, as a combination."""
        count = self.between(low, high)
        return self.combination("words", lambda: tuple(self.pick(pool) for _ in range(count)))

    def several(self, options: Sequence[T], count: int) -> list[T]:
        return self.rng.sample(list(options), count)
