"""Budgets that survive the gateway: blocks, batches, crashes and the lives of gateways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from helexa.core.errors import InsufficientQuota, RateLimitExceeded, ServiceUnavailable
from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger import blocks, leasing, lives, opening, spend
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.database import Database, LedgerUnavailable, connect
from helexa.cortex.ledger.durable import Durable
from helexa.cortex.ledger.leasing import Ask
from helexa.cortex.ledger.scope import Leased
from helexa.cortex.ledger.spend import Line
from helexa.cortex.ledger.store import Store

if TYPE_CHECKING:
    from tests.postgres import Server

pytestmark = pytest.mark.anyio

LEASE_S = 60.0
START = 1_800_000_000.0


class Rig:
    """A gateway's ledger, with a clock of its own; several may share a place."""

    def __init__(self, url: str, gateway: str, epoch: int, clock: list[float]) -> None:
        self.clock = clock
        self.store = Store(url, asyncio.get_running_loop())
        self.life = self.store.at_once(lambda db: lives.begin(db, gateway, epoch, LEASE_S))
        self.lost: list[bool] = []
        self.durable = Durable(
            self.store,
            self.life,
            lease_s=LEASE_S,
            now=lambda: clock[0],
            log=get_logger(),
            lost=lambda: self.lost.append(True),
        )
        self.book = Book(lambda: clock[0], lease_s=LEASE_S, hold_wait_s=0.05, backing=self.durable)

    async def take(self, who: Principal, name: str, tokens: int) -> int | None:
        answer = self.book.grant(who, name, 1, tokens)
        return (answer if isinstance(answer, Grant) else await answer).tokens

    async def extend(self, name: str, used: int, to: int) -> int | None:
        answer = self.book.extend(name, 1, used, to)
        return await answer if isinstance(answer, Awaitable) else answer

    def end(self, name: str, prompt: int, completion: int = 0) -> int:
        settled = self.book.settle(Settlement(name, 1, prompt, completion, node="n", model="m"))
        assert settled is not None
        return settled.total

    async def stop(self, *, clean: bool) -> None:
        if clean:
            await self.durable.close(clean=True)
        await self.store.close()


Start = Callable[..., Rig]


@pytest.fixture
async def start(url: str) -> AsyncIterator[Start]:
    clock, rigs = [START], list[Rig]()

    def make(gateway: str = "g", epoch: int = 0) -> Rig:
        rigs.append(Rig(url, gateway, epoch or len(rigs) + 1, clock))
        return rigs[-1]

    yield make
    for rig in rigs:
        await rig.store.close()


@pytest.fixture
def look(url: str) -> Callable[[str], list[Any]]:
    def query(sql: str) -> list[Any]:
        db = connect(url)
        try:
            return db.execute(sql)
        finally:
            db.close()

    return query


def hard(tokens: int, key: str = "k") -> Principal:
    return Principal("acme", key, caps=(Cap(tokens),))


def rolling(tokens: int, seconds: int = 60) -> Principal:
    return Principal("acme", "k", caps=(Cap(tokens, Window("rolling", seconds)),))


async def test_what_is_granted_is_covered_by_a_durable_block(start: Start, look: Any) -> None:
    rig = start()
    assert await rig.take(hard(100_000), "a", 700) == 700
    (block,) = look("SELECT tokens FROM blocks WHERE scope = 'key:k'")
    assert block[0] >= 700
    # Further grants come from the block: at once, and without the store.
    answer = rig.book.grant(hard(100_000), "b", 1, 700)
    assert isinstance(answer, Grant)


async def test_blocks_shrink_as_the_cap_nears_and_the_last_token_is_granted(start: Start) -> None:
    rig = start()
    who = hard(10_000)
    assert await rig.take(who, "a", 4000) == 4000
    assert await rig.take(who, "b", 5999) == 5999
    assert await rig.take(who, "c", 500) == 1
    rig.end("a", 4000)
    rig.end("b", 5999)
    rig.end("c", 1)
    with pytest.raises(InsufficientQuota):
        await rig.take(who, "d", 1)


async def test_settling_may_wait_only_while_the_cap_is_far(url: str, start: Start) -> None:
    rig = start()
    far, near = hard(10**9, "far"), hard(1000, "near")
    await rig.take(far, "far", 600)
    await rig.take(near, "near", 1000)
    if url.startswith("sqlite"):  # shared ledgers are asked for a block when there is need
        assert not rig.book.tight(far)
    waiting = asyncio.ensure_future(rig.take(near, "more", 900))
    await asyncio.sleep(0)
    assert rig.book.tight(near)
    rig.end("near", 10)
    assert await waiting in range(1, 901)


async def test_first_grants_of_many_keys_are_asked_for_together_and_each_is_exact(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, questions = start(), list[int]()
    ask = leasing.lease

    def counted(db: Database, life: int, asks: Sequence[Ask], at: int) -> list[Leased]:
        questions.append(len(asks))
        return ask(db, life, asks, at)

    monkeypatch.setattr(leasing, "lease", counted)
    window = Window("rolling", 60)
    keys = [
        Principal("acme", f"k{n}", caps=(Cap(10 * n), Cap(9 * n, window)) if n % 2 else (Cap(n),))
        for n in range(1, 41)
    ]
    found = await asyncio.gather(*(rig.take(who, who.key_id, 5000) for who in keys))
    assert list(found) == [9 * n if n % 2 else n for n in range(1, 41)]
    assert questions[0] >= 40
    assert len(questions) <= 4


async def test_spend_survives_an_orderly_stop_and_nothing_stays_held(
    start: Start, look: Any
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 400)
    rig.end("a", 250, 50)
    await rig.stop(clean=True)
    assert look("SELECT state FROM lives") == [("ended",)]
    assert look("SELECT count(*) FROM blocks") == [(0,)]
    again = start()
    assert await again.take(hard(1000), "b", 5000) == 700
    usage = again.book.usage(hard(1000))
    assert (usage.spent_tokens, usage.open_tokens, usage.requests) == (300, 700, 1)


async def test_spend_of_a_rolling_window_survives_and_leaves_in_time(start: Start) -> None:
    rig = start()
    await rig.take(rolling(100), "a", 40)
    rig.end("a", 40)
    await rig.stop(clean=True)
    again = start()
    assert await again.take(rolling(100), "b", 500) == 60
    again.end("b", 60)
    with pytest.raises(RateLimitExceeded) as caught:
        await again.take(rolling(100), "c", 1)
    assert caught.value.retry_after_s is not None
    await again.book.written()
    again.clock[0] += 61
    assert await again.take(rolling(100), "c", 500) == 100


async def test_two_caps_of_one_window_count_its_spend_once(start: Start) -> None:
    rig = start()
    window = Window("rolling", 60)
    who = Principal("acme", "k", caps=(Cap(100, window), Cap(200, window)))
    await rig.take(who, "a", 40)
    rig.end("a", 40)
    await rig.stop(clean=True)
    again = start()
    await again.book.learn([who])
    assert [w.spent_tokens for w in again.book.usage(who).windows] == [40, 40]
    assert await again.take(who, "b", 500) == 60


async def test_a_window_that_is_new_counts_what_was_spent_in_it_before(start: Start) -> None:
    rig = start()
    await rig.take(Principal("acme", "k"), "a", 1)
    rig.end("a", 70)
    await rig.book.written()
    assert await rig.take(rolling(100), "b", 500) == 30
    both = Principal("acme", "k", account_caps=(Cap(90, Window("rolling", 600)),))
    rig.end("b", 5)
    assert await rig.take(both, "c", 500) == 15


async def test_uncapped_keys_are_granted_at_once_and_their_spend_is_written(
    start: Start, look: Any
) -> None:
    rig = start()
    free = Principal("acme", "free")
    assert isinstance(rig.book.grant(free, "a", 1, 9), Grant)
    rig.end("a", 5, 2)
    await rig.book.written()
    assert look(
        "SELECT request_id, state, account_id, key_id, node, model, granted, prompt, completion "
        "FROM requests"
    ) == [("a", "settled", "acme", "free", "n", "m", None, 5, 2)]
    assert look("SELECT scope, spent, requests FROM scopes ORDER BY scope") == [
        ("account:acme", 7, 1),
        ("key:free", 7, 1),
    ]
    assert look("SELECT count(*) FROM blocks") == [(0,)]


async def test_a_batch_that_is_written_twice_counts_once(start: Start, look: Any) -> None:
    rig = start()
    line = Line("a", 1, rig.life.life, "settled", 0, "acme", "k", "n", "m", 9, prompt=4)
    batch = spend.Batch(1, 0, [line], [], [])
    for _ in range(2):
        await rig.store.write(lambda db: spend.write_batch(db, rig.life.life, batch))
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(4,)]


async def test_a_batch_that_cannot_be_written_is_tried_until_it_is(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 10)
    write, failures = spend.write_batch, [2]

    def fails(db: Database, life: int, batch: spend.Batch) -> None:
        write(db, life, batch)
        if failures[0]:
            failures[0] -= 1
            raise LedgerUnavailable("disk full")

    monkeypatch.setattr(spend, "write_batch", fails)
    monkeypatch.setattr("helexa.cortex.ledger.durable.RETRY_S", 0.01)
    rig.end("a", 10)
    await rig.book.written()
    assert failures == [0]
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(10,)]


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


@pytest.mark.parametrize(("away", "billed"), [(True, 250), (False, 0)])
async def test_what_has_no_record_costs_the_last_count_if_its_node_stayed_away_else_nothing(
    start: Start, look: Any, away: bool, billed: int
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 300)
    await rig.extend("a", 250, 300)
    await rig.book.written()
    await rig.store.close()
    after = start()
    await after.store.write(
        lambda db: lives.adopt(db, after.life.life, "g", LEASE_S, alone=True, grace_s=0)
    )
    estimated = await after.store.write(
        lambda db: lives.end(db, after.life.life, rig.life.life, 0, away=away)
    )
    assert estimated == billed
    assert look("SELECT state, prompt + completion, estimated FROM requests") == [
        ("expired", billed, 1)
    ]
    after.book.refresh()
    assert await after.take(hard(1000), "b", 2000) == 1000 - billed


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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may take longer than a request waits for what others give back."""
    monkeypatch.setattr(blocks, "_OTHERS_S", 30.0)


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


async def test_a_database_that_goes_away_is_waited_for_and_nothing_is_lost(
    postgres_server: Server,
) -> None:
    rig = Rig(postgres_server.database(), "one", 1, [START])
    try:
        who = hard(100_000)
        await rig.take(who, "a", 100)
        postgres_server.stop()
        # What is free goes on, what would need the store is refused, what was settled waits.
        assert await rig.take(who, "b", 100) == 100
        rig.end("a", 100)
        with pytest.raises(ServiceUnavailable):
            await rig.take(hard(100_000, "other"), "c", 100)
        postgres_server.start()
        await asyncio.wait_for(rig.book.written(), 20)
        assert await rig.take(hard(100_000, "other"), "c", 100) == 100
        rows = await rig.store.read(lambda db: db.execute("SELECT scope, spent FROM scopes"))
        spent: dict[Any, Any] = dict(rows)
        assert spent["key:k"] == 100
    finally:
        await rig.store.close()


def lose_answers(monkeypatch: pytest.MonkeyPatch, rig: Rig, number: int) -> list[int]:
    """The next ``number`` transactions are durable, and nobody hears of it."""
    left, transaction = [number], rig.store._db.transaction

    @contextmanager
    def lossy() -> Iterator[None]:
        with transaction():
            yield
        if left[0]:
            left[0] -= 1
            raise LedgerUnavailable("the connection is gone")

    monkeypatch.setattr(rig.store._db, "transaction", lossy)
    monkeypatch.setattr("helexa.cortex.ledger.durable.RETRY_S", 0.01)
    return left


def ours(rig: Rig, look: Any) -> tuple[int, int]:
    """The key's block as the store knows it, and what the gateway knows of it."""
    ((block,),) = look(f"SELECT tokens FROM blocks WHERE life = {rig.life.life}")
    scope = rig.book.scopes["key:k"]
    return block, scope.free + scope.held


@pytest.mark.parametrize("failures", [0, 1, 2])
async def test_what_is_given_back_during_an_outage_arrives_once(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    rig = start()
    await rig.take(hard(100_000), "a", 700)
    await rig.book.written()
    scope = rig.book.scopes["key:k"]
    assert scope.free
    if failures:
        lose_answers(monkeypatch, rig, failures)
    rig.book._blocks._return(scope, scope.free)
    await rig.book.written()
    assert (scope.free, scope.held, scope.owed) == (0, 700, 0)
    assert ours(rig, look) == (700, 700)
    assert await rig.take(hard(100_000), "b", 90_000) == 90_000


async def test_a_block_whose_answer_was_lost_is_found_again(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "AFTER_FAILURE_S", 0.01)
    rig = start()
    who = hard(100_000)
    await rig.take(who, "a", 700)
    left = lose_answers(monkeypatch, rig, 1)
    free = rig.book.scopes["key:k"].free
    with pytest.raises(ServiceUnavailable):
        await rig.take(who, "b", free + 1)
    assert left == [0]
    async with asyncio.timeout(30):
        while len(set(ours(rig, look))) > 1:
            await asyncio.sleep(0.01)
    rig.end("a", 700)
    assert await rig.take(who, "c", 99_300) == 99_300


async def test_an_outcome_that_cannot_be_taken_in_leaves_the_others_theirs(start: Start) -> None:
    rig, told = start(), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    rig.store.submit(lambda db: 1, lambda outcome: 1 / 0)
    assert await rig.store.write(lambda db: 2) == 2
    assert isinstance(told[0]["exception"], ZeroDivisionError)


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
