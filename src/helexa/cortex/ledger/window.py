"""One cap as a store keeps it: what is spent in its window, and what is held.

A rolling window is cut into 60 buckets of equal width, numbered by the clock::

      bucket i          i+1                      i+60          i+61
    ├────────────┼────────────┼──  …  ──┼────────────┼────────────┤
     spend at t                                        t + window is
                                                       in bucket i+60

Spend of bucket *i* counts until bucket *i + 61* begins: every token of it is then older than
the window, so the sum is never too small and at most one bucket too large.

A clock that steps back a little books into the latest bucket. One that steps back by more has been
set, and what was booked meanwhile lies in the future: it counts from now on, for one window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Literal

from helexa.core.principal import Cap
from helexa.cortex.ledger.base import WindowUsage

BUCKETS = 60
AHEAD_S = 60
"""A clock that has been ahead by more than this was wrong; those of one ledger differ by less."""


class CapState:
    """Integers only."""

    __slots__ = ("_buckets", "_latest", "_spent", "cap", "limit", "scope", "seconds")

    def __init__(self, cap: Cap, scope: Literal["key", "account"] = "key") -> None:
        self.cap = cap
        self.scope = scope
        self.limit = cap.tokens
        self.seconds = (cap.window.seconds or 1) if cap.window.kind == "rolling" else 0
        self._spent = 0
        self._buckets: deque[list[int]] = deque()  # [index, tokens], oldest first
        self._latest = 0

    @property
    def rolling(self) -> bool:
        """Whether spend leaves again."""
        return self.seconds > 0

    def load(self, spent: int, buckets: Iterable[tuple[int, int]]) -> None:
        """Take over what a store knows.

        Args:
            spent: Tokens spent ever; counts for a balance.
            buckets: Index and tokens, oldest first; they count for a rolling window.
        """
        if self.seconds:
            self._buckets = deque([index, tokens] for index, tokens in buckets)
            spent = sum(bucket[1] for bucket in self._buckets)
            if self._buckets:
                self._latest = max(self._latest, self._buckets[-1][0])
        self._spent = spent

    @property
    def buckets(self) -> tuple[tuple[int, int], ...]:
        """As ``load`` takes them."""
        return tuple((index, tokens) for index, tokens in self._buckets)

    def spent(self, now: float) -> int:
        """Tokens that count against the cap at ``now`` (epoch seconds)."""
        if self._buckets:
            oldest = self._index(now) - BUCKETS
            while self._buckets and self._buckets[0][0] < oldest:
                self._spent -= self._buckets.popleft()[1]
        return self._spent

    def available(self, now: float, held: int = 0) -> int:
        """Tokens that may still be granted beside those ``held``; never below 0."""
        return max(0, self.limit - self.spent(now) - held)

    def book(self, tokens: int, now: float) -> None:
        """Spend ``tokens`` now."""
        if not tokens:
            return
        if self.seconds:
            index = self._index(now)
            if self._buckets and self._buckets[-1][0] == index:
                self._buckets[-1][1] += tokens
            else:
                self._buckets.append([index, tokens])
        self._spent += tokens

    def room_at(self, now: float) -> float:
        """When (epoch seconds) spend will have left so far that a token fits; for rolling caps."""
        left = self.spent(now)
        for index, tokens in self._buckets:
            left -= tokens
            if left < self.limit:
                return self._leaves(index)
        return now + self.seconds

    def empty_in(self, now: float) -> float | None:
        """Seconds until nothing spent so far counts any more; None for a balance."""
        if not self.seconds:
            return None
        return max(0.0, self._leaves(self._buckets[-1][0]) - now) if self._buckets else 0.0

    def usage(self, now: float, held: int) -> WindowUsage:
        """The cap as its key sees it, with what is ``held`` by open grants."""
        spent = self.spent(now)
        return WindowUsage(
            hard_cap=self.limit,
            spent_tokens=spent,
            open_tokens=held,
            available_tokens=self.available(now, held),
            window=self.cap.window,
            resets_at=self._leaves(self._buckets[0][0]) if self._buckets else None,
            scope=self.scope,
        )

    def _index(self, now: float) -> int:
        index = bucket_of(int(now * 1000), self.seconds)
        if index < self._latest:
            # A clock that steps back must not split a bucket or order them wrongly.
            if self._latest <= bucket_of(int(now + AHEAD_S) * 1000, self.seconds):
                return self._latest
            self._set_back(index)
        self._latest = index
        return index

    def _set_back(self, index: int) -> None:
        tokens = 0
        while self._buckets and self._buckets[-1][0] >= index:
            tokens += self._buckets.pop()[1]
        if tokens:
            self._buckets.append([index, tokens])

    def _leaves(self, index: int) -> float:
        return (index + BUCKETS + 1) * self.seconds / BUCKETS


def bucket_of(at_ms: int, seconds: int) -> int:
    """The bucket of a window of ``seconds`` that a moment (epoch milliseconds) falls into; SQL
    computes the same with the same whole numbers."""
    return at_ms * BUCKETS // (seconds * 1000)
