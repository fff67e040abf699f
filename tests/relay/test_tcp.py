"""Connecting over the network: several addresses, and other sides that vanish."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohappyeyeballs import AddrInfoType
from tests.relay.rig import (
    Echo,
    answering,
    ask,
    attempt_on,
    get,
    pool_for,
    read_request,
    upstream,
    vanish,
)

from helexa.relay.attempt import Attempt
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener
from helexa.relay.names import Name
from helexa.relay.tcp import connect_tcp, first_to_answer
from helexa.relay.upstream import Failure
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def at(host: str, port: int) -> AddrInfoType:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


@contextmanager
def swallowing() -> Iterator[int]:
    """A port of 127.0.0.2 that answers no attempt to connect: its queue is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


@pytest.mark.skipif(sys.platform != "linux", reason="a full queue is as Linux has it")
async def test_an_address_that_swallows_everything_keeps_no_other_from_being_tried() -> None:
    loop = asyncio.get_running_loop()
    with swallowing() as dead:
        async with upstream(answering(OK)) as port:
            async with asyncio.timeout(60):
                ways = [at("127.0.0.2", dead), at("127.0.0.1", port)]
                sock = await first_to_answer(loop, ways)
            with sock:
                assert sock.getpeername() == ("127.0.0.1", port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await first_to_answer(loop, [at("127.0.0.2", dead), at("127.0.0.1", 1)])


async def test_what_stood_in_the_way_at_every_address_is_told() -> None:
    loop = asyncio.get_running_loop()
    with pytest.raises(ConnectionRefusedError):
        await first_to_answer(loop, [at("127.0.0.1", 1)])
    with pytest.raises(ConnectionRefusedError, match=r"127\.0\.0\.1.*127\.0\.0\.2"):
        await first_to_answer(loop, [at("127.0.0.1", 1), at("127.0.0.2", 1)])


async def test_pieces_leave_at_once_over_a_connection_that_was_raced_for() -> None:
    async with upstream(answering(OK)) as port:
        loop = asyncio.get_running_loop()
        made = await connect_tcp(loop, Kept, Name(loop, "localhost", port), None)
        sock = made.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        made.transport.abort()


class Kept(asyncio.Protocol):
    """Knows its transport."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked as Linux is")
async def test_an_upstream_that_vanishes_without_a_word_is_given_up_before_long() -> None:
    """With the request before it, behind it, and in the middle of its answer."""
    gone = await asyncio.gather(
        _vanishing(b"", heard=True), _vanishing(b"", heard=False), _vanishing(CUT, heard=True)
    )
    assert {attempt.failure for attempt in gone} <= {Failure.RESET, Failure.FRAMING}


CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"


async def _vanishing(said: bytes, *, heard: bool) -> Attempt:
    """One request; whoever answers it is gone behind ``said``, or before it has heard of it."""
    filters = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(OK)
        if heard:
            await read_request(reader)
            writer.write(said)
            await writer.drain()
            await asyncio.sleep(0.1)  # its acknowledgement is on its way
        filters.append(vanish(writer.get_extra_info("socket")))
        vanished.set()
        await asyncio.sleep(60)

    vanished = asyncio.Event()
    async with upstream(serve) as port:
        pool = pool_for(port, lost_secs=1.0)
        assert (await ask(attempt_on(pool))).body == b"ok"
        if not heard:
            await vanished.wait()
        return await ask(attempt_on(pool))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
async def test_every_address_is_those_of_ipv4_too() -> None:
    app, loop = Echo(), asyncio.get_running_loop()
    listener = Listener(app, Wheel(loop, 0.01), loop, Limits())
    await listener.start("::", 0)
    for host in ("127.0.0.1", "::1"):
        reader, writer = await asyncio.open_connection(host, listener.port)
        writer.write(get("/echo", "connection: close\r\n"))
        assert b"GET /echo" in await reader.read()
        writer.close()
    assert [request.peer for request in app.seen] == ["127.0.0.1", "::1"]
    with pytest.raises(OSError, match="in use"):
        await Listener(app, Wheel(loop, 0.01), loop, Limits()).start("::", listener.port)
    await listener.drain(0.0)
