"""The fake engine's slots: who runs, who waits, what each remembers."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Slot:
    """One seat; ``tokens`` is what its cache holds."""

    index: int
    busy: bool = False
    tokens: list[str] = field(default_factory=list)

    def shared(self, prompt: list[str]) -> int:
        """Tokens at the start of ``prompt`` that are cached; at least one is always computed."""
        count = 0
        for mine, other in zip(self.tokens, prompt, strict=False):
            if mine != other:
                break
            count += 1
        return min(count, max(0, len(prompt) - 1))


class Slots:
    """First come, first served; among free slots the one that remembers most."""

    def __init__(self, count: int) -> None:
        self.all = [Slot(index) for index in range(count)]
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self, prompt: list[str]) -> Slot:
        """A free slot; whoever takes it gives it back."""
        while not any(not slot.busy for slot in self.all):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._pass_on(turn)
                raise
        free = [slot for slot in self.all if not slot.busy]
        best = max(free, key=lambda slot: slot.shared(prompt))
        best.busy = True
        return best

    def give_back(self, slot: Slot) -> None:
        """Free a slot and wake the first who waits."""
        slot.busy = False
        self._wake()

    def _pass_on(self, turn: asyncio.Future[None]) -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        elif turn.done() and not turn.cancelled():
            self._wake()

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
