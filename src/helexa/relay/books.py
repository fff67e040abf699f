"""The bookkeeping of ended exchanges, done in batches.

Counting, remembering and logging a request costs twice as much between two other requests as it
does right behind its like, because the caches hold something else by then. So an ended exchange
is noted here and booked a moment later with whatever ended meanwhile. Nobody sees the delay:
whoever reads (a scrape, a management route, the end of the process) flushes first. What others
wait for (a gateway's settlement of a key near the end of its cap) is not put off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

DELAY_S = 0.1
MOST = 64
"""A batch costs about half a millisecond."""


class Books(Generic[T]):
    """Notes things and books them together.

    Args:
        book: Books what has gathered; must not raise.
    """

    __slots__ = ("_armed", "_book", "_loop", "_noted")

    def __init__(self, book: Callable[[list[T]], None], loop: asyncio.AbstractEventLoop) -> None:
        self._book = book
        self._loop = loop
        self._noted: list[T] = []
        self._armed = False

    def note(self, thing: T) -> None:
        """Book ``thing`` within ``DELAY_S``."""
        noted = self._noted
        noted.append(thing)
        if len(noted) >= MOST:
            self.flush()
        elif not self._armed:
            self._armed = True
            self._loop.call_later(DELAY_S, self._due)

    def flush(self) -> None:
        """Book everything that was noted."""
        noted, self._noted = self._noted, []
        if noted:
            self._book(noted)

    def _due(self) -> None:
        self._armed = False
        self.flush()
