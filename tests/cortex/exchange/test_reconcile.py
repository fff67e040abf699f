"""What a node does not know of is over there, whatever its connection looks like."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest
from tests.cortex.exchange.rig import (
    Gateway,
    answers,
    delta,
    error_of,
    fleet,
    next_event,
    request,
)
from tests.cortex.fake_node import FakeNode, Turn
from tests.relay.rig import client, until

from helexa.core.fleet import RequestRecord
from helexa.cortex.exchange.reconcile import Reconciler, unknown

pytestmark = pytest.mark.anyio


def reconciler(gateway: Gateway, silent_s: float = 0.05) -> Reconciler:
    app, fleet, log = gateway.front.app, gateway.rooms.fleet, cast("Any", gateway.log)
    look = (app.exchanges, fleet.api, fleet.snapshot, time.monotonic, log)
    return Reconciler(*look, silent_s=silent_s)


def record(request_id: str, attempt: int = 1, state: Any = "decode") -> RequestRecord:
    return RequestRecord(request_id, attempt, "gw", 1, "m", state)


def test_only_what_is_in_the_table_and_was_not_lost_is_known() -> None:
    ours = {("a", 1), ("b", 1), ("b", 2), ("c", 1), ("d", 1)}
    table = [record("a", state="queued"), record("b", 2), record("c", state="node_lost")]
    assert unknown(ours, table) == {("b", 1), ("c", 1), ("d", 1)}


class Cut:
    """A node behind a network that was cut: it takes requests and is never heard of again."""

    def __init__(self, *, begin: bool = False) -> None:
        self.begin = begin

    async def __call__(self, turn: Turn) -> None:
        if self.begin:
            turn.open()
            turn.send(delta("Hel"))
        await turn.left()


async def twice(gateway: Gateway) -> None:
    looking = reconciler(gateway)
    await asyncio.sleep(0.1)
    await looking.look()
    await looking.look()


def said(gateway: Gateway) -> bool:
    """It was ended because its node does not know it, and for no other reason."""
    return any(event == "warning: its node does not know it" for event, _ in gateway.log.said)


async def test_a_request_that_had_not_begun_goes_to_another_node() -> None:
    async with fleet(Cut(), answers) as (gateway, [one, two]):
        two.loads = {}  # so that the first goes to the other one
        asked = [asyncio.create_task(gateway.ask({})) for _ in range(2)]
        await until(lambda: one.turns)
        await twice(gateway)
        got = [await each for each in asked]
        assert [g.status for g in got] == [200, 200]
        assert len(two.turns) == 2
        assert said(gateway)


async def test_a_stream_that_had_begun_ends_in_an_error_and_its_lease_is_closed() -> None:
    async with fleet(Cut(begin=True)) as (gateway, [node]), client(gateway.port) as raw:
        raw.send(request({"stream": True}))
        await raw.head()
        assert await next_event(raw) == delta("Hel")
        assert gateway.rooms.placer.leases.open() == 1
        await twice(gateway)
        assert b'"code":"upstream_connection_error"' in await next_event(raw)
        await until(lambda: not gateway.rooms.placer.leases.open())
        assert said(gateway)
        assert node.turns


async def test_a_request_that_its_node_knows_may_be_silent_for_as_long_as_it_likes() -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        turn.node.records.append(turn.record("prefill"))
        await release.wait()
        await answers(turn)

    async with fleet(slow) as (gateway, [node]):
        asked = asyncio.create_task(gateway.ask({}))
        await until(lambda: node.records)
        await twice(gateway)
        release.set()
        assert (await asked).status == 200


async def test_a_request_that_is_missing_once_may_only_be_on_its_way() -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await release.wait()
        await answers(turn)

    async with fleet(slow) as (gateway, [node]):
        asked = asyncio.create_task(gateway.ask({}))
        await until(lambda: node.turns)
        looking = reconciler(gateway)
        await asyncio.sleep(0.1)
        await looking.look()
        node.records.append(node.turns[0].record("prefill"))
        await looking.look()
        node.records.clear()
        await looking.look()  # missing again, but not in a row
        assert not said(gateway)
        release.set()
        assert (await asked).status == 200


async def test_a_node_that_cannot_be_asked_has_denied_nothing() -> None:
    async with fleet(Cut()) as (gateway, [node]):
        asked = asyncio.create_task(gateway.ask({}))
        await until(lambda: node.turns)
        node.fail = 500
        await twice(gateway)
        assert not asked.done()
        node.fail = None
        await twice(gateway)
        assert said(gateway)
        got = await asked
        assert (got.status, error_of(got)["code"]) == (502, "upstream_connection_error")


async def dead(gateway: Gateway, node: FakeNode) -> None:
    """Wait until the gateway has missed three polls of it."""
    node.fail = 500
    fleet = gateway.rooms.fleet

    def is_so() -> bool:
        found = next(n for n in fleet.snapshot().nodes if n.endpoint == node.url)
        fleet.poll_now(found.name)
        return not found.reachable

    await until(is_so)


async def test_what_waits_for_a_node_that_is_dead_is_tried_where_the_model_is_ready() -> None:
    async with fleet(Cut(), answers) as (gateway, [one, two]):
        two.loads = {}  # so that the first goes to the other one
        asked = [asyncio.create_task(gateway.ask({})) for _ in range(2)]
        await until(lambda: one.turns)
        await dead(gateway, one)
        await twice(gateway)
        assert [(await each).status for each in asked] == [200, 200]
        assert len(two.turns) == 2
        assert any(event == "warning: its node is dead" for event, _ in gateway.log.said)


async def test_what_has_begun_at_a_node_that_is_dead_may_still_go_on() -> None:
    nodes = [Cut(begin=True), Cut(begin=True)]
    async with fleet(*nodes) as (gateway, both), client(gateway.port) as raw:
        raw.send(request({"stream": True}))
        await raw.head()
        assert await next_event(raw) == delta("Hel")
        (here,) = [node for node in both if node.turns]
        await dead(gateway, here)
        await twice(gateway)
        assert gateway.rooms.placer.leases.open() == 1
        assert sum(len(node.turns) for node in both) == 1
        here.fail = None  # it comes back, without it
        await twice(gateway)
        assert b'"code":"upstream_connection_error"' in await next_event(raw)
