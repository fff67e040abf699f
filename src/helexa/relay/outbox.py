"""Whole messages that leave together at the end of the loop's turn.

Every write wakes whoever reads it, and waking a process that sleeps costs more than the write.
While many connections are served, a turn of the loop reads from many of them; what is to be sent
because of that is put here and leaves when all has been read, so that one wake-up serves several
messages, and the kernel's way out and ours are walked one after the other instead of in turns.

Only whole messages are put here: a request to a node, a whole answer. Tokens never wait. Who is
alone does not either: when turns bring one message each, writes go straight out for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

Write = Callable[[bytes], object]

_FEW = 2  # messages a turn for which it is not worth it
_LONELY = 16  # so many such turns in a row ...
_DIRECT = 512  # ... and so many writes go straight out before it is tried again


class Outbox:
    """What is to be written at the end of this turn of the loop.

    Attributes:
        turn: Another number after every flush; what was put at another turn has left.
    """

    __slots__ = ("_direct", "_lonely", "_loop", "_waiting", "turn")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[Write, bytes]] = []
        self._lonely = 0
        self._direct = 0
        self.turn = 0

    def put(self, write: Write, data: bytes) -> None:
        """Have ``write(data)`` called within this turn."""
        if self._direct:
            self._direct -= 1
            write(data)
            return
        if not self._waiting:
            self._loop.call_soon(self._due)
        self._waiting.append((write, data))

    def flush(self) -> None:
        """Write everything now."""
        waiting, self._waiting = self._waiting, []
        self.turn += 1
        for write, data in waiting:
            try:
                write(data)
            except RuntimeError:  # its transport has been closed meanwhile
                continue

    def _due(self) -> None:
        if len(self._waiting) > _FEW:
            self._lonely = 0
        else:
            self._lonely += 1
            if self._lonely >= _LONELY:
                self._lonely, self._direct = 0, _DIRECT
        self.flush()
