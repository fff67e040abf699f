"""How prompts are counted before they are admitted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from helexa.neuron.engines.base import Address, EngineRequest
from helexa.neuron.engines.http import counting_s
from helexa.neuron.registry.served import COUNTS_AT_ONCE, LONG_BYTES, ServedModel
from helexa.neuron.turns import Turns

pytestmark = pytest.mark.anyio


class Engine:
    """Counts when it is told to."""

    def __init__(self) -> None:
        self.counting = 0
        self.go = asyncio.Event()

    async def count_cleaned(self, address: object, asked: EngineRequest, served: object) -> int:
        self.counting += 1
        try:
            await self.go.wait()
        finally:
            self.counting -= 1
        return len(asked.body)


def asking(size: int) -> EngineRequest:
    cleaner: Any = SimpleNamespace()
    return EngineRequest("POST", "/", b" " * size, cleaner)


async def test_of_long_prompts_only_a_few_are_counted_at_once_and_short_ones_do_not_wait() -> None:
    engine: Any = Engine()
    model = object.__new__(ServedModel)
    model.engine, model.served = engine, SimpleNamespace()  # type: ignore[assignment]
    model.process = SimpleNamespace(address=Address(port=1))  # type: ignore[assignment]
    model._counting = Turns(COUNTS_AT_ONCE)
    long = [asyncio.create_task(model.count(asking(LONG_BYTES), "a")) for _ in range(9)]
    short = asyncio.create_task(model.count(asking(3), "b"))
    async with asyncio.timeout(30):
        while engine.counting < COUNTS_AT_ONCE + 1:
            await asyncio.sleep(0)
        long[8].cancel()  # who leaves while it waits holds nobody up
        for _ in range(50):
            await asyncio.sleep(0)
        assert engine.counting == COUNTS_AT_ONCE + 1
        engine.go.set()
        assert await asyncio.gather(*long[:8]) == [LONG_BYTES] * 8
        assert await short == 3


def test_an_engine_has_the_time_to_count_the_longest_body() -> None:
    assert counting_s(1_000) < 11
    assert counting_s(64 << 20) > 600, "counted in 50 s on two cores"
    assert counting_s(1_000, 60) > 60
