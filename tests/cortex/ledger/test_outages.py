"""A ledger that cannot be reached, or whose answer is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.cortex.ledger.rig import START, Rig, Start, hard

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.ledger import blocks, spend
from helexa.cortex.ledger.database import Database, LedgerUnavailable

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
    monkeypatch.setattr("helexa.cortex.ledger.outbox.RETRY_S", 0.01)
    rig.end("a", 10)
    await rig.book.written()
    assert failures == [0]
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(10,)]


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
