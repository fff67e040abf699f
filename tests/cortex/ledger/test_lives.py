"""What a gateway that died has left: its lease, its records, and whoever keeps them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from tests.cortex.ledger.rig import LEASE_S, START, Rig, Start, hard

from helexa.core.errors import ServiceUnavailable
from helexa.core.fleet import RequestRecord
from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal
from helexa.cortex.ledger import leasing, lives, opening
from helexa.cortex.ledger.base import Settlement
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.durable import Durable
from helexa.cortex.ledger.estate import Estate
from helexa.cortex.ledger.leasing import Ask
from helexa.cortex.ledger.spend import Fenced, Line
from helexa.cortex.ledger.verify import verify

pytestmark = pytest.mark.anyio


async def test_after_a_crash_the_keeper_settles_records_once_and_closes_the_life(
    start: Start, look: Any
) -> None:
    rig = start()
    who = hard(1000)
    await rig.take(who, "a", 300)
    await rig.take(who, "b", 300)
    await rig.take(who, "c", 300)
    rig.end("a", 100)
    await rig.book.written()
    await rig.extend("b", 250, 300)
    await rig.book.written()
    await rig.store.close()  # and nothing else: a crash

    after = start()
    (dead,) = await after.store.write(
        lambda db: lives.adopt(db, after.life.life, "g", LEASE_S, alone=True, grace_s=0)
    )
    assert dead.life == rig.life.life
    assert await after.take(who, "x", 1000) in range(1, 601)  # what the dead life held stays held
    after.end("x", 0)

    def record(name: str, tokens: int) -> Line:
        return Line(
            name, 1, dead.life, "settled", 0, "acme", "k", "n", "m", 300, tokens, prompt=tokens
        )

    async def settle(name: str, tokens: int) -> int | None:
        line = record(name, tokens)
        done = await after.store.write(
            lambda db: lives.settle_dead(db, after.life.life, dead.life, line)
        )
        return None if done is None else done.total

    assert await settle("a", 100) is None  # had been settled before the crash
    assert await settle("b", 280) == 280
    assert await settle("b", 280) is None
    estimated = await after.store.write(
        lambda db: lives.end(db, after.life.life, dead.life, 0, away=False)
    )
    assert estimated == 0
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(380,)]
    assert look(f"SELECT count(*) FROM blocks WHERE life = {dead.life}") == [(0,)]
    after.book.refresh()
    assert await after.take(who, "y", 1000) == 620


@pytest.mark.parametrize(("away", "used", "billed"), [(1, 250, 250), (1, 390, 300), (0, 250, 0)])
async def test_what_has_no_record_costs_the_last_count_if_its_node_stayed_away_else_nothing(
    start: Start, look: Any, away: int, used: int, billed: int
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 300)
    await rig.extend("a", used, 300)
    await rig.book.written()
    await rig.store.close()
    after = start()
    await after.store.write(
        lambda db: lives.adopt(db, after.life.life, "g", LEASE_S, alone=True, grace_s=0)
    )
    estimated = await after.store.write(
        lambda db: lives.end(db, after.life.life, rig.life.life, 0, away=bool(away))
    )
    assert estimated == billed
    assert look("SELECT state, used, prompt + completion, estimated FROM requests") == [
        ("expired", used, billed, 1)
    ]
    after.book.refresh()
    assert await after.take(hard(1000), "b", 2000) == 1000 - billed


async def test_what_was_discarded_is_not_billed_by_whoever_recovers_it(
    start: Start, look: Any
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 300)
    rig.book.discard(Settlement("a", 1, 0, 0, node="n", model="m"))
    await rig.book.written()
    await rig.store.close()  # the gateway is killed before its node could be told
    after = start()
    estate = Estate(after.store, after.life, lease_s=LEASE_S, now=lambda: after.clock[0])
    (dead,) = await estate.dead()
    told = RequestRecord(
        "a", 1, "g", dead.epoch, "m", "node_lost", 300, 21, output=140, account_id="acme",
        key_id="k",
    )  # fmt: skip
    assert await estate.settle([(dead, told, "n")]) == [None]
    assert await estate.end(dead, away=False) == 0
    assert look("SELECT state, prompt + completion FROM requests") == [("discarded", 0)]
    after.book.refresh()
    assert await after.take(hard(1000), "b", 2000) == 1000
    proof = await after.store.read(verify)
    assert proof.ok, proof.checks


async def test_only_an_expired_lease_is_taken_over_and_its_owner_writes_no_more(
    start: Start, url: str
) -> None:
    one, two = start("one"), start("two")

    def adopt(now_alone: bool = False) -> Awaitable[list[lives.Life]]:
        return two.store.write(
            lambda db: lives.adopt(db, two.life.life, "two", LEASE_S, alone=now_alone, grace_s=0)
        )

    assert await adopt() == []
    await one.take(hard(1000), "a", 300)
    await one.store.write(
        lambda db: db.execute("UPDATE lives SET kept_until = 0 WHERE gateway = 'one'")
    )
    assert [life.gateway for life in await adopt()] == ["one"]
    one.end("a", 300)
    waiting = asyncio.ensure_future(one.book.written())
    await asyncio.wait([waiting])
    assert waiting.exception() is not None
    assert one.lost == [True]
    assert await one.store.write(lambda db: lives.renew(db, one.life.life, LEASE_S)) is False


async def test_a_life_is_settled_and_ended_by_its_keeper_alone(start: Start, look: Any) -> None:
    dead, keeper, other = start("one"), start("two"), start("three")
    await dead.take(hard(1000), "a", 300)
    life = dead.life.life
    await keeper.store.write(
        lambda db: lives.adopt(db, keeper.life.life, None, LEASE_S, alone=True, grace_s=None)
    )
    line = Line("a", 1, life, "settled", int(START * 1000), "acme", "k", "n", "m", 300, prompt=70)
    with pytest.raises(Fenced):
        await other.store.write(lambda db: lives.settle_dead(db, other.life.life, life, line))
    with pytest.raises(Fenced):
        await other.store.write(lambda db: lives.end(db, other.life.life, life, 0, away=False))
    assert (look("SELECT * FROM requests"), len(look("SELECT * FROM blocks"))) == ([], 1)
    assert await keeper.store.write(lambda db: lives.settle_dead(db, keeper.life.life, life, line))
    await keeper.store.write(lambda db: lives.end(db, keeper.life.life, life, 0, away=False))
    with pytest.raises(Fenced):  # an ended life is nobody's
        await keeper.store.write(lambda db: lives.settle_dead(db, keeper.life.life, life, line))


@pytest.mark.parametrize(("keys", "accounts"), [(200, 150), (150, 200), (150, -50), (260, 200)])
async def test_a_dead_gateways_request_is_billed_no_more_than_its_tightest_block_holds(
    start: Start, look: Any, keys: int, accounts: int
) -> None:
    billed = max(0, min(keys, accounts))
    dead, keeper = start("one"), start("two")
    life, own = dead.life.life, keeper.life.life
    await dead.take(Principal("acme", "k", (Cap(1000),), account_caps=(Cap(1000),)), "a", 300)

    def settle(db: Database) -> Line | None:
        found = lives.adopt(db, own, None, LEASE_S, alone=True, grace_s=None)
        assert found == [dead.life]
        ((kept,),) = db.execute("SELECT kept_until FROM lives WHERE life = ?", (life,))
        assert kept > db.now() + LEASE_S / 2
        for scope, tokens in (("key:k", keys), ("account:acme", accounts)):
            db.execute("UPDATE blocks SET tokens = ? WHERE scope = ?", (tokens, scope))
        line = Line("a", 1, life, "settled", int(START * 1000), "acme", "k", "n", "m", 300)
        line = line._replace(prompt=170, completion=100, overrun=5)
        return lives.settle_dead(db, own, life, line)

    line = await keeper.store.write(settle)
    assert line is not None
    prompt = min(170, billed)
    found = (line.prompt, line.completion, line.overrun)
    assert found == (prompt, billed - prompt, 275 - billed)
    sums = look("SELECT spent, requests, prompt, completion FROM scopes")
    assert sums == [(billed, int(billed > 0), prompt, billed - prompt)] * 2
    left = dict(look("SELECT scope, tokens FROM blocks"))
    assert left == {"key:k": keys - billed, "account:acme": accounts - billed}


async def test_a_dead_gateways_request_without_a_cap_is_billed_whole_and_from_no_block(
    start: Start, look: Any
) -> None:
    """Its key may have been given one while it ran, and a block for others of its requests."""
    dead, keeper = start("one"), start("two")
    await dead.take(hard(1000), "b", 10)
    held = look("SELECT scope, tokens FROM blocks")

    def settle(db: Database) -> Line | None:
        lives.adopt(db, keeper.life.life, None, LEASE_S, alone=True, grace_s=None)
        line = Line("a", 1, dead.life.life, "settled", 0, "acme", "k", "n", "m", None)
        return lives.settle_dead(db, keeper.life.life, dead.life.life, line._replace(prompt=5000))

    line = await keeper.store.write(settle)
    assert line is not None
    assert (line.prompt, line.overrun) == (5000, 0)
    assert look("SELECT scope, tokens FROM blocks") == held


async def test_a_life_is_left_alone_until_a_grace_after_its_lease(start: Start) -> None:
    one, two = start("one"), start("two")

    def taken(ago_s: float) -> Awaitable[bool]:
        def adopt(db: Database) -> bool:
            db.execute("UPDATE lives SET kept_until = ? WHERE life = ?",
                       (db.now() - ago_s, one.life.life))  # fmt: skip
            return bool(lives.adopt(db, two.life.life, "two", LEASE_S, alone=False, grace_s=100))

        return two.store.write(adopt)

    assert [await taken(ago_s) for ago_s in (-50, 50, 150)] == [False, False, True]


async def test_a_life_that_was_taken_over_is_given_no_more_tokens_that_nobody_would_give_back(
    start: Start, look: Any
) -> None:
    one, two = start("one"), start("two")
    await one.book.learn([hard(1000)])
    life, own, cap = one.life.life, two.life.life, Cap(1000)

    def late(db: Database) -> list[int | None]:
        lives.adopt(db, own, "two", LEASE_S, alone=True, grace_s=None)
        ask = Ask("key:k", (cap,), 100, 100, (), True, False)
        taken_over = leasing.lease(db, life, [ask], 0)
        lives.end(db, own, life, 0, away=False)
        return [found.tokens for found in (*taken_over, *leasing.lease(db, life, [ask], 0))]

    assert await two.store.write(late) == [0, 0]
    assert look("SELECT tokens FROM blocks") == []
    assert await two.take(hard(1000), "b", 1000) == 1000


async def test_whoever_keeps_a_dead_gateways_life_renews_its_lease_with_its_own(
    start: Start,
) -> None:
    one, two, three = start("one"), start("two"), start("three")

    def kept(db: Database) -> list[lives.Life]:
        lives.adopt(db, two.life.life, "one", LEASE_S, alone=False, grace_s=None)
        db.execute("UPDATE lives SET kept_until = 0 WHERE life = ?", (one.life.life,))
        assert lives.renew(db, two.life.life, LEASE_S)
        return lives.adopt(db, three.life.life, "three", LEASE_S, alone=False, grace_s=0)

    assert await two.store.write(kept) == []


async def test_a_gateway_whose_life_was_taken_over_stops_though_it_has_nothing_to_write(
    start: Start,
) -> None:
    one, two = start("one"), start("two")
    await two.store.write(
        lambda db: lives.adopt(db, two.life.life, None, LEASE_S, alone=True, grace_s=None)
    )
    one.durable._renew(0.0)
    async with asyncio.timeout(30):
        while not one.lost:
            await asyncio.sleep(0.01)
    assert one.durable.may_grant() is not one.durable.shared


async def test_no_grant_is_raised_with_tokens_that_others_may_have_been_given(
    postgres_url: str,
) -> None:
    one, two = (Rig(postgres_url, name, 1, [START]) for name in ("one", "two"))
    try:
        assert await one.take(hard(1000), "a", 100) == 100
        free = one.book.scopes["key:k"].free
        assert free > 100
        one.durable._may_grant_until = 0.0  # it was cut off for longer than its lease

        def taken_over(db: Database) -> None:
            lives.adopt(db, two.life.life, "one", LEASE_S, alone=False, grace_s=None)
            lives.end(db, two.life.life, one.life.life, 0, away=False)

        await two.store.write(taken_over)
        assert await two.take(hard(1000), "b", 1000) == 1000
        assert await one.extend("a", 90, 100 + free) == 100
        with pytest.raises(ServiceUnavailable):
            await one.extend("a", 90, 2000)
    finally:
        for rig in (one, two):
            await rig.store.close()


async def test_what_looks_after_our_life_is_begun_anew_when_it_fails_and_its_lease_renewed(
    url: str, monkeypatch: pytest.MonkeyPatch, look: Any
) -> None:
    monkeypatch.setattr(opening, "AGAIN_S", 0.01)
    opened = opening.OpenLedger(
        url, gateway="g", epoch=1, lease_s=0.2, hold_wait_s=0.05, log=get_logger()
    )
    ((until,),) = look("SELECT lease_until FROM lives")

    def breaks(self: Durable) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Durable, "_forget", breaks)
    monkeypatch.setattr("helexa.cortex.ledger.durable.CLEAN_S", 0.0)
    running = asyncio.ensure_future(opened.run())
    try:
        async with asyncio.timeout(30):
            while opened.failures < 3 or look("SELECT lease_until FROM lives") == [(until,)]:
                await asyncio.sleep(0.02)
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.wait([running])
        await opened.close(clean=True)


async def test_gateways_that_share_a_ledger_count_by_its_clock_though_their_own_is_set(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    opened = opening.OpenLedger(
        postgres_url, gateway="g", epoch=1, lease_s=0.2, hold_wait_s=0.05, log=get_logger()
    )
    running = asyncio.ensure_future(opened.run())
    try:
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        assert abs(opened.now() - real()) < 600
        monkeypatch.setattr("helexa.cortex.ledger.postgres.PostgresDatabase.now", lambda _: 77.0)
        async with asyncio.timeout(30):
            while opened.now() > 600:  # with the next renewal of its lease
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await opened.close(clean=False)
