"""Turns at something that few may do at once, fair by who asks.

::

    key a: ○ ○ ○ ○        the next turn is the next key's, whoever came first; within a key
    key b: ○         ──▶  those who came first go first: a b a a a
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_Turn = asyncio.Future[None]


@dataclass(slots=True)
class Turns:
    """So many at once; others wait.

    Args:
        free: Turns that nobody has.
    """

    free: int
    _waiting: OrderedDict[str, deque[_Turn]] = field(default_factory=OrderedDict)

    @asynccontextmanager
    async def of(self, key: str) -> AsyncGenerator[None]:
        """Wait for a turn of ``key`` and have it until the block ends."""
        if self.free:
            self.free -= 1
        else:
            await self._wait(key)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, key: str) -> None:
        turn: _Turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._pass_on()  # it came as its waiter left
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            key, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[key] = turns  # behind every other key
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
