"""What a gateway says and does while its ledger cannot be written."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    FINISH,
    Gateway,
    answers,
    delta,
    fleet,
    usage,
)
from tests.cortex.exchange.test_settling import SK_A, STREAM, capped
from tests.cortex.fake_node import Turn
from tests.relay.rig import until

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.exchange import settling
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.database import sqlite_path

pytestmark = pytest.mark.anyio


@contextmanager
def another_file(gateway: Gateway) -> Iterator[str]:
    """Another file is in the ledger's place, which is not written to."""
    store = gateway.rooms.kept.store
    assert store is not None
    file = Path(sqlite_path(store._url))
    ours = file.rename(f"{file}.aside")
    shutil.copy(ours, file)
    yield str(file)
    ours.rename(file)


def unwritten(gateway: Gateway) -> float:
    gateway.front.app.flush()
    return gateway.metric("cortex_ledger_unwritten_requests")


async def test_it_is_said_everywhere_and_what_is_answered_meanwhile_is_booked_later() -> None:
    async with fleet(answers, config=capped(5000, lease_secs=1)) as (gateway, _):
        kept = gateway.rooms.kept
        await gateway.ask(**SK_A)
        await gateway.settled()
        await kept.book.written()
        assert (await gateway.get("/health"))["ledger"] == {"ok": True}
        assert gateway.metric("cortex_ledger_writable") == 1
        with another_file(gateway) as file:
            await until(lambda: not kept.condition().ok)
            health = await gateway.get("/health")
            assert (health["status"], health["ledger"]["ok"]) == ("degraded", False)
            assert file not in str(health)
            assert "was replaced" in (await gateway.get("/admin/fleet"))["ledger"]["why"]
            assert gateway.metric("cortex_ledger_writable") == 0
            assert (await gateway.ask(**SK_A)).status == 200
            await until(lambda: unwritten(gateway) == 1)
            assert (await gateway.get("/ready")) == {"ready": True}
        await until(lambda: kept.condition().ok)
        await until(lambda: unwritten(gateway) == 0)
        assert (await gateway.get("/health"))["status"] == "ok"


async def test_no_node_is_told_that_a_budget_is_spent_while_nobody_can_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would cut its answer and say so; it waits for a word, and gets it with the ledger."""
    monkeypatch.setattr(settling, "ASK_AGAIN_S", 0.02)
    begun, go, refused = asyncio.Event(), asyncio.Event(), 0
    extend = Book._extend_later

    async def counted(self: Book, *asked: object) -> int | None:
        nonlocal refused
        try:
            return await extend(self, *asked)  # type: ignore[arg-type]
        except ServiceUnavailable:
            refused += 1
            raise

    async def long(turn: Turn) -> None:
        granted = int(turn.headers["x-helexa-grant"])
        low = {"request_id": turn.headers["x-request-id"], "attempt": 1, "granted": granted}
        turn.open()
        turn.send(delta("x"))
        begun.set()
        await go.wait()
        turn.node.push("grant_low", **low, used=granted - 5)
        await until(lambda: turn.node.calls("/requests/grants"))
        for piece in (FINISH, usage(7, granted), DONE):
            turn.send(piece)
        turn.close()

    monkeypatch.setattr(Book, "_extend_later", counted)
    async with fleet(long, config=capped(4000, slice_tokens=100)) as (gateway, [node]):
        asked = asyncio.create_task(gateway.ask(STREAM, **SK_A))
        await begun.wait()
        book = gateway.rooms.ledger
        scope = book.scopes["key:acme"]
        book._blocks._return(scope, scope.free)
        await book.written()
        with another_file(gateway):
            go.set()
            await until(lambda: refused >= 2)
            assert not node.calls("/requests/grants")
        assert (await asked).body.endswith(DONE)
        (body,) = [b for _, path, _, b in node.log if path == "/requests/grants"]
        granted = int(node.turns[0].headers["x-helexa-grant"])
        assert [update["granted"] for update in body] == [granted + 100]
