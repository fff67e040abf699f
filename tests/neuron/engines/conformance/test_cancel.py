"""Whoever leaves frees the engine at once, and what was computed until then is known."""

from __future__ import annotations

import asyncio

import pytest
from tests.neuron.engines.candidates import Candidate
from tests.neuron.engines.driving import Case, Exchange, as_json, user

pytestmark = pytest.mark.anyio

LONG = "river stone garden " * 600


async def freed_after(case: Case, exchange: Exchange) -> float:
    """Seconds from leaving until the engine's slots are free."""
    loop = asyncio.get_running_loop()
    exchange.drop()
    left = loop.time()
    await case.free(60)
    return loop.time() - left


async def test_leaving_while_decoding_frees_the_slot(case: Case, candidate: Candidate) -> None:
    cleaner_waits = 5
    exchange = await case.send({**user("Count."), "stream": True, **candidate.endless})
    await exchange.begin()
    await exchange.until(lambda: exchange.request.cleaner.meter.output >= cleaner_waits)
    assert await freed_after(case, exchange) < candidate.frees_s


async def test_leaving_a_plain_answer_frees_the_slot_as_fast(
    case: Case, candidate: Candidate
) -> None:
    exchange = await case.send({**user("Count."), **candidate.endless})
    assert exchange.request.stream is False
    await exchange.begin()
    await exchange.until(lambda: exchange.request.cleaner.meter.output >= 5)
    assert await freed_after(case, exchange) < candidate.frees_s


async def test_leaving_during_the_prompt_frees_the_slot(case: Case, candidate: Candidate) -> None:
    exchange = await case.send({**user(LONG), "stream": True, **candidate.slow})
    await exchange.begin()
    meter = exchange.request.cleaner.meter
    if candidate.progress:
        await exchange.until(lambda: meter.prompt_known)
    # One chunk is computed to its end; the machine may be busy with other things.
    assert await freed_after(case, exchange) < candidate.frees_s * 3
    assert meter.output == 0
    assert meter.prompt > meter.prompt_processed or not candidate.progress


async def test_an_answer_closed_by_us_ends_cleanly_with_its_counts(
    case: Case, candidate: Candidate
) -> None:
    exchange = await case.send({**user("Count."), "stream": True, **candidate.endless})
    await exchange.begin()
    cleaner = exchange.request.cleaner
    await exchange.until(lambda: cleaner.meter.output >= 4)
    output = cleaner.meter.output
    closing = cleaner.close("length", "budget")
    exchange.drop()
    chunks = as_json(closing)
    assert chunks[0]["choices"][0]["finish_reason"] == "length"
    assert chunks[0]["helexa"] == {"finish": "budget"}
    assert chunks[-1]["usage"]["completion_tokens"] == output == cleaner.meter.output
    assert closing.endswith(b"data: [DONE]\n\n")
    assert cleaner.done
    assert cleaner.feed(b"data: {}\n\n") == b""
    await case.free()


async def test_the_meter_is_the_engines_own_count_after_every_event(
    case: Case, candidate: Candidate
) -> None:
    exchange = await case.send({**user("Repeat: one two three"), "stream": True, "max_tokens": 8})
    await exchange.begin()
    meter = exchange.request.cleaner.meter
    while not exchange.request.cleaner.done and await exchange.step():
        assert meter.output == candidate.counted(b"".join(exchange.raw))
    exchange.drop()
    await case.free()
