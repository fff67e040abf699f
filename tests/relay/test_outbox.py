"""Messages that leave together, in order, and before anything else is done with a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.relay.rig import HOST, Echo, answering, ask, attempt_on, client, get, until, upstream

from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener
from helexa.relay.outbox import Outbox
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def serving() -> AsyncIterator[Listener]:
    loop = asyncio.get_running_loop()
    wheel = Wheel(loop, 0.01)
    listener = Listener(Echo(), wheel, loop, Limits(), None, Outbox(loop))
    await listener.start(HOST, 0)
    try:
        yield listener
    finally:
        await listener.drain(0.0)
        await until(lambda: not listener.connections.open)


async def test_what_is_put_leaves_at_the_end_of_the_turn_in_order() -> None:
    left: list[bytes] = []
    box = Outbox(asyncio.get_running_loop())
    for number in range(5):
        box.put(left.append, b"%d" % number)
    assert not left
    turn = box.turn
    await asyncio.sleep(0)
    assert left == [b"0", b"1", b"2", b"3", b"4"]
    assert box.turn != turn


async def test_a_transport_that_was_closed_meanwhile_holds_nobody_up() -> None:
    def closed(_: bytes) -> None:
        raise RuntimeError("closed")

    left: list[bytes] = []
    box = Outbox(asyncio.get_running_loop())
    box.put(closed, b"1")
    box.put(left.append, b"2")
    box.flush()
    assert left == [b"2"]


async def test_who_is_alone_does_not_wait() -> None:
    left: list[bytes] = []
    box = Outbox(asyncio.get_running_loop())
    for _ in range(50):
        box.put(left.append, b"x")
        await asyncio.sleep(0)
    left.clear()
    box.put(left.append, b"y")
    assert left == [b"y"]


async def test_pipelined_answers_of_every_kind_keep_their_order() -> None:
    async with serving() as server, client(server.port) as raw:
        paths = ["/echo/a", "/stream/3", "/echo/b", "/later/5", "/big/70000", "/echo/c"]
        raw.send(b"".join(get(path) for path in paths))
        bodies = []
        for _ in paths:
            async with asyncio.timeout(30):
                bodies.append((await raw.answer()).body)
        assert bodies[0].startswith(b"GET /echo/a")
        assert bodies[1] == b"first-0-1-2last"
        assert bodies[2].startswith(b"GET /echo/b")
        assert bodies[3].startswith(b"GET /later/5")
        assert len(bodies[4]) == 70000
        assert bodies[5].startswith(b"GET /echo/c")


async def test_an_answer_leaves_before_a_refusal_or_the_end_of_its_connection() -> None:
    async with serving() as server:
        for last in (b"GARBAGE\r\n\r\n", get("/echo/z", "connection: close\r\n")):
            async with client(server.port) as raw:
                raw.send(get("/echo/a") + last)
                assert (await raw.answer()).body.startswith(b"GET /echo/a")
                assert (await raw.answer()).status in (200, 400)


async def test_requests_to_one_upstream_are_answered_each_with_its_own() -> None:
    async with upstream(answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")) as port:
        loop = asyncio.get_running_loop()
        pool = UpstreamPool(Origin(HOST, port), Wheel(loop, 0.01), loop, outbox=Outbox(loop))
        for _ in range(3):
            done = await asyncio.gather(*(ask(attempt_on(pool)) for _ in range(10)))
            assert all(a.failure is None and a.body == b"ok" for a in done)
        attempt = attempt_on(pool)
        attempt.start(b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\n", b"{}", lambda: None)
        attempt.drop()  # before its request has left
        await until(lambda: pool.busy == 0)
        assert (await ask(attempt_on(pool))).failure is None
        pool.close()
