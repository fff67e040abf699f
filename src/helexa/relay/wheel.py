"""A coarse timer wheel: thousands of deadlines for the price of one timer.

The timer is set for the first slot that has entries, so a wheel with nothing due sleeps.

Deadlines on the relay are lazy: an entry is asked when it was due at the earliest and answers
when it wants to be asked again, or None. Nothing is ever cancelled, so arming costs one list
append. What is short-lived is ``watch``-ed through a weak reference: a request's deadline of
30 s must not keep every finished request for 30 s.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Protocol
from weakref import ref

Entry = Callable[[float], float | None]
"""Called with the loop's time; returns the next due time, or None to be dropped."""

_BEHIND = 0.02  # of a tick
_BATCH = 400  # entries per loop iteration, so that a full slot never holds the loop for 1 ms


class Watched(Protocol):
    """Something with deadlines that can be referenced weakly."""

    def watch(self, now: float) -> float | None:
        """Look at the deadlines; returns when to look again, or None."""


class Wheel:
    """Deadlines with a resolution of ``tick`` seconds, never early, late by at most two ticks."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick: float = 0.05) -> None:
        self._loop = loop
        self._tick = tick
        self._slots: dict[int, list[Entry | ref[Watched]]] = {}
        self._order: list[int] = []  # a heap of the slots' numbers
        self._due: deque[Entry | ref[Watched]] = deque()
        self._cursor = 0  # slots below have been turned
        self._timer: asyncio.TimerHandle | None = None
        self._when = 0.0  # what the timer is set for
        self._working = False

    def __len__(self) -> int:
        return len(self._due) + sum(map(len, self._slots.values()))

    def at(self, due: float, entry: Entry) -> None:
        """Ask ``entry`` at loop time ``due`` (seconds) or up to two ticks later."""
        self._put(due, entry)

    def watch(self, due: float, target: Watched) -> None:
        """Like ``at`` with ``target.watch``, as long as somebody else keeps ``target`` alive."""
        self._put(due, ref(target))

    def _put(self, due: float, entry: Entry | ref[Watched]) -> None:
        # What was due in the past is due at the next turn.
        slot = max(int(due / self._tick) + 1, self._cursor)
        entries = self._slots.get(slot)
        if entries is not None:
            entries.append(entry)
            return
        self._slots[slot] = [entry]
        heappush(self._order, slot)
        self._arm(slot)

    def _arm(self, slot: int) -> None:
        """Turn when ``slot`` is due, and not before a tick has passed; or sooner, if so set."""
        # A little behind the slot's edge: a timer that is rounded must not turn before it.
        when = max((slot + _BEHIND) * self._tick, self._loop.time() + self._tick)
        if self._timer is not None:
            if self._when <= when:
                return
            self._timer.cancel()
        self._when = when
        self._timer = self._loop.call_at(when, self._turn)

    def _turn(self) -> None:
        self._timer = None
        here = int(self._loop.time() / self._tick)
        order = self._order
        while order and order[0] <= here:
            self._due.extend(self._slots.pop(heappop(order)))
        self._cursor = here + 1
        if order:
            self._arm(order[0])
        if self._due and not self._working:
            self._work()

    def _work(self) -> None:
        now = self._loop.time()
        due = self._due
        for _ in range(min(_BATCH, len(due))):
            entry = due.popleft()
            try:
                again = self._ask(entry, now)
            except Exception as error:  # noqa: BLE001  # one bad entry must not stop every deadline
                self._loop.call_exception_handler(
                    {"message": "a deadline's entry raised", "exception": error}
                )
                continue
            if again is not None:
                self._put(again if again > now else now + self._tick, entry)
        self._working = bool(due)
        if due:
            self._loop.call_soon(self._work)

    @staticmethod
    def _ask(entry: Entry | ref[Watched], now: float) -> float | None:
        if isinstance(entry, ref):
            target = entry()
            return None if target is None else target.watch(now)
        return entry(now)
