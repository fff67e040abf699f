"""The fake engine fails exactly as ordered, and the cleaner sees what a node must see."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.neuron.engines.driving import Case, Exchange, running, user

from helexa import spark
from helexa.core.errors import UpstreamConnectionError
from helexa.neuron.engines.fake.engine import FakeEngine
from helexa.neuron.engines.fake.model import least, tokenize
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    facts = inspect(spark.gguf_path(), spark.MODEL_ID)
    async with running(FakeEngine(os.environ), facts, tmp_path, {"slots": 2}) as found:
        yield found


async def run(case: Case, **faults: Any) -> Exchange:
    """A request with faults, driven until the connection ends."""
    exchange = await case.send({**user("say: a b c d e"), "stream": True, "fake": faults})
    await exchange.begin()
    try:
        while not exchange.request.cleaner.done and await exchange.step():
            pass
    except OSError:
        pass
    exchange.drop()
    return exchange


async def test_garbage_midway_fails_the_answer_with_the_tokens_taken(case: Case) -> None:
    cleaner = (await run(case, garbage_after=3)).request.cleaner
    assert isinstance(cleaner.failed, UpstreamConnectionError)
    assert cleaner.meter.output == 3


async def test_an_error_event_midway_fails_the_answer(case: Case) -> None:
    exchange = await run(case, error_after=2)
    assert exchange.request.cleaner.failed is not None
    assert b"[DONE]" not in exchange.clean


@pytest.mark.parametrize("fault", ["crash_after", "oom_after", "drop_after"])
async def test_an_answer_that_breaks_off_is_not_done(case: Case, fault: str) -> None:
    cleaner = (await run(case, **{fault: 2})).request.cleaner
    assert not cleaner.done
    assert cleaner.meter.output <= 2
    if fault != "drop_after":
        await case.reaches("ready", 2)
        died = next(change for change in case.changes if change.state == "recovering")
        assert str(died.reason).startswith("the engine was killed by SIG")


async def test_a_slot_is_waited_for_in_order_and_leaving_gives_up_the_place(case: Case) -> None:
    endless = {"stream": True, "fake": {"count": 100_000}}
    busy = [await case.send({**user("a"), **endless}) for _ in range(2)]
    for exchange in busy:
        await exchange.begin()
    left = await case.send({**user("b"), "stream": True})
    waits = await case.send({**user("say: done"), "stream": True})
    left.drop()
    busy[0].drop()
    await waits.finish()
    assert waits.request.cleaner.finish_reason == "stop"
    busy[1].drop()
    await case.free()


def test_tokens_make_up_the_text_again() -> None:
    for text in ("a b, c's  (d)", " x ", "", "é ü"):
        assert "".join(tokenize(text)) == text


def test_the_least_instance_fits_its_schema() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"enum": ["x", "y"]},
            "b": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "c": {"const": 5},
        },
        "required": ["a", "b"],
    }
    assert least(schema) == {"a": "x", "b": [1, 1]}
