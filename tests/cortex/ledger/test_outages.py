"""A ledger that cannot be reached, or whose answer is lost."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.cortex.ledger.rig import LEASE_S, START, Rig, Start, hard

from helexa.core.errors import ServiceUnavailable
from helexa.core.logging import configure
from helexa.core.principal import Principal
from helexa.cortex.ledger import blocks, leasing, lives, spend
from helexa.cortex.ledger.condition import Condition
from helexa.cortex.ledger.database import Database, LedgerUnavailable, connect
from helexa.cortex.ledger.estate import Estate
from helexa.cortex.ledger.postgres import PostgresDatabase

if TYPE_CHECKING:
    from tests.postgres import Server

pytestmark = pytest.mark.anyio


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
    monkeypatch.setattr("helexa.cortex.ledger.outbox.RETRY_S", 0.01)
    return left


def ours(rig: Rig, look: Any) -> tuple[int, int]:
    """The key's block as the store knows it, and what the gateway knows of it."""
    ((block,),) = look(f"SELECT tokens FROM blocks WHERE life = {rig.life.life}")
    scope = rig.book.scopes["key:k"]
    return block, scope.free + scope.held


async def test_a_batch_that_cannot_be_written_is_tried_until_it_is_and_that_is_said_once(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 10)
    write, failures = spend.write_batch, [5]
    stream = io.StringIO()
    sink = configure("info", stream)

    def fails(db: Database, life: int, batch: spend.Batch) -> None:
        write(db, life, batch)
        if failures[0]:
            failures[0] -= 1
            raise LedgerUnavailable("disk full")

    monkeypatch.setattr(spend, "write_batch", fails)
    monkeypatch.setattr("helexa.cortex.ledger.outbox.RETRY_S", 0.01)
    rig.end("a", 10)
    await rig.book.written()
    sink.close()
    assert failures == [0]
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(10,)]
    said = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert [event for event in said if "settled" in event] == [
        "ledger: cannot write what was settled; trying again",
        "ledger: what was settled is written",
    ]


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


async def test_a_block_is_found_also_when_a_batch_was_lost_with_it(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, who, entered, gate = start(), hard(100_000), threading.Event(), threading.Event()
    await rig.take(who, "a", 700)
    await rig.book.written()

    def hold_up(db: Database) -> None:
        entered.set()
        gate.wait(30)

    rig.store.submit(hold_up, lambda outcome: None)
    await asyncio.to_thread(entered.wait, 30)
    # One transaction for both: the block grows, and what was spent leaves it.
    scope = rig.book.scopes["key:k"]
    asked = asyncio.ensure_future(rig.take(who, "b", scope.free + 1000))
    while rig.store._writer._jobs.empty():
        await asyncio.sleep(0)
    rig.end("a", 700)
    rig.durable._outbox._flush()
    left = lose_answers(monkeypatch, rig, 1)
    gate.set()
    assert await asked
    await rig.book.written()
    assert left == [0]
    assert len(set(ours(rig, look))) == 1


async def test_while_nothing_can_be_written_only_so_much_may_wait_and_then_nobody_is_served(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.cortex.ledger.durable.MOST_UNWRITTEN", 3)
    monkeypatch.setattr("helexa.cortex.ledger.durable.IDLE_S", 0.01)
    monkeypatch.setattr("helexa.cortex.ledger.outbox.RETRY_S", 0.01)
    rig, uncapped = start(), Principal("acme", "u")
    upkeep = asyncio.ensure_future(rig.durable.run(lambda: rig.book.scopes))
    assert rig.durable.condition() == Condition()

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():
                await asyncio.sleep(0.01)

    def full(*_: object) -> None:
        raise LedgerUnavailable("the disk is full")

    with monkeypatch.context() as outage:
        outage.setattr(spend, "write_batch", full)
        for name in ("a", "b", "c"):
            await rig.take(uncapped, name, 10)
        rig.end("a", 7)
        await until(lambda: not rig.durable.condition().ok)
        found = rig.durable.condition()
        assert (found.why, found.unwritten, found.granting) == ("the disk is full", 1, True)
        rig.end("b", 7)
        rig.end("c", 7)
        await until(lambda: rig.durable.full)
        with pytest.raises(ServiceUnavailable, match="no more requests may wait"):
            await rig.take(uncapped, "d", 10)
        assert rig.durable.condition().full
    await until(lambda: not rig.durable.full and rig.durable.condition() == Condition())
    await rig.take(uncapped, "d", 10)
    assert look("SELECT spent FROM scopes WHERE scope = 'key:u'") == [(21,)]
    upkeep.cancel()
    await asyncio.wait([upkeep])


async def test_that_tokens_cannot_be_given_out_is_said_though_all_else_is_written(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "AFTER_FAILURE_S", 0.01)
    rig, stream = start(), io.StringIO()
    sink = configure("info", stream)

    def denied(*_: object) -> None:
        raise LedgerUnavailable("permission denied for table blocks")

    with monkeypatch.context() as outage:
        outage.setattr(leasing, "lease", denied)
        with pytest.raises(ServiceUnavailable):
            await rig.take(hard(1000), "a", 10)
        assert rig.durable.condition().why == "permission denied for table blocks"
    assert await rig.take(hard(1000), "a", 10) == 10
    assert rig.durable.condition().ok
    sink.close()
    said = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert said == ["ledger: cannot give out tokens", "ledger: tokens are given out again"]


# ── a PostgreSQL that fails over ────────────────────────────────────────────────────────────────


def test_a_gateway_that_stands_still_in_a_transaction_keeps_nobody_waiting(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = connect(postgres_url)
    other = connect(f"{postgres_url}&options=-c%20statement_timeout%3D30000")
    inside = frozen.transaction()
    with monkeypatch.context() as soon:
        soon.setattr("helexa.cortex.ledger.postgres.FROZEN_S", 0.1)
        inside.__enter__()
    with other.transaction():
        other.execute("CREATE TABLE t (x BIGINT)")
    with pytest.raises(LedgerUnavailable, match="idle-in-transaction"):
        inside.__exit__(None, None, None)
    assert frozen.execute("SELECT x FROM t") == []
    frozen.close()
    other.close()


def test_a_server_that_has_become_the_standby_is_left_for_whom_the_url_leads_to(
    postgres_url: str,
) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    primary = connect(postgres_url)
    primary.execute("CREATE TABLE t (x BIGINT)")
    primary.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    found = connect(postgres_url)  # a connection to a standby
    primary.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    with pytest.raises(LedgerUnavailable, match="read-only"), found.transaction():
        found.execute("INSERT INTO t VALUES (1)")
    with found.transaction():
        found.execute("INSERT INTO t VALUES (2)")
    assert primary.execute("SELECT x FROM t") == [(2,)]
    primary.close()
    found.close()


def test_a_server_whose_network_is_gone_is_given_up_unless_the_url_says_otherwise(
    postgres_url: str,
) -> None:
    found = PostgresDatabase(f"{postgres_url}&keepalives_idle=77")
    assert found._connection is not None
    given = found._connection.info.get_parameters()
    assert given["tcp_user_timeout"] == "20000"
    assert (given["keepalives_idle"], given["keepalives_count"]) == ("77", "3")
    found.close()


async def test_gateways_that_come_back_from_an_outage_do_not_take_each_other_for_dead(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ahead = [1000.0], [START]
    monkeypatch.setattr(PostgresDatabase, "now", lambda _: clock[0] + ahead[0])
    one, two = (Rig(postgres_url, name, 1, [START]) for name in ("one", "two"))
    estate = Estate(
        one.store, one.life, lease_s=LEASE_S, now=lambda: START, monotonic=lambda: clock[0]
    )

    def unreachable(*_: object, **__: object) -> None:
        raise LedgerUnavailable("no route to host")

    async def look(after_s: float) -> list[str]:
        """Whom ``one`` takes for dead so much later; ``two`` has not renewed its lease."""
        clock[0] += after_s
        await two.store.write(
            lambda db: db.execute("UPDATE lives SET kept_until = 0 WHERE gateway = 'two'")
        )
        return [life.gateway for life in await estate.dead()]

    try:
        assert await look(0) == []  # it has just begun, perhaps because of the outage
        assert await look(LEASE_S) != []
        await one.store.write(lambda db: lives.end(db, 1, 2, 0, away=False))
        await two.store.write(lambda db: lives.begin(db, "two", 2, LEASE_S))
        with monkeypatch.context() as outage, pytest.raises(ServiceUnavailable):
            outage.setattr(lives, "adopt", unreachable)
            await look(LEASE_S)
        assert await look(3) == []
        assert await look(10) == []
        ahead[0] += 300  # the server that took over has another clock
        assert await look(LEASE_S) == []
        assert await look(10) == []
        assert await look(LEASE_S) == ["two"]
    finally:
        for rig in (one, two):
            await rig.store.close()
