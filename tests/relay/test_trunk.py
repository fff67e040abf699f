"""The multiplexed connection to a node: asked for, refused, opened by every way and again."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.relay.joined import frame
from tests.relay.rig import (
    GET,
    HOST,
    Echo,
    Serve,
    client,
    get,
    pool_for,
    post,
    read_request,
    serving,
    until,
    upstream,
)
from tests.relay.test_tls import certify

from helexa.cortex.links import Links, NodeLink
from helexa.relay import trunk as module
from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.channel import OPEN
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener, Tls
from helexa.relay.multiplex import PIECE, SWITCHING
from helexa.relay.trunk import Trunk
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

UPGRADE = "connection: upgrade\r\nupgrade: helexa-multiplex/1\r\n"
NEVER: dict[str, bytes | None] = {
    "426": b"HTTP/1.1 426 Upgrade Required\r\ncontent-length: 0\r\n\r\n",
    "200": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n",
    "speaks first": SWITCHING + b"hello",
    "garbage": b"\x1b[31m\xff\x00" * 10_000,
    "long head": b"HTTP/1.1 101 Switching Protocols\r\n" + b"a: b\r\n" * 4000,
    "closes": None,
    "nothing": b"",
}


def proxy(says: bytes | None, asked: list[bytes]) -> Serve:
    """What may stand between gateway and node: answers the request to switch like that."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head, _ = await read_request(reader)
            if not head.startswith(b"GET /multiplex "):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            asked.append(head)
            if says is None:
                return
            writer.write(says)
            if says:
                await reader.read()

    return serve


@pytest.mark.parametrize("name", NEVER)
async def test_whatever_is_answered_to_the_request_to_switch_requests_go_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_OPEN_SECS", 0.2)
    asked: list[bytes] = []
    said: list[str] = []
    loop = asyncio.get_running_loop()
    async with upstream(proxy(NEVER[name], asked)) as port:
        plain = pool_for(port)
        trunk = Trunk(plain.dial, b"host: a\r\n", plain._wheel, loop, said=said.append)
        pool = pool_for(port, dial=trunk.dial)
        trunk.offered(True)
        await until(lambda: said)
        for _ in range(3):
            assert not trunk.up()
            attempt = Attempt(pool, plain._wheel, loop, Deadlines())
            await attempt.run(GET, b"")
            assert attempt.body == b"ok"
        assert len(asked) == len(said) == 1
        assert said[0].isascii()
        assert said[0].isprintable()
        # Where it answered, not before the node says so again; where it did not, once it is time.
        trunk._due = 0.0
        trunk.up()
        if name in {"closes", "nothing"}:
            assert "no multiplexed connection" in said[0]
            await until(lambda: len(asked) == 2 and trunk._opening is None)
            assert trunk._due > loop.time() + 3  # it takes its time
        else:
            assert "connection of its own" in said[0]
        assert len(said) == 1  # and not a second time
        trunk.close()
        pool.close()


async def test_what_is_closed_while_it_opens_leaves_nothing() -> None:
    asked: list[bytes] = []
    async with upstream(proxy(b"", asked)) as port:
        pool = pool_for(port)
        trunk = Trunk(pool.dial, b"host: a\r\n", pool._wheel, asyncio.get_running_loop())
        trunk.offered(True)
        await until(lambda: asked)
        trunk.close()
        await until(lambda: trunk._opening is None)
        assert not trunk.up()
        assert trunk._opening is None


REQUESTS = {
    "another method": (post("/multiplex", b"", UPGRADE), 1),
    "with a body": (
        f"GET /multiplex HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n{UPGRADE}\r\nhello".encode(),
        1,
    ),
    "an older version": (get("/multiplex", UPGRADE, "1.0"), 1),
    "another protocol": (get("/multiplex", UPGRADE.replace("/1", "/2")), 1),
    "another path": (get("/multiplexed", UPGRADE), 1),
    "not an upgrade": (get("/multiplex"), 1),
    "something behind it": (get("/multiplex", UPGRADE) + GET, 2),
    "something before it": (get("/later/50") + get("/multiplex", UPGRADE), 2),
}


@pytest.mark.parametrize("framing", ["content-length: 5", "transfer-encoding: chunked"])
async def test_a_body_that_is_yet_to_come_is_not_taken_for_channels(framing: str) -> None:
    async with serving(Echo(), multiplexed=True) as listener, client(listener.port) as raw:
        raw.send(get("/multiplex", f"{framing}\r\n{UPGRADE}"))
        await until(lambda: any(c._stage for c in listener.connections.open))
        raw.send(b"hello" if "5" in framing else b"5\r\nhello\r\n0\r\n\r\n")
        got = await raw.answer()
        assert (got.status, got.body) == (200, b"GET /multiplex|hello")
        assert not listener.connections._multiplexes


@pytest.mark.parametrize("name", REQUESTS)
async def test_only_the_request_to_switch_switches(name: str) -> None:
    request, answers = REQUESTS[name]
    async with serving(Echo(), multiplexed=True) as listener, client(listener.port) as raw:
        raw.send(request)
        for _ in range(answers):
            assert (await raw.answer()).status == 200
        assert not listener.connections._multiplexes


async def test_a_connection_that_has_asked_for_other_things_may_switch() -> None:
    async with serving(Echo(), multiplexed=True) as listener, client(listener.port) as raw:
        raw.send(GET)
        assert (await raw.answer()).status == 200
        raw.send(get("/multiplex", UPGRADE))
        assert (await raw.head()).status == 101
        assert not listener.connections.open
        assert len(listener.connections._multiplexes) == 1
        raw.writer.close()
        await until(lambda: not listener.connections._multiplexes)


async def test_only_who_may_ask_for_something_may_bring_channels() -> None:
    def may(headers: Mapping[bytes, bytes]) -> bool:
        return headers.get(b"authorization") == b"Bearer known"

    loop = asyncio.get_running_loop()
    listener = Listener(Echo(), Wheel(loop), loop, Limits(), multiplexed=may)
    await listener.start(HOST, 0)
    for key, status in (("unknown", 200), ("known", 101)):
        async with client(listener.port) as raw:
            raw.send(get("/multiplex", f"authorization: Bearer {key}\r\n{UPGRADE}"))
            assert (await raw.head()).status == status
    await listener.drain(0.0)


async def test_a_connection_that_takes_nothing_is_cut_with_everything_on_it() -> None:
    app = Echo()
    async with (
        serving(app, Limits(stall_secs=0.3), multiplexed=True) as listener,
        client(listener.port) as raw,
    ):
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(get("/multiplex", UPGRADE))
        await until(lambda: listener.connections._multiplexes)
        for number in range(1, 21):
            body = get("/big/3000000")
            raw.send(frame(number, OPEN) + frame(number, PIECE, body))
        await until(lambda: app.seen)
        await until(lambda: not listener.connections.open)
        assert not listener.connections._multiplexes


@asynccontextmanager
async def linked(endpoint: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Way]:
    way = Way(endpoint, tls)
    try:
        yield way
    finally:
        way.links.close()


class Way:
    """A gateway's link to a node."""

    def __init__(self, endpoint: str, tls: ssl.SSLContext | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.wheel = Wheel(self.loop, 0.01)
        self.links = Links(self.wheel, self.loop, gateway="g", secret=None, connect_secs=3.0)
        self.said: list[str] = []
        self.link: NodeLink = self.links.add("n", endpoint, tls, self.said.append)

    def attempt(self) -> Attempt:
        return Attempt(self.link.way(small=True), self.wheel, self.loop, Deadlines())

    async def ask(self, path: bytes = b"/echo") -> bytes:
        attempt = self.attempt()
        async with asyncio.timeout(30):
            await attempt.run(self.link.head(path, 0, "r", 1, b""), b"")
        return attempt.body


async def test_it_is_opened_over_tls(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 7)
    trusts = ssl.create_default_context(cafile=str(cert))
    async with (
        serving(Echo(), tls=Tls(cert, key), multiplexed=True) as listener,
        linked(f"https://{HOST}:{listener.port}", trusts) as way,
    ):
        way.link.offered(multiplex=True)
        await until(lambda: way.link.multiplexed)
        assert await way.ask() == b"POST /echo|"
        assert (await asyncio.gather(*(way.ask(b"/big/300000") for _ in range(5))))[4] == (
            b"x" * 300_000
        )
        assert way.link.pool.connected == 0
        (request, *_) = listener.connections.app.seen  # type: ignore[attr-defined]
        assert request.secure


async def test_a_better_way_is_taken_at_once_and_the_old_one_ends_with_its_last_answer(
    tmp_path: Path,
) -> None:
    app, path = Echo(), tmp_path / "node.sock"
    async with (
        serving(app, multiplexed=True) as listener,
        linked(f"http://{HOST}:{listener.port}") as way,
    ):
        await listener.start_local(path)
        way.link.offered(multiplex=True)
        await until(lambda: way.link.multiplexed)
        running = asyncio.create_task(way.ask(b"/hold"))
        await until(lambda: app.held)
        assert await way.ask() == b"POST /echo|"
        way.link.pool.take_shortcut(str(path))
        way.link.offered(multiplex=True)
        await until(lambda: way.link.multiplexed)
        assert len(listener.connections._multiplexes) == 2
        app.seen.clear()
        assert await way.ask() == b"POST /echo|"
        assert app.seen[0].peer == ""  # a socket has none
        app.held[0].send(200, b"", b"at last")
        assert await running == b"at last"
        await until(lambda: len(listener.connections._multiplexes) == 1)
        assert way.said == ["requests share one connection"] * 2


async def test_a_node_under_a_path_of_its_own_is_asked_over_connections() -> None:
    async with (
        serving(Echo(), multiplexed=True) as listener,
        linked(f"http://{HOST}:{listener.port}/one") as way,
    ):
        way.link.offered(multiplex=True)
        assert await way.ask() == b"POST /one/echo|"
        assert not way.link.multiplexed
        assert not listener.connections._multiplexes


async def test_while_the_kernel_takes_nothing_more_requests_go_around_it() -> None:
    async with (
        serving(Echo(), multiplexed=True) as listener,
        linked(f"http://{HOST}:{listener.port}") as way,
    ):
        way.link.offered(multiplex=True)
        await until(lambda: way.link.multiplexed)
        assert way.link.way(small=True) is not way.link.pool
        multiplex = way.link._trunk._multiplex
        assert multiplex is not None
        multiplex.pause_writing()
        assert way.link.way(small=True) is way.link.pool
        assert await way.ask() == b"POST /echo|"
        multiplex.resume_writing()
        assert way.link.way(small=True) is not way.link.pool


async def test_one_that_has_used_up_its_numbers_is_followed_by_another() -> None:
    async with (
        serving(Echo(), multiplexed=True) as listener,
        linked(f"http://{HOST}:{listener.port}") as way,
    ):
        way.link.offered(multiplex=True)
        await until(lambda: way.link.multiplexed)
        first = way.link._trunk._multiplex
        assert first is not None
        first._last = 2**32 - 1
        assert await way.ask() == b"POST /echo|"
        await until(lambda: way.link.multiplexed)
        assert way.link._trunk._multiplex is not first
        await until(lambda: len(listener.connections._multiplexes) == 1)
