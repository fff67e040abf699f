"""The meter after a crowd of requests of every kind and end equals the engine's own counts."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest
from tests.neuron.engines.candidates import Candidate
from tests.neuron.engines.driving import Case, Exchange, user

pytestmark = pytest.mark.anyio

COMPLETION = re.compile(rb'"completion_tokens":(\d+)')
PROCESSED = re.compile(rb'"processed":(\d+)')
WORDS = ["river", "stone", "garden", "house", "tree"]


def engines_count(raw: bytes, candidate: Candidate) -> int:
    """Output tokens by the engine's own last word (one choice)."""
    final = COMPLETION.findall(raw)
    return int(final[-1]) if final else candidate.counted(raw)


async def one(case: Case, candidate: Candidate, rng: random.Random) -> None:
    """A request with a random end, and what the meter must say then."""
    end = rng.choice(["complete", "plain", "closed", "dropped", "in the prompt", "failed"])
    long = 1500 if candidate.exact else 100
    length = long if end == "in the prompt" else rng.randint(1, 30)
    body: dict[str, Any] = user("Repeat: " + " ".join(rng.choices(WORDS, k=length)))
    body |= {"stream": end != "plain", "max_tokens": rng.randint(1, 12)}
    if end == "failed":
        body |= candidate.failing
    exchange = await case.send(body)
    assert await exchange.begin() == 200
    cleaner, meter = exchange.request.cleaner, exchange.request.cleaner.meter
    if end == "in the prompt":
        await exchange.until(lambda: meter.prompt_known)
    elif end in ("closed", "dropped"):
        await exchange.until(lambda: meter.output >= 1 or cleaner.done)
    else:
        while not cleaner.done and await exchange.step():
            pass
    check(exchange, candidate, end, cleaner.close("length", "budget") if end == "closed" else b"")
    exchange.drop()


def check(exchange: Exchange, candidate: Candidate, end: str, closing: bytes) -> None:
    raw, meter = b"".join(exchange.raw), exchange.request.cleaner.meter
    if candidate.exact and candidate.progress:
        processed = [int(n) for n in PROCESSED.findall(raw)]
        assert meter.prompt_processed == max(processed), end
    if candidate.exact or COMPLETION.search(raw):
        assert meter.output == engines_count(raw, candidate), end
        assert not meter.estimated
    elif closing:
        assert meter.estimated
    assert 0 <= meter.cached <= meter.prompt
    if closing:
        assert b'"completion_tokens":%d' % meter.output in closing


async def test_a_crowd_of_requests_is_counted_to_the_token(
    case: Case, candidate: Candidate
) -> None:
    rng = random.Random(5)
    for _ in range(candidate.crowds):
        async with asyncio.TaskGroup() as crowd:
            for _ in range(8):
                crowd.create_task(one(case, candidate, rng))
    await case.free()
