"""A PostgreSQL that hangs, is locked, forgets what a connection held, or is set up otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import psycopg
import pytest
from tests.cortex.ledger.rig import START, Rig, hard
from tests.neuron.system.conftest import until

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.ledger import blocks, postgres, store
from helexa.cortex.ledger.database import LedgerUnavailable, connect
from helexa.cortex.ledger.postgres import PostgresDatabase
from helexa.cortex.ledger.worker import Job

pytestmark = pytest.mark.anyio
MOST_S = 60


@pytest.fixture
async def rig(postgres_url: str) -> AsyncIterator[Rig]:
    """One whose key ``k`` is known; it is looked after as a gateway's is."""
    rig = Rig(postgres_url, "g", 1, [START])
    await rig.take(hard(100_000), "first", 10)
    upkeep = asyncio.ensure_future(rig.durable.run(lambda: rig.book.scopes))
    yield rig
    upkeep.cancel()
    await asyncio.wait([upkeep])
    await rig.store.close()


async def granted_at_last(rig: Rig) -> int | None:
    """What a new key's request gets once it is not told to come again."""
    async with asyncio.timeout(MOST_S):
        while True:
            try:
                return await rig.take(hard(100_000, "other"), "again", 10)
            except ServiceUnavailable:
                await asyncio.sleep(0.05)


async def test_who_needs_a_ledger_that_somebody_has_locked_is_told_so_in_time(
    postgres_url: str, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "PATIENCE_S", 0.2)
    with psycopg.connect(postgres_url) as vacuum:
        vacuum.execute("LOCK TABLE blocks IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):
            with pytest.raises(ServiceUnavailable, match="has not answered") as refused:
                await asyncio.wait_for(rig.take(hard(100_000, "other"), "x", 10), MOST_S)
            assert refused.value.retry_after_s
    assert await granted_at_last(rig) == 10


async def test_nobody_is_waited_for_without_end_who_has_locked_the_ledger(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCKED_S", 0.1)
    rig = Rig(postgres_url, "g", 1, [START])
    with psycopg.connect(postgres_url) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", (postgres._WRITERS,))
        with pytest.raises(ServiceUnavailable) as refused:
            await asyncio.wait_for(rig.store.write(lambda db: None), MOST_S)
        assert "lock timeout" in str(refused.value.__cause__)
    await rig.store.write(lambda db: None)
    await rig.store.close()


async def test_a_server_that_hangs_is_left_for_whom_the_url_leads_to(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SILENT_S", 0.5)
    monkeypatch.setattr(blocks, "PATIENCE_S", 0.2)
    assert isinstance(rig.store._db, PostgresDatabase)
    assert rig.store._db._connection is not None
    hung = rig.store._db._connection.info.backend_pid
    os.kill(hung, signal.SIGSTOP)
    try:
        assert await granted_at_last(rig) == 10
        assert rig.store._db._connection.info.backend_pid != hung
    finally:
        os.kill(hung, signal.SIGCONT)


async def test_when_nobody_can_write_all_hear_it_at_once(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def unreachable() -> None:
        nonlocal tries
        tries += 1
        raise LedgerUnavailable("no route to host")

    with monkeypatch.context() as outage:
        outage.setattr(rig.store._db, "transaction", unreachable)
        heard = rig.store._write([Job(lambda db: None, lambda _: None)] * 5)
    assert [str(error) for error in heard] == ["no route to host"] * 5
    assert tries == 1


async def test_a_connection_that_was_closed_while_it_was_idle_costs_nobody_a_refusal(
    postgres_url: str,
) -> None:
    rig = Rig(postgres_url, "g", 1, [START])
    await rig.take(hard(100_000), "first", 10)
    assert isinstance(rig.store._db, PostgresDatabase)
    assert rig.store._db._connection is not None
    pid = rig.store._db._connection.info.backend_pid
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 60000)", (pid,))
    assert await rig.take(hard(100_000, "other"), "a", 10) == 10
    await rig.store.close()


def test_a_bound_that_a_server_sets_for_everybody_does_not_keep_a_long_write_from_its_end(
    postgres_url: str,
) -> None:
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET statement_timeout = 20".encode())
    ours = connect(postgres_url)
    with ours.transaction():
        ours.execute("SELECT pg_sleep(0.1)")
    ours.close()
    asked = connect(f"{postgres_url}&options=-c%20statement_timeout%3D20")
    with pytest.raises(LedgerUnavailable, match="statement timeout"):
        asked.execute("SELECT pg_sleep(60)")
    asked.close()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_no_cap_is_passed_where_the_server_isolates_transactions_more_by_itself(
    postgres_url: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "LOCKED_S", MOST_S)
    monkeypatch.setattr(blocks, "PATIENCE_S", MOST_S)
    name = postgres_url.partition("@/")[2].partition("?")[0]
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        order = f"ALTER DATABASE {name} SET default_transaction_isolation = '{level}'"
        admin.execute(order.encode())
    rigs = [Rig(postgres_url, gateway, 1, [START]) for gateway in ("one", "two")]
    try:
        for rig in rigs:  # both know the key, and hold nothing of it
            await rig.take(hard(1000), f"first-{rig.life.life}", 10)
            rig.end(f"first-{rig.life.life}", 0)
            rig.book._blocks._return(rig.book.scopes["key:k"], rig.book.scopes["key:k"].free)
            await rig.book.written()
        with psycopg.connect(postgres_url) as writer, psycopg.connect(postgres_url) as look:
            writer.execute("SELECT pg_advisory_xact_lock(%s)", (postgres._WRITERS,))
            takes = [
                asyncio.ensure_future(rig.take(hard(1000), f"r-{rig.life.life}", 700))
                for rig in rigs
            ]
            async with asyncio.timeout(MOST_S):
                while look.execute(
                    "SELECT COUNT(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
                ).fetchone() != (2,):
                    look.commit()
                    await asyncio.sleep(0.01)
        assert sorted([(await take) or 0 for take in takes]) == [300, 700]
    finally:
        for rig in rigs:
            await rig.store.close()


def test_a_gateways_name_is_held_again_after_its_connection_broke(postgres_url: str) -> None:
    name = "gateway-31313"
    one, other = connect(postgres_url), connect(postgres_url)

    def break_off() -> None:
        one.give_up()
        with pytest.raises(LedgerUnavailable):
            one.now()

    try:
        assert one.hold(name)
        assert not other.hold(name)
        break_off()
        until(lambda: one.holds(name), MOST_S)
        assert not other.hold(name)
        # And if its twin came first, it does not take that one's life for its own earlier one.
        break_off()
        until(lambda: other.hold(name), MOST_S)
        assert not one.holds(name)
    finally:
        one.close()
        other.close()
