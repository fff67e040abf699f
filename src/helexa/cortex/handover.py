"""How the loop hands the interpreter over to a thread that somebody waits for.

::

    loop    ├──work──┤ turn ├──work──┤ glance ├──work──┤ glance ├──work─▶ the answer
    thread           ├──────┤  commit, synced to the disk  ├────┤
                    statements                            outcomes

A thread needs the interpreter again after every statement. A loop that never rests lets go of it
between two callbacks only, for less time than a thread takes to wake up, so the thread may lose
that race for a tenth of a second, at every statement anew. While somebody waits for what it does,
the loop stands still now and then, until the thread has no need of the interpreter for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Final

EVERY_S: Final = 0.001
"""Between two turns, and before the first: a loop that rests has its answer by then."""

SELDOM_S: Final = 0.004
"""After many turns in vain: the thread waits for others."""

SLOWER: Final = 1.125
"""By so much each turn in vain puts off the next; a batch of rows takes a few of them."""

TURN_S: Final = 0.0005
"""The longest that the loop stands still for a thread at its statements."""

GLANCE_S: Final = 0.00005
"""And for one that may be anywhere; the loop's own thread takes as long again to wake up."""


class Handover:
    """Between the loop and one thread, which writes to a database."""

    def __init__(self) -> None:
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._working = False
        self._pause_s = EVERY_S
        self._over = threading.Lock()
        self._over.acquire()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Inside, somebody on the loop waits for what the thread does."""
        self._waiting += 1
        if self._timer is None:
            self._pause_s = EVERY_S
            self._timer = asyncio.get_running_loop().call_later(EVERY_S, self._turn)
        try:
            yield
        finally:
            self._waiting -= 1

    def begins(self) -> None:
        """The thread has statements before it, one after the other."""
        self._working = True

    def ends(self) -> None:
        """Said by the thread: it commits now, or has nothing to do."""
        self._working = False
        if self._over.locked():
            self._over.release()

    def _turn(self) -> None:
        self._timer = None
        if self._waiting:
            self._over.acquire(blocking=False)  # said while nobody stood still for it
            over = self._over.acquire(timeout=TURN_S if self._working else GLANCE_S)
            self._pause_s = EVERY_S if over else min(SLOWER * self._pause_s, SELDOM_S)
            self._timer = asyncio.get_running_loop().call_later(self._pause_s, self._turn)
