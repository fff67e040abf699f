"""Two gateways on one ledger: one cap, and tokens that go to whom they are of use."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.cortex.ledger.rig import START, Rig, hard

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.cortex.ledger import blocks
from helexa.cortex.ledger.database import connect

pytestmark = pytest.mark.anyio


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a request waits for what others give back."""
    monkeypatch.setattr(blocks, "_OTHERS_S", 30.0)


async def test_two_gateways_share_a_cap_and_together_never_pass_it(
    postgres_url: str, look: Any
) -> None:
    clock = [START]
    rigs = [Rig(postgres_url, name, 1, clock) for name in ("one", "two")]
    who, total = hard(5000), 0

    async def spend_some(rig: Rig, lane: int) -> int:
        spent = 0
        for number in range(40):
            try:
                name = f"{rig.life.life}-{lane}-{number}"
                granted = await rig.take(who, name, 90)
            except (InsufficientQuota, RateLimitExceeded):
                await asyncio.sleep(0.01)
                continue
            assert granted is not None
            await asyncio.sleep(0.001)
            spent += rig.end(name, min(granted, 60 + number))
        return spent

    try:
        totals = await asyncio.gather(*(spend_some(rig, lane) for rig in rigs for lane in range(3)))
        for rig in rigs:
            await rig.book.written()
        total = sum(totals)
        db = connect(postgres_url)
        (spent,) = db.execute("SELECT spent FROM scopes WHERE scope = 'key:k'")[0]
        (leased,) = db.execute("SELECT COALESCE(SUM(tokens), 0) FROM blocks")[0]
        db.close()
        assert spent == total
        assert spent + leased <= 5000
        assert total > 4500
    finally:
        for rig in rigs:
            await rig.store.close()


async def test_what_one_gateway_does_not_use_the_other_gets(postgres_url: str) -> None:
    clock = [START]
    one, two = (Rig(postgres_url, name, 1, clock) for name in ("one", "two"))
    try:
        assert await one.take(hard(1000), "a", 900) == 900
        one.end("a", 100)
        await one.book.written()
        deadline = asyncio.get_running_loop().time() + 10
        while await two.store.read(lambda db: db.execute("SELECT 1 FROM blocks WHERE tokens > 0")):
            assert asyncio.get_running_loop().time() < deadline
            one.durable._give_back_idle(one.book.scopes)
            await asyncio.sleep(0.02)
        assert await two.take(hard(1000), "b", 5000) == 900
    finally:
        await one.store.close()
        await two.store.close()


@pytest.mark.usefixtures("patient")
async def test_the_last_tokens_go_to_the_gateway_that_can_use_them(postgres_url: str) -> None:
    one, two = (Rig(postgres_url, name, 1, [START]) for name in ("one", "two"))
    try:
        assert await one.take(hard(1000), "a", 900) == 900
        one.end("a", 100)  # 800 are free there, and stay until they are idle or wanted
        await one.book.written()
        assert await two.take(hard(1000), "b", 900) == 900
        assert await two.extend("b", 900, 1000) == 900
        two.end("b", 700)
        assert await one.take(hard(1000), "c", 300) == 200
        one.end("c", 200)
        await one.book.written()
        await two.book.written()
        for rig in (one, two):
            with pytest.raises(InsufficientQuota):
                await rig.take(hard(1000), "d", 1)
    finally:
        await one.store.close()
        await two.store.close()


@pytest.mark.usefixtures("patient")
async def test_a_running_request_is_extended_with_what_lies_in_another_gateways_block(
    postgres_url: str,
) -> None:
    one, two = (Rig(postgres_url, name, 1, [START]) for name in ("one", "two"))
    try:
        assert await one.take(hard(1000), "a", 500) == 500
        assert await two.take(hard(1000), "b", 500) == 500
        two.end("b", 50)
        assert await one.extend("a", 490, 950) == 950
    finally:
        await one.store.close()
        await two.store.close()


@pytest.mark.usefixtures("patient")
async def test_of_two_gateways_that_are_short_of_each_others_tokens_one_gets_them_all(
    postgres_url: str,
) -> None:
    one, two = (Rig(postgres_url, name, 1, [START]) for name in ("one", "two"))
    try:
        for rig in (one, two):
            await rig.take(hard(1000), f"{rig.life.life}", 500)
            rig.end(f"{rig.life.life}", 0)
        asked = {
            asyncio.ensure_future(rig.take(hard(1000), name, 900)): (rig, name)
            for rig, name in ((one, "a"), (two, "b"))
        }
        (first,), (second,) = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        assert first.result() == 900
        rig, name = asked[first]
        rig.end(name, 900)
        assert await second == 100
    finally:
        await one.store.close()
        await two.store.close()
