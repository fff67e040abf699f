"""Both ends of the relay on real sockets: a scripted application, a raw client, raw upstreams."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.channel import Channel
from helexa.relay.connections import App, Foresee
from helexa.relay.http1 import BadRequest, Limits
from helexa.relay.listener import Listener, Tls
from helexa.relay.multiplex import SWITCHING, Multiplex, P
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.trunk import Dial, Trunk
from helexa.relay.wheel import Wheel

HOST = "127.0.0.1"


TEXT = b"content-type: text/plain\r\n"


GET = b"GET /echo HTTP/1.1\r\nhost: a\r\n\r\n"


def get(path: str, extra: str = "", version: str = "1.1") -> bytes:
    return f"GET {path} HTTP/{version}\r\nhost: a\r\n{extra}\r\n".encode()


def post(path: str, body: bytes, extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n{extra}\r\n".encode()
        + body
    )


class Echo:
    """Answers what the path says: ``/echo``, ``/later/MS``, ``/stream/N``, ``/hold``, …"""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.held: list[Reply] = []
        self.gone = 0

    def handle(self, request: Request, reply: Reply) -> None:
        self.seen.append(request)
        reply.on_gone = self._left
        verb, *rest = request.path.decode().removeprefix("/").split("/")
        if verb == "later":
            loop = asyncio.get_running_loop()
            loop.call_later(int(rest[0]) / 1000, self._echo, request, reply)
        elif verb == "stream":
            reply.start(200, TEXT, b"first")
            for i in range(int(rest[0])):
                reply.write(b"-%d" % i)
            reply.end(b"last")
        elif verb == "hold":
            self.held.append(reply)
        elif verb == "big":
            reply.send(200, TEXT, b"x" * int(rest[0]))
        elif verb == "raise":
            raise RuntimeError("a handler's bug")
        else:
            self._echo(request, reply)

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        return b"x-code: %b\r\n" % error.code.encode(), error.message.encode()

    def _left(self) -> None:
        self.gone += 1

    @staticmethod
    def _echo(request: Request, reply: Reply) -> None:
        reply.send(200, TEXT, b"%b %b|%b" % (request.method, request.path, request.body))


@asynccontextmanager
async def serving(
    app: App,
    limits: Limits | None = None,
    tls: Tls | None = None,
    wheel: Wheel | None = None,
    *,
    multiplexed: bool = False,
    foresee: Foresee = lambda _head: None,
) -> AsyncIterator[Listener]:
    loop = asyncio.get_running_loop()
    wheel = wheel or Wheel(loop, 0.01)
    may = (lambda _headers: True) if multiplexed else None
    limits = limits or Limits()
    listener = Listener(app, wheel, loop, limits, tls, multiplexed=may, foresee=foresee)
    await listener.start(HOST, 0)
    try:
        yield listener
    finally:
        await listener.drain(0.0)
        await until(lambda: not listener.connections.open)


async def until(condition: Callable[[], object], secs: float = 30.0) -> None:
    """Wait for something that other tasks bring about; a crowded machine is slow, not wrong."""
    async with asyncio.timeout(secs):
        while not condition():
            await asyncio.sleep(0.002)


@dataclass
class Got:
    """One answer as it came over the wire."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)


class Raw:
    """A client that says exactly what it is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Got:
        block = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = block[:-4].split(b"\r\n")
        pairs = (line.split(b": ", 1) for line in lines)
        return Got(int(first.split(b" ")[1]), {k.lower(): v for k, v in pairs})

    async def answer(self, *, bodyless: bool = False) -> Got:
        async with asyncio.timeout(30):
            got = await self.head()
            if bodyless or got.status in {100, 204, 304}:
                return got
            if b"content-length" in got.headers:
                got.body = await self.reader.readexactly(int(got.headers[b"content-length"]))
            elif got.headers.get(b"transfer-encoding") == b"chunked":
                while chunk := await self.chunk():
                    got.chunks.append(chunk)
                got.body = b"".join(got.chunks)
            else:
                got.body = await self.reader.read()
            return got

    async def chunk(self) -> bytes:
        """The next chunk; empty at the last one."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        data = await self.reader.readexactly(size + 2)
        assert data.endswith(b"\r\n")
        return data[:-2]

    async def closed(self, secs: float = 30.0) -> bool:
        """The server has closed, in order, and sent nothing more."""
        async with asyncio.timeout(secs):
            return await self.reader.read() == b""

    def reset(self) -> None:
        """Leave with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection(HOST, port, limit=1 << 26)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class _Switches(asyncio.Protocol):
    """A connection that carries channels from its first read on."""

    def __init__(self, accept: Callable[[], asyncio.Protocol]) -> None:
        self._accept = accept
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"GET /multiplex ")
        self._transport.write(SWITCHING)
        multiplex = Multiplex(asyncio.get_running_loop(), self._accept)
        self._transport.set_protocol(multiplex)
        multiplex.connection_made(self._transport)


@asynccontextmanager
async def upstream(serve: Serve, *, channels: bool = False) -> AsyncIterator[int]:
    """A raw server; ``serve`` is run per connection, which is closed when it returns.

    Args:
        channels: They come as channels of one connection.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except RuntimeError as error:
            if "the handler is closed" not in str(error):  # uvloop's word for a late write
                raise
        finally:
            tasks.discard(task)
            writer.close()

    def stream() -> asyncio.Protocol:
        reader = asyncio.StreamReader(limit=1 << 26)
        return asyncio.StreamReaderProtocol(reader, run)

    if channels:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Switches(stream), HOST, 0)
    else:
        server = await asyncio.start_server(run, HOST, 0, limit=1 << 26)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)
        await asyncio.sleep(0)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one request."""
    head = await reader.readuntil(b"\r\n\r\n")
    body = b""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            body = await reader.readexactly(int(line.split(b":")[1]))
    return head, body


def answering(*answers: bytes, close: bool = False) -> Serve:
    """Serves the given bytes, one item per request, over and over."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for answer in answers:
                await read_request(reader)
                writer.write(answer)
                await writer.drain()
                if close:
                    return

    return serve


def rst(writer: asyncio.StreamWriter) -> None:
    if isinstance(writer.transport, Channel):
        writer.transport.abort()
        return
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def pool_for(
    port: int,
    wheel: Wheel | None = None,
    *,
    limit: int = 64,
    idle_secs: float = 60.0,
    connect_secs: float = 3.0,
    delay_acks: bool = False,
    dial: Dial | None = None,
    lost_secs: float = 30.0,
) -> UpstreamPool:
    loop = asyncio.get_running_loop()
    return UpstreamPool(
        Origin(HOST, port),
        wheel or Wheel(loop, 0.01),
        loop,
        limit=limit,
        idle_secs=idle_secs,
        connect_secs=connect_secs,
        delay_acks=delay_acks,
        dial=dial,
        lost_secs=lost_secs,
    )


WAYS = ("connection", "channel")


@asynccontextmanager
async def pooled(serve: Serve, way: str, **options: Any) -> AsyncIterator[UpstreamPool]:
    """A pool of connections to ``serve``, or of channels; its options are ``pool_for``'s."""
    async with upstream(serve, channels=way == "channel") as port:
        plain = pool_for(port, **options)
        if way == "connection":
            yield plain
            plain.close()
            return
        wheel, loop = Wheel(asyncio.get_running_loop(), 0.01), asyncio.get_running_loop()
        dialled = 0

        async def dial(protocol: Callable[[], P]) -> P:
            nonlocal dialled
            dialled += 1
            return await plain.dial(protocol)

        trunk = Trunk(dial, b"host: a\r\n", wheel, loop)
        trunk.offered(True)
        await until(trunk.up)
        multiplex = trunk._multiplex
        assert multiplex is not None
        pool = pool_for(port, dial=trunk.dial, **options)
        try:
            yield pool
            assert trunk.open
            assert dialled == 1
            pool.close()
            await until(lambda: not len(multiplex) and not multiplex._receivers)
        finally:
            trunk.close()
            multiplex.abort()
            await until(lambda: multiplex._lost)


def attempt_on(
    pool: UpstreamPool,
    deadlines: Deadlines | None = None,
    on_events: Callable[[bytes], None] | None = None,
    max_body: int = 1 << 24,
    wheel: Wheel | None = None,
) -> Attempt:
    loop = asyncio.get_running_loop()
    return Attempt(
        pool, wheel or Wheel(loop, 0.01), loop, deadlines or Deadlines(), on_events, max_body
    )


HEAD = b"POST /x HTTP/1.1\r\nhost: up\r\ncontent-length: %d\r\n\r\n"


async def ask(attempt: Attempt, body: bytes = b"{}") -> Attempt:
    async with asyncio.timeout(30):
        await attempt.run(HEAD % len(body), body)
    return attempt


_DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0, no byte of the packet passes


def vanish(sock: socket.socket) -> ctypes.Array[ctypes.c_char]:
    """From now on this end hears nothing and says nothing, as behind a cut cable."""
    code = ctypes.create_string_buffer(_DROP_ALL)
    program = struct.pack("HL", 1, ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
    return code


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
