"""The thread that keeps responses outlives whatever it is given."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading

import pytest
from tests.relay.rig import until

from helexa.core.errors import ServiceUnavailable
from helexa.core.logging import get_logger
from helexa.core.principal import ANONYMOUS, Principal
from helexa.cortex import handover
from helexa.cortex.ledger.database import connect
from helexa.cortex.ledger.postgres import PostgresDatabase
from helexa.cortex.responses.base import Kept, Shelf
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.responses.memory import MemoryShelf
from helexa.cortex.responses.sql import SqlShelf

pytestmark = pytest.mark.anyio

KEY = Principal("a", "a")


def shelf() -> Shelf:
    return MemoryShelf(lambda: 1.0, ttl_s=60, max_bytes=1000)


@pytest.mark.parametrize("who", [KEY, ANONYMOUS])
async def test_a_response_that_cannot_be_made_is_lost_and_nobody_waits_for_ever(
    who: Principal,
) -> None:
    def raises() -> Kept:
        raise RecursionError

    counted: list[int] = []
    keeper = Keeper(shelf, shelf, get_logger(), lambda: counted.append(1))
    keeper.keep(who, raises)
    keeper.keep(who, lambda: Kept("resp_a", None, 1.0, b"{}", ()))
    found = await asyncio.wait_for(
        keeper.ask(who, lambda shelf, owner: shelf.find(owner, "resp_a")), 30
    )
    assert (found, keeper.lost, counted) == (b"{}", 1, [1])
    await keeper.aclose()


async def test_a_loop_that_never_rests_stands_still_for_who_asks_and_for_many_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "TURN_S", 60.0)
    keeper, seen, go = (
        Keeper(shelf, shelf, get_logger(), lambda: None),
        list[str](),
        threading.Event(),
    )

    def kept() -> Kept:
        go.wait(60)
        seen.append("thread")
        return Kept("resp_a", None, 1.0, b"{}", ())

    async def stands_still() -> None:
        """Until the thread has done what it has before it."""
        asyncio.get_running_loop().call_later(0.02, seen.append, "loop")
        timer = threading.Timer(0.05, go.set)
        timer.start()
        await until(lambda: "loop" in seen)
        timer.join()
        assert seen[0] == "thread"
        seen.clear()
        go.clear()

    keeper.keep(KEY, kept)
    asked = asyncio.ensure_future(keeper.ask(KEY, lambda shelf, owner: shelf.find(owner, "resp_a")))
    await asyncio.sleep(0)  # it has been asked
    await stands_still()
    assert await asked == b"{}"
    for _ in range(100):
        keeper.keep(KEY, kept)
    await asyncio.sleep(0)
    await stands_still()
    await keeper.aclose()
    assert keeper.lost == 0


async def test_who_asks_a_database_that_hangs_is_told_so_and_it_is_given_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = connect(postgres_url)
    assert isinstance(db, PostgresDatabase)
    sql = SqlShelf(db, db.now, ttl_s=60, max_bytes=1000)
    keeper = Keeper(lambda: sql, shelf, get_logger(), lambda: None)
    keeper.keep(KEY, lambda: Kept("resp_a", None, db.now(), b"{}", ()))
    assert await keeper.ask(KEY, lambda shelf, owner: shelf.find(owner, "resp_a")) == b"{}"
    assert db._connection is not None
    hung = db._connection.info.backend_pid
    monkeypatch.setattr("helexa.cortex.responses.keeper.ANSWER_S", 0.2)
    monkeypatch.setattr("helexa.cortex.responses.keeper.SILENT_S", 0.1)
    os.kill(hung, signal.SIGSTOP)
    found = None
    try:
        async with asyncio.timeout(60):
            while found is None:
                with contextlib.suppress(ServiceUnavailable):
                    found = await keeper.ask(KEY, lambda shelf, owner: shelf.find(owner, "resp_a"))
    finally:
        os.kill(hung, signal.SIGCONT)
    assert found == b"{}"
    await keeper.aclose()
