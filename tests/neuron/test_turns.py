"""Turns go round those who ask, and none is lost."""

from __future__ import annotations

import asyncio

import pytest

from helexa.neuron.turns import Turns

pytestmark = pytest.mark.anyio


class Queue:
    """Asks for turns by keys, and remembers who had one."""

    def __init__(self, at_once: int) -> None:
        self.turns = Turns(at_once)
        self.had: list[str] = []
        self.go = asyncio.Event()

    async def _take(self, name: str) -> None:
        async with self.turns.of(name[0]):
            self.had.append(name)
            await self.go.wait()

    async def ask(self, *names: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self._take(name)) for name in names]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks


async def test_who_asks_much_waits_for_itself() -> None:
    queue = Queue(1)
    tasks = await queue.ask("a0", "a1", "a2", "a3", "b0", "b1", "c0")
    queue.go.set()
    await asyncio.gather(*tasks)
    assert queue.had == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]
    assert queue.turns.free == 1


async def test_so_many_have_a_turn_at_once_and_no_more() -> None:
    queue = Queue(3)
    tasks = await queue.ask("a0", "a1", "a2", "a3", "b0")
    assert queue.had == ["a0", "a1", "a2"]
    queue.go.set()
    await asyncio.gather(*tasks)
    assert queue.turns.free == 3


async def test_who_leaves_while_it_waits_or_as_its_turn_comes_holds_nobody_up() -> None:
    queue = Queue(1)
    first, waits, comes, last = await queue.ask("a0", "a1", "b0", "c0")
    waits.cancel()
    first.cancel()  # the turn is b's now, which leaves before it knows
    await asyncio.sleep(0)
    comes.cancel()
    queue.go.set()
    await last
    assert queue.had[0] == "a0"
    assert queue.had[-1] == "c0"
    assert queue.turns.free == 1
