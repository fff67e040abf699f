"""What takes the whole store to answer, kept as long as it is true."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
SHARE = 0.05
"""Of one core, at most, whoever looks on, and however often the store changes."""
QUICK_S = 0.03
"""What takes no longer is never older than the store."""


class Kept(Generic[T]):
    """An answer that is made again when the store has changed, by one thread at a time.

    ``helexa bench run`` measures in the process that answers, and stores a run every few seconds:
    what took long to compute is kept somewhat longer than it is true, so that a page that stands
    open does not take the time of the streams that are timed.

    Args:
        make: Computes the answer.
        state: Differs once something was stored.
        now: A clock, in seconds.
        spent: The calling thread's time on a core, in seconds.
    """

    def __init__(
        self,
        make: Callable[[], T],
        state: Callable[[], object],
        now: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        self._make = make
        self._state = state
        self._now = now
        self._spent = spent
        self._lock = threading.Lock()
        self._made: tuple[object, T] | None = None
        self._until = 0.0

    def get(self) -> T:
        """The answer.

        Raises:
            StoreError: From ``make`` or ``state``.
        """
        with self._lock:
            state, made = self._state(), self._made
            if made is None or (made[0] != state and self._now() >= self._until):
                began = self._spent()
                made = self._made = state, self._make()
                cost = self._spent() - began
                self._until = self._now() + (cost / SHARE if cost > QUICK_S else 0.0)
            return made[1]
