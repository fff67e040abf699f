"""The pool's bound, its order, and that nothing is ever lost from its accounts."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest
from tests.relay.rig import HEAD, answering, ask, attempt_on, pool_for, until, upstream

from helexa.relay.pool import ConnectFailed, Origin, UpstreamPool
from helexa.relay.upstream import Failure, Headers, Sink, UpstreamConnection
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Ignore(Sink):
    def on_response(self, status: int, headers: Headers) -> None: ...
    def on_body(self, data: bytes) -> None: ...
    def on_complete(self) -> None: ...
    def on_failure(self, failure: Failure) -> None: ...
    def watch(self, now: float) -> float | None: ...


async def use(connection: UpstreamConnection) -> None:
    """One exchange, after which the connection is the pool's again."""
    connection.send(HEAD % 0, b"", Ignore())
    await until(lambda: connection._sink is None)


async def test_idle_connections_are_reused_and_evicted_by_age() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, idle_secs=0.15)
        for left in reversed(range(10)):
            connected = pool.connected
            await asyncio.gather(*(ask(attempt_on(pool)) for _ in range(5)))
            begun = (pool.open, pool.idle, pool.busy)
            for _ in range(12):  # one of them stays young
                await ask(attempt_on(pool))
                await asyncio.sleep(0.03)
            ended = (pool.open, pool.idle, pool.connected - connected)
            if left and (begun, ended) != ((5, 5, 0), (1, 1, 5)):
                await until(lambda: pool.open == 0)
                continue  # this process was held up, and they grew old
            assert (begun, ended) == ((5, 5, 0), (1, 1, 5))
            break
        await until(lambda: pool.open == 0)


async def test_the_bound_holds_and_waiters_are_served_in_order() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=2)
        held = [await pool.take(), await pool.take()]
        order: list[int] = []

        async def wait(i: int) -> None:
            connection = await pool.take()
            order.append(i)
            await use(connection)

        waiting = [asyncio.create_task(wait(i)) for i in range(6)]
        await asyncio.sleep(0.01)
        assert pool.open == 2
        late = asyncio.create_task(wait(99))  # must not overtake
        await use(held[0])
        await asyncio.gather(*waiting, late)
        assert order == [0, 1, 2, 3, 4, 5, 99]
        assert (pool.open, pool.connected) == (2, 2)
        held[1].abandon()
        pool.close()
        await until(lambda: pool.open == 0)


async def test_nobody_overtakes_a_waiter_whose_turn_has_come() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=1)
        only = await pool.take()
        waiter = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool._returned(only, True)
        assert pool.take_idle() is None
        assert await waiter is only
        only.abandon()
        await until(lambda: pool.open == 0)


async def test_a_wait_ends_with_the_deadline() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=1, connect_secs=0.1)
        only = await pool.take()
        with pytest.raises(ConnectFailed) as failed:
            await pool.take()
        assert failed.value.failure is Failure.FULL
        await use(only)
        assert await pool.take() is only
        only.abandon()
        await until(lambda: pool.open == 0)


async def test_a_turn_that_comes_as_the_waiter_leaves_is_the_next_ones() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=1)
        only = await pool.take()
        first, second = (asyncio.create_task(pool.take()) for _ in range(2))
        await asyncio.sleep(0)
        pool._returned(only, True)
        first.cancel()
        assert await second is only
        third = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        fourth = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        only.abandon()
        while len(pool._waiters) == 2:
            await asyncio.sleep(0)  # no longer: the place must not be a connection yet
        third.cancel()
        connection = await fourth
        assert pool.open == 1
        connection.abandon()
        await until(lambda: pool.open == 0)


async def test_a_fresh_connection_displaces_an_idle_one_at_the_bound() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=1)
        await use(await pool.take())
        assert pool.idle == 1
        fresh = await pool.take(fresh=True)
        assert (fresh.served, pool.open, pool.connected) == (0, 1, 2)
        fresh.abandon()
        await until(lambda: pool.open == 0)


async def test_a_connection_that_closes_while_idle_is_forgotten() -> None:
    async with upstream(answering(OK, close=True)) as port:
        pool = pool_for(port)
        for _ in range(3):
            assert (await ask(attempt_on(pool))).body == b"ok"
            await until(lambda: pool.open == 0)
        assert pool.connected == 3


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.03)
        writer.write(OK)
        await reader.read()

    async with upstream(serve) as port:
        pool = pool_for(port)
        await use(await pool.take())
        assert pool.idle == 1
        await until(lambda: pool.open == 0)


async def test_closing_refuses_the_waiting_and_ends_the_busy() -> None:
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=1)
        only = await pool.take()
        waiter = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        pool.close()
        with pytest.raises(ConnectFailed):
            await waiter
        with pytest.raises(ConnectFailed):
            await pool.take()
        assert pool.open == 1
        await use(only)
        await until(lambda: pool.open == 0 and only._closed)


def consistent(pool: UpstreamPool, limit: int) -> None:
    assert 0 <= pool.idle + pool.busy <= pool.open <= limit
    assert not (pool.idle and any(not w.done() for w in pool._waiters))


async def test_random_takes_returns_losses_and_cancels_never_lose_a_place() -> None:
    rng = random.Random(3)
    async with upstream(answering(OK)) as port:
        pool = pool_for(port, limit=5, connect_secs=0.05, idle_secs=0.1)

        async def one() -> None:
            try:
                connection = await pool.take(fresh=rng.random() < 0.2)
            except ConnectFailed:
                return
            sink = Ignore()
            if rng.random() < 0.3:
                connection.abandon()
                return
            connection.send(HEAD % 0, b"", sink)
            try:
                await until(lambda: connection._sink is not sink)
            finally:
                if connection._sink is sink:
                    connection.abandon()
            if rng.random() < 0.1 and connection in pool._idle:
                connection._transport.close()  # as if the upstream had closed it

        tasks: set[asyncio.Task[None]] = set()
        for _ in range(2000):
            task = asyncio.create_task(one())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            consistent(pool, 5)
            if rng.random() < 0.5:
                rng.choice(list(tasks)).cancel()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.random() * 0.003)
        await until(lambda: not tasks)
        consistent(pool, 5)
        pool.close()
        await until(lambda: pool.open == 0)
        assert (pool.idle, pool.busy) == (0, 0)


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="an option of Linux")
@pytest.mark.parametrize("delayed", [False, True])
async def test_streamed_answers_are_acknowledged_late_where_that_was_asked_for(
    delayed: bool,
) -> None:
    answers = asyncio.Event()
    seen: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answers.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")

    class Look(Ignore):
        def on_response(self, status: int, headers: Headers) -> None:
            seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK))

    async with upstream(serve) as port:
        pool = pool_for(port, delay_acks=delayed)
        connection = await pool.take()
        sock = connection._transport.get_extra_info("socket")
        connection.send(HEAD % 0, b"", Look())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        answers.set()
        await until(lambda: connection._sink is None)
        assert seen == [0 if delayed else 1]
        pool.close()


def test_a_place_that_speaks_tls_is_never_asked_without() -> None:
    loop = asyncio.new_event_loop()
    try:
        with pytest.raises(ValueError, match="TLS"):
            UpstreamPool(Origin("127.0.0.1", 1, tls=True), Wheel(loop), loop)
    finally:
        loop.close()
