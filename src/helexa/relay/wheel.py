"""A coarse timer wheel: thousands of deadlines for the price of one timer.

Deadlines on the relay are lazy: an entry is asked when it was due at the earliest and answers
when it wants to be asked again, or None. Nothing is ever cancelled, so arming costs one list
append; an entry that has ended answers None and is forgotten.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

Entry = Callable[[float], float | None]
"""Called with the loop's time; returns the next due time, or None to be dropped."""

_BATCH = 400  # entries per loop iteration, so that a full slot never holds the loop for 1 ms


class Wheel:
    """Deadlines with a resolution of ``tick`` seconds, never early, late by at most two ticks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = 0.05) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, list[Entry]] = {}
        self._due: deque[Entry] = deque()
        self._cursor = 0
        self._armed = False

    def __len__(self) -> int:
        return len(self._due) + sum(map(len, self._slots.values()))

    def at(self, due: float, entry: Entry) -> None:
        """Ask ``entry`` at loop time ``due`` (seconds) or up to two ticks later."""
        slot = int(due / self._tick) + 1
        entries = self._slots.get(slot)
        if entries is None:
            self._slots[slot] = [entry]
        else:
            entries.append(entry)
        if not self._armed:
            self._armed = True
            self._cursor = min(slot, int(self._loop.time() / self._tick))
            self._loop.call_later(self._tick, self._turn)

    def _turn(self) -> None:
        now = self._loop.time()
        here = int(now / self._tick)
        for slot in range(self._cursor, here + 1):
            entries = self._slots.pop(slot, None)
            if entries is not None:
                self._due.extend(entries)
        self._cursor = here + 1
        self._work()
        if self._slots or self._due:
            self._loop.call_later(self._tick, self._turn)
        else:
            self._armed = False

    def _work(self) -> None:
        now = self._loop.time()
        due = self._due
        for _ in range(min(_BATCH, len(due))):
            entry = due.popleft()
            again = entry(now)
            if again is not None:
                self.at(again if again > now else now + self._tick, entry)
        if due:
            self._loop.call_soon(self._work)
