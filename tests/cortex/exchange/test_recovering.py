"""What becomes of the requests of a gateway that has died, by what its nodes say of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.cortex.ledger.rig import LEASE_S, START, Rig, hard

from helexa.core.errors import UpstreamTimeout
from helexa.core.fleet import Ack, RecordState, RequestRecord
from helexa.core.logging import get_logger
from helexa.cortex.exchange.recovering import Recovery
from helexa.cortex.fleet.client import Answer, NodeApi
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.base import Settled
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.estate import Estate

pytestmark = pytest.mark.anyio


def record(
    name: str, tokens: int, state: RecordState = "complete", *, gateway: str = "g", epoch: int = 1
) -> RequestRecord:
    return RequestRecord(
        name, 1, gateway, epoch, "m", state, 300, tokens, account_id="acme", key_id="k"
    )


class Node:
    """A node's management routes: its table, and what it was allowed to forget."""

    def __init__(self, *table: RequestRecord) -> None:
        self.table = list(table)
        self.away = self.deaf = False
        self.acknowledged: list[str] = []

    async def get(self, path: str, timeout_s: float) -> Answer:
        assert path == "/requests"
        if self.away:
            raise UpstreamTimeout("It does not answer.")
        return Answer(200, msgspec.json.encode(self.table))

    async def post(self, path: str, body: list[Ack], timeout_s: float) -> Answer:
        assert path == "/requests/ack"
        if self.deaf:
            raise UpstreamTimeout("It does not answer.")
        done = {ack.request_id for ack in body}
        self.acknowledged += sorted(done)
        self.table = [row for row in self.table if row.request_id not in done]
        return Answer(200, b"{}")


class Scene:
    """A gateway that was killed with two requests open, and its next life."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clock = [START]
        self.nodes: dict[str, Node] = {}
        self.booked: list[Settled] = []
        self.counted: list[str] = []
        self.freed: list[bool] = []
        self.estimated = 0
        self.late: list[tuple[str, int, int]] = []

    async def begin(self) -> None:
        killed = Rig(self.url, "g", 1, self.clock)
        for name in ("a", "b"):
            await killed.take(hard(1000), name, 300)
        await killed.extend("b", 250, 300)
        await killed.book.written()
        await killed.store.close()
        self.after = Rig(self.url, "g", 2, self.clock)
        self.lease_until = killed.life.lease_until
        self.now = self.lease_until - 1
        mine = self.after.life
        self.estate = Estate(self.after.store, mine, lease_s=LEASE_S, now=lambda: self.now)
        self.recovery = Recovery(
            self.estate,
            lambda: list(self.nodes),
            lambda name: cast("NodeApi", self.nodes[name]),
            booked=self.booked.append,
            counted=lambda row: self.counted.append(row.request_id),
            freed=lambda: self.freed.append(True),
            estimated=self._estimate,
            late=lambda *told: self.late.append(told),
            log=get_logger(),
        )

    def _estimate(self, tokens: int) -> None:
        self.estimated += tokens

    async def rounds(self, many: int) -> None:
        for _ in range(many):
            await self.recovery._round(await self.estate.dead())

    async def look(self, query: str) -> list[Any]:
        return await self.after.store.read(lambda db: db.execute(query))

    async def left(self) -> int | None:
        """Tokens that the key gets now."""
        self.after.book.refresh()
        return await self.after.take(hard(1000), "next", 1000)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    scene = Scene(f"sqlite://{tmp_path}/ledger.db")
    await scene.begin()
    yield scene
    await scene.after.store.close()


async def test_what_nodes_have_recorded_is_booked_once_and_forgotten_and_the_rest_is_free(
    scene: Scene,
) -> None:
    one = scene.nodes["one"] = Node(record("a", 280), record("x", 9, gateway="other"))
    two = scene.nodes["two"] = Node(record("mine", 9, "decode", epoch=2))
    await scene.rounds(1)
    assert (one.acknowledged, two.acknowledged) == (["a"], [])
    assert scene.booked == [Settled("acme", "k", 280, 0, 0)]
    assert not scene.freed  # what is missing may only be on its way
    await scene.rounds(2)
    assert scene.freed == [True]
    assert (scene.counted, scene.booked, scene.estimated) == (["a"], scene.booked[:1], 0)
    assert await scene.left() == 720


async def test_a_request_that_still_runs_is_waited_for_until_the_lease_is_over(
    scene: Scene,
) -> None:
    node = scene.nodes["one"] = Node(record("a", 0), record("b", 260, "decode"))
    await scene.rounds(4)
    assert not scene.freed
    scene.now = scene.lease_until
    await scene.rounds(1)
    assert (scene.freed, scene.estimated) == ([True], 260)
    rows = "SELECT state, estimated FROM requests WHERE request_id = 'b'"
    assert await scene.look(rows) == [("expired", 1)]
    assert await scene.left() == 740
    assert [row.request_id for row in node.table] == ["b"]  # it has not ended there


async def test_a_node_that_stays_away_is_waited_for_until_the_lease_is_over(scene: Scene) -> None:
    scene.nodes |= {"one": Node(record("a", 100)), "two": Node()}
    scene.nodes["two"].away = True
    await scene.rounds(4)
    assert (scene.freed, len(scene.booked)) == ([], 1)
    scene.now = scene.lease_until
    await scene.rounds(1)
    assert (scene.freed, scene.estimated) == ([True], 250)  # the last that was heard of "b"
    assert await scene.left() == 650


async def test_a_trace_of_a_request_begins_the_wait_for_none_anew(scene: Scene) -> None:
    node = scene.nodes["one"] = Node()
    await scene.rounds(1)
    node.table = [record("b", 100, "decode")]
    await scene.rounds(1)
    node.table = []
    await scene.rounds(1)
    assert not scene.freed
    node.table = [record("b", 120)]
    await scene.rounds(1)
    assert (scene.freed, scene.estimated) == ([True], 0)
    assert await scene.left() == 880


async def test_what_comes_after_its_settlement_is_forgotten_and_not_billed(scene: Scene) -> None:
    node = scene.nodes["one"] = Node()
    await scene.rounds(2)
    assert scene.freed == [True]
    node.table = [
        record("b", 260),
        record("runs", 10, "decode"),
        record("x", 9, gateway="other"),
        record("mine", 9, epoch=2),
    ]
    await scene.rounds(2)
    assert node.acknowledged == ["b"]
    assert (scene.booked, await scene.left()) == ([], 1000)
    assert scene.late == [("one", 1, 260)]


async def test_what_a_node_tells_after_the_estimate_is_counted_beyond_it(scene: Scene) -> None:
    node = scene.nodes["one"] = Node(record("a", 100))
    node.away = True
    scene.now = scene.lease_until
    await scene.rounds(1)
    assert (scene.freed, scene.estimated) == ([True], 250)  # what was heard of "b"
    node.away = False
    node.table.append(record("b", 280))
    await scene.rounds(2)
    assert sorted(node.acknowledged) == ["a", "b"]
    assert scene.late == [("one", 2, 100 + 30)]
    assert await scene.look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(250,)]


async def test_records_of_a_gateway_that_is_no_more_are_taken_care_of_by_the_eldest(
    scene: Scene,
) -> None:
    """Otherwise they would stay until their node gives them up for want of room."""

    def others(db: Database) -> None:
        lives.end(db, 3, lives.begin(db, "gone", 1, LEASE_S).life, 0, away=False)
        lives.end(db, 4, lives.begin(db, "here", 1, LEASE_S).life, 0, away=False)
        lives.begin(db, "here", 2, LEASE_S)

    node = scene.nodes["one"] = Node()
    await scene.rounds(2)
    await scene.after.store.write(others)
    node.table = [record("x", 9, gateway="gone"), record("y", 9, gateway="here")]
    await scene.recovery._round([])
    assert (node.acknowledged, scene.late) == (["x"], [("one", 1, 9)])


async def test_a_gateway_without_nodes_knows_nothing_of_what_a_dead_one_left(scene: Scene) -> None:
    await scene.rounds(3)
    assert not scene.freed
    scene.now = scene.lease_until
    await scene.rounds(1)
    assert (scene.freed, scene.estimated) == ([True], 250)


async def test_a_node_that_does_not_hear_of_it_is_told_again_and_nothing_is_booked_twice(
    scene: Scene,
) -> None:
    node = scene.nodes["one"] = Node(record("a", 280))
    node.deaf = True
    await scene.rounds(1)
    node.deaf = False
    assert node.table
    await scene.rounds(1)
    assert (node.acknowledged, len(scene.booked)) == (["a"], 1)
    assert await scene.look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(280,)]


async def test_an_outage_of_the_ledger_is_lived_through(scene: Scene) -> None:
    node = scene.nodes["one"] = Node(record("a", 280))
    asked = 0

    async def dead() -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise UpstreamTimeout("The ledger does not answer.")
        return await Estate.dead(scene.estate)

    scene.estate.dead = dead  # type: ignore[method-assign]
    running = asyncio.ensure_future(scene.recovery.run(every_s=0.0))
    try:
        async with asyncio.timeout(60):
            while not scene.freed:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert (node.acknowledged, scene.booked[0].prompt) == (["a"], 280)
