"""One try at an upstream: every way it can go wrong has a name, and costs no connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import pytest
from tests.relay.proxy import SSE_HEAD
from tests.relay.rig import (
    HEAD,
    HOST,
    WAYS,
    Serve,
    answering,
    ask,
    attempt_on,
    pool_for,
    pooled,
    read_request,
    rst,
    until,
    upstream,
)

from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.upstream import Failure
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
SHORT = Deadlines(send=0.2, first_byte=0.2, between_bytes=0.2)
LATE = {
    Failure.TIMEOUT_FIRST: Deadlines(first_byte=0.2),
    Failure.TIMEOUT_BETWEEN: Deadlines(between_bytes=0.2),
}
"""Only what is to be late is: whoever is held up for a moment finds no other deadline over."""


def after(data: bytes, then: str) -> Serve:
    """Reads the request, sends ``data`` and then closes, resets or falls silent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0.02)
        if then == "reset":
            rst(writer)
        elif then == "silence":
            await asyncio.sleep(30)

    return serve


PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"
BROKEN: dict[str, tuple[bytes, str, Failure | None]] = {
    "closed before the head": (b"", "close", Failure.RESET),
    "reset before the head": (b"", "reset", Failure.RESET),
    "closed in the head": (b"HTTP/1.1 200 OK\r\ncont", "close", Failure.RESET),
    "reset in the head": (b"HTTP/1.1 200 OK\r\ncont", "reset", Failure.RESET),
    "closed after a 100": (b"HTTP/1.1 100 Continue\r\n\r\n", "close", Failure.RESET),
    "closed in a body with a length": (PLAIN + b"12345", "close", Failure.FRAMING),
    "reset in a body with a length": (PLAIN + b"12345", "reset", Failure.FRAMING),
    "closed in a chunked body": (SSE_HEAD + b"5\r\n12345\r\n", "close", Failure.FRAMING),
    "reset in a chunked body": (SSE_HEAD + b"5\r\n123", "reset", Failure.FRAMING),
    "reset in a body without framing": (b"HTTP/1.1 200 OK\r\n\r\nabc", "reset", Failure.FRAMING),
    "closed in a body without framing": (b"HTTP/1.1 200 OK\r\n\r\nabc", "close", None),
    "closed after the answer": (PLAIN + b"1234567890", "close", None),
    "reset after the answer": (PLAIN + b"1234567890", "reset", None),
    "longer than it says": (PLAIN + b"1234567890xx", "silence", None),
    "two answers to one request": (PLAIN + b"1234567890" + OK, "silence", None),
    "silent before the head": (b"", "silence", Failure.TIMEOUT_FIRST),
    "silent in the head": (b"HTTP/1.1 200 OK\r\n", "silence", Failure.TIMEOUT_FIRST),
    "silent after the head": (PLAIN, "silence", Failure.TIMEOUT_FIRST),
    "silent in the body": (PLAIN + b"1", "silence", Failure.TIMEOUT_BETWEEN),
    "garbage": (b"\x00\x01\x02 not http\r\n\r\n", "silence", Failure.PROTOCOL),
    "garbage between chunks": (SSE_HEAD + b"1\r\nx\r\nzz\r\n", "silence", Failure.PROTOCOL),
    "a head without an end": (
        b"HTTP/1.1 200 OK\r\n" + b"x: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 20_000,
        "silence",
        Failure.PROTOCOL,
    ),
    "interim answers without an end": (
        b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" * 20_000,
        "silence",
        Failure.PROTOCOL,
    ),
    "switching protocols": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "silence",
        Failure.PROTOCOL,
    ),
    "length and coding": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "silence",
        Failure.PROTOCOL,
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", BROKEN)
async def test_every_way_to_break_has_a_name(name: str, way: str) -> None:
    data, then, failure = BROKEN[name]
    async with pooled(after(data, then), way) as pool:
        attempt = await ask(attempt_on(pool, LATE.get(failure) if failure else None))
        assert attempt.failure is failure
        if failure is None:
            assert attempt.status == 200
        await until(lambda: pool.open == 0 or pool.idle == 1)
        assert pool.busy == 0
        if "longer" in name or "two answers" in name:
            assert attempt.body == b"1234567890"
            assert pool.idle == 0
        pool.close()
        await until(lambda: pool.open == 0)


async def test_nobody_there_is_a_failure_to_connect() -> None:
    async with upstream(answering(OK)) as port:
        pass
    pool = pool_for(port)
    assert (await ask(attempt_on(pool))).failure is Failure.CONNECT
    assert pool.open == 0


async def test_a_host_that_takes_no_connection_times_out() -> None:
    with socket.socket() as listening, contextlib.ExitStack() as stack:
        listening.bind((HOST, 0))
        listening.listen(0)
        for _ in range(4):  # once its queue is full the kernel lets further ones wait
            queued = stack.enter_context(socket.socket())
            queued.setblocking(False)
            queued.connect_ex(listening.getsockname())
        pool = pool_for(listening.getsockname()[1], connect_secs=0.2)
        assert (await ask(attempt_on(pool))).failure is Failure.TIMEOUT_CONNECT
        assert pool.open == 0


async def test_informational_answers_are_skipped() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    async with upstream(answering(early + OK)) as port:
        pool = pool_for(port)
        for _ in range(3):
            attempt = await ask(attempt_on(pool))
            assert (attempt.status, attempt.body) == (200, b"ok")
            assert attempt.headers == [(b"content-length", b"2")]
        assert (pool.connected, pool.idle) == (1, 1)
        pool.close()


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_keep_the_connection(status: int) -> None:
    async with upstream(answering(b"HTTP/1.1 %d -\r\n\r\n" % status, OK)) as port:
        pool = pool_for(port)
        assert (await ask(attempt_on(pool))).status == status
        assert (await ask(attempt_on(pool))).body == b"ok"
        assert pool.connected == 1
        pool.close()


async def test_a_kept_connection_that_closes_is_retried_once_on_a_new_one() -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await read_request(reader)
        served += 1
        writer.write(OK)
        await read_request(reader)  # and close instead of an answer

    async with upstream(serve) as port:
        pool = pool_for(port)
        # Two are kept: the second try is not for the other one, which is as stale.
        await asyncio.gather(ask(attempt_on(pool)), ask(attempt_on(pool)))
        for _ in range(3):
            attempt = await ask(attempt_on(pool))
            assert (attempt.failure, attempt.body) == (None, b"ok")
        assert (served, pool.connected) == (5, 5)
        pool.close()


async def test_nothing_is_retried_once_something_came_back() -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1
        writer.write(OK)
        await read_request(reader)
        asked += 1
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    async with upstream(serve) as port:
        pool = pool_for(port)
        await ask(attempt_on(pool))
        assert (await ask(attempt_on(pool))).failure is Failure.RESET
        assert asked == 2


async def test_a_new_connection_that_closes_is_not_retried() -> None:
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1

    async with upstream(serve) as port:
        assert (await ask(attempt_on(pool_for(port)))).failure is Failure.RESET
    assert asked == 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("keeps", [True, False])
async def test_an_early_refusal_is_heard_while_the_request_is_still_being_sent(
    keeps: bool, way: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await writer.drain()
        await asyncio.sleep(5 if keeps else 0.05)
        rst(writer)

    async with pooled(serve, way) as pool:
        attempt = await ask(attempt_on(pool), b"x" * 30_000_000)
        assert (attempt.failure, attempt.status, attempt.body) == (None, 413, b"big")
        assert pool.idle == 0  # the rest of the body must not precede another request
        await until(lambda: pool.open == 0)


async def test_a_request_that_is_not_taken_times_out() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(30)

    async with upstream(serve) as port:
        attempt = await ask(attempt_on(pool_for(port), SHORT), b"x" * 30_000_000)
        assert attempt.failure is Failure.TIMEOUT_SEND


async def test_a_request_that_is_taken_slowly_is_not_given_up_while_it_moves() -> None:
    """Asked at times of our own: sixty seconds of a slow line pass at once."""
    turn, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await turn.wait()
        await reader.readexactly(10_000_000)
        await ended.wait()

    async with upstream(serve) as port:
        wheel = Wheel(asyncio.get_running_loop(), 600.0)  # it does not look by itself
        attempt = attempt_on(pool_for(port), Deadlines(send=30.0), wheel=wheel)
        attempt.start(HEAD % 40_000_000, b"x" * 40_000_000, lambda: None)
        await until(lambda: attempt.connected_at)
        connection, began = attempt._connection, attempt.connected_at
        assert connection is not None
        assert attempt.watch(began + 29) is not None
        stood = connection.unsent
        turn.set()
        await until(lambda: connection.unsent < stood)
        assert attempt.watch(began + 31) is not None
        assert attempt.watch(began + 60) is not None
        assert attempt.failure is None
        ended.set()
        attempt.drop()


async def test_a_long_answer_has_no_total_deadline() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE_HEAD)
        for _ in range(10):
            writer.write(b"a\r\ndata: xx\n\n\r\n")
            await asyncio.sleep(0.08)
        writer.write(b"0\r\n\r\n")

    async with upstream(serve) as port:
        for left in reversed(range(10)):
            got: list[bytes] = []
            attempt = await ask(attempt_on(pool_for(port), SHORT, got.append))
            if attempt.failure is not None and left:
                continue  # this process was held up, and a piece was late
            assert attempt.failure is None
            assert got == [b"data: xx\n\n"] * 10
            break


async def test_an_answer_or_an_event_beyond_the_bound_is_given_up() -> None:
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n" + b"x" * 3_000_000
    async with upstream(answering(big)) as port:
        pool = pool_for(port)
        got: list[bytes] = []
        for on_events in (None, got.append):
            attempt = await ask(attempt_on(pool, on_events=on_events, max_body=1_000_000))
            assert attempt.failure is Failure.TOO_LARGE
        assert got == []
        await until(lambda: pool.open == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_paused_connection_reads_again_for_its_next_exchange(way: str) -> None:
    async with pooled(answering(OK), way) as pool:
        attempt: Attempt

        class Slow(Attempt):
            __slots__ = ()

            def on_body(self, data: bytes) -> None:
                self.pause(True)
                super().on_body(data)

        loop = asyncio.get_running_loop()
        attempt = Slow(pool, pool._wheel, loop, Deadlines())
        assert (await ask(attempt)).body == b"ok"
        attempt.pause(False)
        assert (await ask(attempt_on(pool))).body == b"ok"
        assert pool.connected == 1
        pool.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_paused_upstream_is_not_late(way: str) -> None:
    async with pooled(after(SSE_HEAD, "silence"), way) as pool:
        attempt = attempt_on(pool, SHORT)
        attempt.pause(True)
        running = asyncio.create_task(ask(attempt))
        await asyncio.sleep(0.5)
        assert not running.done()
        resumed = time.monotonic()
        attempt.pause(False)
        assert (await running).failure is Failure.TIMEOUT_FIRST
        assert time.monotonic() - resumed >= SHORT.first_byte


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("when", ["before", "connected", "streaming"])
async def test_stop_ends_the_attempt_without_a_failure(when: str, way: str) -> None:
    async with pooled(after(SSE_HEAD + b"3\r\na\n\n\r\n", "silence"), way) as pool:
        got: list[bytes] = []
        attempt = attempt_on(pool, on_events=got.append)
        if when == "before":
            attempt.stop()
        running = asyncio.create_task(ask(attempt))
        if when == "connected":
            await until(lambda: attempt.connected_at)
            attempt.stop()
        elif when == "streaming":
            await until(lambda: got)
            attempt.stop()
        assert (await running).failure is None
        await until(lambda: pool.open == 0)


async def test_a_bug_in_the_callers_hook_reaches_the_caller() -> None:
    def broken(_: bytes) -> None:
        raise ZeroDivisionError

    async with upstream(after(SSE_HEAD + b"3\r\na\n\n\r\n", "silence")) as port:
        pool = pool_for(port)
        with pytest.raises(ZeroDivisionError):
            await ask(attempt_on(pool, on_events=broken))
        await until(lambda: pool.open == 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_finished_attempt_is_garbage_at_once(way: str) -> None:
    import gc
    import weakref

    async with pooled(answering(OK), way) as pool:
        gc.disable()
        try:
            refs = [weakref.ref(await ask(attempt_on(pool))) for _ in range(20)]
            assert [r() for r in refs] == [None] * 20
        finally:
            gc.enable()
        pool.close()


async def test_the_host_is_spelled_as_an_authority() -> None:
    origin = type(pool_for(1).origin)
    assert origin("::1", 80).authority == "[::1]:80"
    assert origin(HOST, 80).authority == "127.0.0.1:80"
    assert origin(uds="/x").authority == "localhost"
