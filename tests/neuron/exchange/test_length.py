"""How prompts are counted before they are admitted."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from helexa.core.fleet import Limit
from helexa.neuron.engines.base import Address, EngineRequest, Several
from helexa.neuron.engines.http import counting_s
from helexa.neuron.exchange.length import sized, uncounted
from helexa.neuron.grants import GrantGate
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


def four_slots() -> Any:
    """A model with room for 1000 tokens a slot, and for prompts of 3000."""
    model = SimpleNamespace(limit=Limit(4000, 3000, 1000), rejected_too_long=0)
    model.plan = SimpleNamespace(kv_cells=4000, slots=4)
    return model


@pytest.mark.parametrize(
    ("most", "granted", "reserved"),
    [(1000, None, 1000), (1001, None, None), (900, 900, 900), (900, 899, None)],
)
def test_a_prompt_is_counted_where_its_bound_would_keep_cells_or_tokens_from_others(
    most: int, granted: int | None, reserved: int | None
) -> None:
    asked = msgspec.structs.replace(asking(9), most=most)
    assert uncounted(four_slots(), asked, GrantGate(granted)) == reserved


async def test_of_several_prompts_each_is_counted_where_there_is_a_grant() -> None:
    async def count(asked: EngineRequest, key_id: str) -> int:
        assert key_id == "k"
        return len(asked.body)

    model = four_slots()
    model.count = count
    each = tuple(msgspec.structs.replace(asking(size), most=500) for size in (7, 9))
    asked = msgspec.structs.replace(each[0], several=Several(each, "data", cast("Any", None)))
    for granted, sizes in ((None, (500, 500)), (10_000, (7, 9))):
        found = (await sized(model, asked, GrantGate(granted), "k")).several
        assert found is not None
        assert found.sizes == sizes


def test_an_engine_has_the_time_to_count_the_longest_body() -> None:
    assert counting_s(1_000) < 11
    assert counting_s(64 << 20) > 600, "counted in 50 s on two cores"
    assert counting_s(1_000, 60) > 60
