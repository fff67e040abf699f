"""Management calls: whole answers, streams, and errors of the common tree."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.relay.proxy import SSE_HEAD
from tests.relay.rig import HOST, Echo, answering, read_request, serving, until, upstream

from helexa.core.errors import UpstreamConnectionError, UpstreamTimeout
from helexa.relay.client import KeptClient, parse_url, request_json, stream
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio


async def test_a_call_returns_status_headers_and_body() -> None:
    async with serving(Echo()) as listener:
        answer = await request_json("POST", listener.url + "/echo", {"a": 1}, headers={"x-y": "z"})
        assert (answer.status, answer.body) == (200, b'POST /echo|{"a":1}')
        assert (b"content-type", b"text/plain") in answer.headers
        assert (await request_json("GET", listener.url + "/echo?q=1")).body == b"GET /echo|"


async def test_failures_are_errors_of_the_tree() -> None:
    async with upstream(answering(b"")) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(UpstreamTimeout):
            await request_json("GET", url, timeout=0.1)
    with pytest.raises(UpstreamConnectionError):
        await request_json("GET", url)
    async with upstream(answering(b"junk\r\n\r\n")) as port:
        with pytest.raises(UpstreamConnectionError):
            await request_json("GET", f"http://127.0.0.1:{port}/")
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
    async with upstream(answering(big)) as port:
        with pytest.raises(UpstreamConnectionError):
            await request_json("GET", f"http://127.0.0.1:{port}/", max_body=1000)


async def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(ValueError, match="line break"):
        await request_json("GET", "http://127.0.0.1:1/", headers={"x": "a\r\ny: b"})


async def test_a_stream_comes_as_it_is_sent_and_waits_for_its_reader() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(SSE_HEAD + b"3\r\none\r\n")
        await asyncio.sleep(0.05)
        for _ in range(300):
            writer.write(b"186a0\r\n" + b"x" * 100_000 + b"\r\n")
            sent += 100_000
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with upstream(serve) as port:
        pieces = stream(f"http://127.0.0.1:{port}/")
        assert await anext(pieces) == 200
        assert await anext(pieces) == b"one"
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 20_000_000
        rest = [piece async for piece in pieces]
        assert sum(len(p) for p in rest if isinstance(p, bytes)) == 30_000_000


async def test_a_stream_that_falls_silent_or_breaks_says_so() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE_HEAD)
        await over.wait()

    over = asyncio.Event()
    async with upstream(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        with pytest.raises(UpstreamTimeout):
            _ = [p async for p in stream(url, idle_timeout=0.1)]
        over.set()
        with pytest.raises(UpstreamConnectionError):
            _ = [p async for p in stream(url)]


def test_urls_are_split_into_origin_and_target() -> None:
    origin, target = parse_url("https://node:8443/a/b?c=d")
    assert (origin.host, origin.port, origin.tls, target) == ("node", 8443, True, "/a/b?c=d")
    assert parse_url("http://[::1]")[0].authority == "[::1]:80"
    for bad in ("ftp://x", "/path", "http://"):
        with pytest.raises(ValueError, match="is not an"):
            parse_url(bad)


async def test_a_kept_client_makes_its_calls_over_one_connection() -> None:
    loop = asyncio.get_running_loop()
    async with serving(Echo()) as listener:
        wheel = Wheel(loop, 0.01)
        pool = UpstreamPool(Origin(HOST, listener.port), wheel, loop)
        kept = KeptClient(pool, wheel, loop)
        for number in range(5):
            answer = await kept.call("POST", listener.url + "/echo", [number], {"x": "y"}, 5.0)
            assert (answer.status, answer.body) == (200, b"POST /echo|[%d]" % number)
        assert (await kept.call("GET", listener.url + "/echo", None, {}, 5.0)).body == b"GET /echo|"
        assert pool.connected == 1
        with pytest.raises(UpstreamTimeout):
            await kept.call("GET", listener.url + "/hold", None, {}, 0.05)
        await until(lambda: pool.busy == 0)
        pool.close()
    with pytest.raises(UpstreamConnectionError):
        await kept.call("GET", listener.url + "/echo", None, {}, 5.0)


async def test_a_unix_socket_is_called_whatever_host_the_url_names(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line = head.split(b"\r\n")[0]
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(line), line))
        writer.close()

    path = str(tmp_path / "s")
    async with await asyncio.start_unix_server(answer, path):
        found = await request_json("GET", "http://engine/health", uds=path)
    assert (found.status, found.body) == (200, b"GET /health HTTP/1.1")
    with pytest.raises(UpstreamConnectionError):
        await request_json("GET", "http://engine/", uds=str(tmp_path / "nobody"))
