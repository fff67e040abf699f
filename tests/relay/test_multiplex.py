"""Many connections over one: every byte on its channel, each end told of by itself."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from weakref import ref

import pytest
from tests.relay.rig import HOST, Echo, Raw, serving, until

from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.channel import Channel
from helexa.relay.connections import App
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.reply import Reply
from helexa.relay.server import ServerProtocol
from helexa.relay.trunk import Trunk
from helexa.relay.upstream import Failure, UpstreamConnection
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio


def connection_of(reply: Reply) -> ServerProtocol:
    return reply._protocol


class Way:
    """A gateway's way to a node: a trunk and the pool of what it gives out."""

    def __init__(self, listener: Listener) -> None:
        self.loop = asyncio.get_running_loop()
        self.wheel = Wheel(self.loop, 0.01)
        origin = Origin(HOST, listener.port)
        self.said: list[str] = []
        self.pool = UpstreamPool(origin, self.wheel, self.loop)
        self.trunk = Trunk(
            self.pool.dial, b"host: a\r\n", self.wheel, self.loop, said=self.said.append
        )
        self.channels = UpstreamPool(origin, self.wheel, self.loop, dial=self.trunk.dial)

    async def up(self) -> None:
        self.trunk.offered(True)
        await until(self.trunk.up)

    def attempt(self, **more: object) -> Attempt:
        return Attempt(self.channels, self.wheel, self.loop, Deadlines(), **more)  # type: ignore[arg-type]

    async def held_by(self, app: Echo) -> tuple[Attempt, Reply]:
        """A request that ``app`` has not begun to answer, and its reply there."""
        attempt = self.attempt(on_events=lambda _data: None)
        attempt.start(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n", b"", lambda: None)
        await until(lambda: app.held)
        return attempt, app.held[0]

    async def ask(self, path: str, body: bytes = b"") -> Attempt:
        attempt = self.attempt()
        head = b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n"
        async with asyncio.timeout(30):
            await attempt.run(head % (path.encode(), len(body)), body)
        return attempt

    def close(self) -> None:
        self.pool.close()
        self.channels.close()
        self.trunk.close()


@asynccontextmanager
async def joined(app: App) -> AsyncIterator[tuple[Listener, Way]]:
    async with serving(app, multiplexed=True) as listener:
        way = Way(listener)
        await way.up()
        try:
            yield listener, way
        finally:
            way.close()


async def test_many_requests_at_once_share_one_connection() -> None:
    async with joined(Echo()) as (listener, way):
        bodies = [b"%d" % n * (1 + n) for n in range(200)]
        answers = await asyncio.gather(*(way.ask(f"/echo/{n}", b) for n, b in enumerate(bodies)))
        for n, (answer, body) in enumerate(zip(answers, bodies, strict=True)):
            assert answer.body == b"POST /echo/%d|%b" % (n, body)
        # Each is a connection of its own to everybody above.
        assert way.channels.connected == len(listener.connections.open) > 1
        assert way.pool.connected == 0


async def test_a_channel_is_kept_and_used_again() -> None:
    async with joined(Echo()) as (listener, way):
        for n in range(20):
            assert (await way.ask(f"/echo/{n}")).status == 200
        assert way.channels.connected == len(listener.connections.open) == 1


async def test_a_client_that_leaves_cancels_its_own_request_and_no_other() -> None:
    app = Echo()
    async with joined(app) as (listener, way):
        left, stays = way.attempt(), asyncio.create_task(way.ask("/later/200"))
        left.start(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n", b"", lambda: None)
        await until(lambda: app.held)
        left.drop()
        await until(lambda: app.gone)
        assert (await stays).status == 200
        assert app.gone == 1
        await until(lambda: len(listener.connections.open) == 1)


async def test_the_end_of_the_connection_is_the_end_of_everything_on_it() -> None:
    app = Echo()
    async with joined(app) as (listener, way):
        asked = [asyncio.create_task(way.ask("/hold")) for _ in range(5)]
        await until(lambda: len(app.held) == 5)
        for connection in list(listener.connections.open):
            connection._transport._multiplex.abort()  # as if the process had gone
            break
        for attempt in await asyncio.gather(*asked):
            assert attempt.failure is Failure.RESET
        await until(lambda: app.gone == 5 and not listener.connections.open)
        assert way.channels.open == 0
        assert (await way.ask("/echo")).status == 200  # over a connection of its own
        await until(way.trunk.up)
        assert len(way.said) == 2


async def test_who_does_not_offer_it_is_asked_over_connections() -> None:
    async with serving(Echo()) as listener:
        way = Way(listener)
        way.trunk.offered(True)
        assert not way.trunk.up()
        await until(lambda: way.said)
        assert "connection of its own" in way.said[0]
        assert (await way.ask("/echo")).body == b"POST /echo|"
        assert not way.trunk.up()
        way.close()


async def test_a_reader_that_is_slow_holds_its_own_channel_only() -> None:
    app = Echo()
    async with joined(app) as (_, way):
        slow, reply = await way.held_by(app)
        flow: list[bool] = []
        reply.on_flow = flow.append
        reply.start(200, b"", b"data: one\n\n")
        slow.pause(True)
        await until(lambda: flow == [True])
        reply.write(b"data: two\n\n")
        assert reply.slow
        assert connection_of(reply).unsent > 0
        assert (await way.ask("/big/3000000")).bytes_in == 3_000_000
        before = slow.bytes_in
        slow.pause(False)
        await until(lambda: flow == [True, False])
        await until(lambda: slow.bytes_in > before)
        assert not connection_of(reply).unsent
        slow.drop()


async def test_a_reader_that_takes_a_little_now_and_then_is_not_taken_for_stuck() -> None:
    app = Echo()
    async with joined(app) as (_, way):
        slow, reply = await way.held_by(app)
        seen = set()
        for _ in range(3):
            slow.pause(True)
            await until(lambda: reply.slow)
            seen.add(reply.standing)
            slow.pause(False)
            await until(lambda: not reply.slow)
        assert len(seen) == 3
        slow.drop()


async def test_a_caller_that_leaves_behind_requests_that_wait_is_noticed() -> None:
    app = Echo()
    async with serving(app, Limits(pipeline=1, keep_alive_secs=0.4), multiplexed=True) as listener:
        way = Way(listener)
        await way.up()
        lost = asyncio.Event()
        channel = await way.trunk.dial(lambda: Caller(lost))
        channel.send(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n" * 2)
        await until(lambda: app.held and connection_of(app.held[0])._queue)
        channel.send(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n")
        channel.leave()
        await until(lambda: app.gone == 1)
        await until(lambda: not listener.connections.open)
        way.close()


class Caller(asyncio.Protocol):
    """Sends what it is told to, however its peer feels about it."""

    def __init__(self, lost: asyncio.Event) -> None:
        self._lost = lost
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.set()

    def send(self, data: bytes) -> None:
        self._transport._put(1, data)  # a hold is not heeded

    def leave(self) -> None:
        self._transport.abort()


async def test_a_node_that_drains_lets_answers_end_and_begins_none() -> None:
    app = Echo()
    async with joined(app) as (listener, way):
        asked = asyncio.create_task(way.ask("/later/100"))
        await until(lambda: app.seen)
        assert await listener.drain(30) == 0
        assert (await asked).status == 200
        await until(lambda: not listener.connections._multiplexes)
        refused = way.attempt()
        await refused.run(b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n", b"")
        assert refused.failure in {Failure.CONNECT, Failure.RESET}


def living() -> int:
    kinds = (Channel, ServerProtocol, UpstreamConnection)
    return sum(isinstance(o, kinds) for o in gc.get_objects())


async def test_what_has_ended_leaves_nothing_for_the_collector() -> None:
    app = Echo()
    async with serving(app, multiplexed=True) as listener:
        gc.collect()
        before = living()
        gc.disable()
        try:
            way = Way(listener)
            await way.up()
            await asyncio.gather(*(way.ask("/echo") for _ in range(50)))
            leavers = [way.attempt() for _ in range(50)]
            for attempt in leavers:
                attempt.start(b"GET /hold HTTP/1.1\r\nhost: a\r\n\r\n", b"", lambda: None)
            await until(lambda: len(app.held) == 50)
            for attempt in leavers:
                attempt.drop()
            await until(lambda: app.gone == 50)
            connections = [ref(c) for c in listener.connections.open]
            way.close()
            await until(lambda: not listener.connections.open)
            await until(lambda: not listener.connections._multiplexes)
            del attempt, leavers, way
            app.held.clear()
            app.seen.clear()
            await until(lambda: not any(c() for c in connections))
            await until(lambda: living() <= before)
        finally:
            gc.enable()


async def test_garbage_ends_the_connection_and_nothing_else() -> None:
    async with serving(Echo(), multiplexed=True) as listener:
        for garbage in (b"\xff" * 64, b"\x01\0\0\0\x07\0\0\0" * 3, b"\x01\0\0\0\x28\0\0\0hello"):
            reader, writer = await asyncio.open_connection(HOST, listener.port)
            raw = Raw(reader, writer)
            raw.send(
                b"GET /multiplex HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n"
                b"upgrade: helexa-multiplex/1\r\n\r\n"
            )
            assert (await raw.head()).status == 101
            raw.send(garbage)
            writer.close()
        way = Way(listener)
        await way.up()
        assert (await way.ask("/echo")).status == 200
        way.close()
