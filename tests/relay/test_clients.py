"""Clients that leave, stall, vanish or ask without end, and what becomes of their connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

import pytest
from tests.relay.rig import GET, Echo, client, get, post, serving, until, vanish
from tests.relay.test_server import QUICK

from helexa.relay.http1 import Limits
from helexa.relay.reply import Reply
from helexa.relay.request import Request


class Trickle(Echo):
    """``/trickle`` says something now and then."""

    def handle(self, request: Request, reply: Reply) -> None:
        super().handle(request, reply)
        if request.path == b"/trickle":
            reply.start(200, b"", b"first")
            self._more(reply)

    def _echo(self, request: Request, reply: Reply) -> None:  # type: ignore[override]
        if request.path != b"/trickle":
            Echo._echo(request, reply)

    def _more(self, reply: Reply) -> None:
        if not reply.gone:
            reply.write(b"more")
            asyncio.get_running_loop().call_later(0.2, self._more, reply)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["close", "reset", "half-close"])
async def test_a_client_that_leaves_is_noticed_at_once(how: str) -> None:
    app = Echo()
    async with serving(app) as listener:
        async with client(listener.port) as raw:
            raw.send(get("/hold") + GET)
            await until(lambda: app.held)
            if how == "reset":
                raw.reset()
            elif how == "half-close":
                raw.writer.write_eof()
            else:
                raw.writer.close()
            await until(lambda: app.gone)
            assert app.held[0].gone
            app.held[0].write(b"goes nowhere")
            app.held[0].end()
            assert len(app.seen) == 1  # the pipelined one is not begun
        await until(lambda: not listener.connections.open)


@pytest.mark.anyio
async def test_a_half_closed_client_still_gets_what_was_answered_before() -> None:
    app = Echo()
    async with serving(app) as listener, client(listener.port) as raw:
        raw.send(get("/big/3000000") + GET)
        raw.writer.write_eof()
        assert len((await raw.answer()).body) == 3_000_000
        assert (await raw.answer()).body == b"GET /echo|"
        assert await raw.closed()


@pytest.mark.anyio
async def test_a_client_that_pipelines_without_end_is_not_read_and_still_seen_to_leave() -> None:
    app = Echo()
    async with serving(app, Limits(pipeline=4, head_secs=0.4)) as listener:
        async with client(listener.port) as raw:
            raw.send(get("/hold") + GET * 10)
            await until(lambda: app.held)
            raw.send(GET)
            await asyncio.sleep(0.05)
            connection = next(iter(listener.connections.open))
            assert not connection._reading
            raw.writer.close()
            await until(lambda: app.gone)
        await until(lambda: not listener.connections.open)


@pytest.mark.anyio
async def test_a_client_that_asks_on_and_on_and_takes_no_answer_is_not_answered_on_and_on() -> None:
    app = Echo()
    async with serving(app) as listener, client(listener.port) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(get("/big/60000") * 2000)
        await until(lambda: any(c.write_paused and c._queue for c in listener.connections.open))
        (connection,) = listener.connections.open
        assert connection.unsent < 1_000_000
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(2000):
            assert len((await raw.answer()).body) == 60_000
        assert len(app.seen) == 2000


@pytest.mark.anyio
async def test_a_pipeline_longer_than_the_bound_is_answered_whole() -> None:
    app = Echo()
    async with serving(app, Limits(pipeline=4)) as listener, client(listener.port) as raw:
        bodies = [b"%d" % i * 200_000 for i in range(8)]
        raw.send(get("/later/50") + b"".join(post("/later/1", b) for b in bodies) + GET * 50)
        assert (await raw.answer()).body == b"GET /later/50|"
        for body in bodies:
            assert (await raw.answer()).body == b"POST /later/1|" + body
        for _ in range(50):
            assert (await raw.answer()).body == b"GET /echo|"


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_is_cut() -> None:
    app = Echo()
    async with serving(app, QUICK) as listener:
        for path in ("/big/30000000", "/hold"):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port, limit=1024)
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get(path))
            if path == "/hold":
                await until(lambda: app.held)
                app.held[0].start(200, b"")
                app.held[0].write(b"x" * 30_000_000)
                await until(lambda: app.gone)
            await until(lambda: not listener.connections.open)
            writer.close()


@pytest.mark.anyio
async def test_a_client_that_reads_slowly_is_not_cut() -> None:
    async with serving(Echo(), QUICK) as listener:
        for _ in range(10):  # a process that is held up does not read: then it is cut rightly
            if await read_slowly(listener.port, 12_000_000):
                return
    pytest.fail("it is cut though it reads")


async def read_slowly(port: int, size: int) -> bool:
    """Read an answer for longer than it may stall, a bit all the time; whether it came whole."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    sock.connect(("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=65_536)
    writer.write(get(f"/big/{size}"))
    got = 0
    with contextlib.suppress(OSError):
        while got < size and (data := await reader.read(600_000)):
            got += len(data)
            await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
    return got >= size


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked as Linux is")
@pytest.mark.anyio
async def test_a_client_that_vanishes_without_a_word_is_gone_before_long() -> None:
    """While its answer is waited for, while it comes, and while it is full of it."""
    app, socks = Trickle(), []
    async with serving(app, Limits(lost_secs=2.0)) as listener:
        for path in ("/hold", "/trickle", "/big/9000000"):
            sock = socket.create_connection(("127.0.0.1", listener.port))
            socks.append(sock)
            sock.sendall(get(path))
            if path != "/hold":
                assert await asyncio.to_thread(sock.recv, 1000)
        await until(lambda: len(app.seen) == 3, 30.0)
        kept = [vanish(sock) for sock in socks]
        await until(lambda: not listener.connections.open, 50.0)
        assert len(kept) == 3
        for sock in socks:
            sock.close()
    assert app.gone == 2  # the third answer had been given


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked as Linux is")
@pytest.mark.anyio
async def test_a_client_that_does_not_read_for_a_while_has_not_vanished() -> None:
    async with serving(Echo(), Limits(lost_secs=0.2)) as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as sock:
            sock.sendall(get("/big/9000000"))
            assert await asyncio.to_thread(sock.recv, 1000)
            await asyncio.sleep(1)  # the time itself is the matter here
            assert len(listener.connections.open) == 1
