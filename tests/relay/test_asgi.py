"""Starlette applications behind this server: streams, disconnects, bugs, back-pressure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route
from tests.relay.rig import GET, client, get, post, serving, until

from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import BadRequest
from helexa.relay.request import Request

pytestmark = pytest.mark.anyio
THIS = Path(__file__).read_bytes()


class Site:
    """A small site, and what happened to its streams."""

    def __init__(self) -> None:
        self.produced = 0
        self.ended: list[str] = []
        self.errors: list[Exception] = []
        routes = [
            Route("/echo", self.echo, methods=["GET", "POST"]),
            Route("/models/{name:path}", self.model),
            Route("/count", self.count),
            Route("/quiet", self.quiet),
            Route("/flood", self.flood),
            Route("/bug", self.bug),
            Route("/late-bug", self.late_bug),
            Route("/empty", self.empty),
            Route("/file", lambda _request: FileResponse(__file__)),
        ]
        self.bridge = AsgiBridge(Starlette(routes=routes), self.on_error)

    def handle(self, request: Request, reply: Any) -> None:
        self.bridge.handle(request, reply)

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        return b"", b""

    def on_error(self, request: Request, error: Exception) -> tuple[bytes, bytes]:
        self.errors.append(error)
        return b"content-type: text/plain\r\n", b"sorry"

    async def echo(self, request: StarletteRequest) -> Response:
        body = await request.body()
        seen = {
            "method": request.method,
            "query": dict(request.query_params),
            "header": request.headers.get("x-thing"),
            "client": request.client.host if request.client else None,
            "body": body.decode(),
        }
        return JSONResponse(seen, headers={"x-answer": "yes"})

    async def model(self, request: StarletteRequest) -> Response:
        return PlainTextResponse(request.path_params["name"])

    async def count(self, request: StarletteRequest) -> Response:
        async def numbers() -> AsyncIterator[bytes]:
            for i in range(3):
                yield b"%d\n" % i
                await asyncio.sleep(0)

        return StreamingResponse(numbers())

    async def quiet(self, request: StarletteRequest) -> Response:
        async def one() -> AsyncIterator[bytes]:
            try:
                yield b"one\n"
                await asyncio.sleep(60)
            finally:
                self.ended.append("quiet")

        return StreamingResponse(one())

    async def flood(self, request: StarletteRequest) -> Response:
        async def much() -> AsyncIterator[bytes]:
            while True:
                self.produced += 100_000
                yield b"x" * 100_000

        return StreamingResponse(much())

    async def bug(self, request: StarletteRequest) -> Response:
        raise ZeroDivisionError

    async def late_bug(self, request: StarletteRequest) -> Response:
        async def broken() -> AsyncIterator[bytes]:
            yield b"some"
            raise ZeroDivisionError

        return StreamingResponse(broken())

    async def empty(self, request: StarletteRequest) -> Response:
        return Response(status_code=204)


async def test_requests_and_plain_answers_pass_unchanged() -> None:
    site = Site()
    async with serving(site) as listener, client(listener.port) as raw:
        raw.send(post("/echo?a=1&b=%20", b"body", "x-thing: yes\r\n"))
        answer = await raw.answer()
        assert answer.body == (
            b'{"method":"POST","query":{"a":"1","b":" "},"header":"yes",'
            b'"client":"127.0.0.1","body":"body"}'
        )
        assert answer.headers[b"x-answer"] == b"yes"
        raw.send(get("/models/org/name") + get("/models/org%2Fname") + get("/nowhere"))
        assert [(await raw.answer()).body for _ in range(2)] == [b"org/name"] * 2
        assert (await raw.answer()).status == 404
        raw.send(get("/empty") + b"HEAD /echo HTTP/1.1\r\nhost: a\r\n\r\n" + get("/echo"))
        assert (await raw.answer()).status == 204
        assert (await raw.answer(bodyless=True)).status == 200
        assert (await raw.answer()).status == 200


async def test_a_head_is_answered_with_the_length_of_what_a_get_brings() -> None:
    async with serving(Site()) as listener, client(listener.port) as raw:
        raw.send(get("/file").replace(b"GET", b"HEAD") + get("/echo").replace(b"GET", b"HEAD"))
        for size in (len(THIS), None):
            got = await raw.answer(bodyless=True)
            length = int(got.headers[b"content-length"])
            assert length == size if size is not None else length > 0
        raw.send(get("/file"))
        assert (await raw.answer()).body == THIS


async def test_streams_are_streamed() -> None:
    async with serving(Site()) as listener, client(listener.port) as raw:
        raw.send(get("/count"))
        assert (await raw.answer()).chunks == [b"0\n", b"1\n", b"2\n"]


@pytest.mark.parametrize("path", ["/quiet", "/flood"])
async def test_a_stream_ends_when_its_client_leaves(path: str) -> None:
    site = Site()
    async with serving(site) as listener:
        async with client(listener.port) as raw:
            raw.send(get(path))
            await raw.head()
            await raw.chunk()
        await until(lambda: not site.bridge._tasks)
        assert path == "/flood" or site.ended == ["quiet"]
    assert not site.errors


async def test_a_slow_reader_holds_its_producer() -> None:
    site = Site()
    async with serving(site) as listener, client(listener.port) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(get("/flood"))
        await until(lambda: site.produced)
        before = -1
        while before != site.produced:
            before = site.produced
            await asyncio.sleep(0.05)
        assert site.produced < 30_000_000
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await until(lambda: site.produced > before)


async def test_a_bug_is_a_500_and_a_late_one_cuts_the_answer() -> None:
    site = Site()
    async with serving(site) as listener:
        async with client(listener.port) as raw:
            raw.send(get("/bug") + get("/count"))
            answer = await raw.answer()
            # Starlette answers by itself first, then lets the exception through.
            assert answer.status == 500
        async with client(listener.port) as raw:
            raw.send(get("/late-bug"))
            with pytest.raises(asyncio.IncompleteReadError):
                await raw.answer()
    assert {type(e) for e in site.errors} == {ZeroDivisionError}


async def test_an_app_that_never_listens_learns_from_its_own_sending() -> None:
    ended: list[Exception] = []

    async def deaf(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        except OSError as error:
            ended.append(error)
            raise

    site = Site()
    site.bridge = AsgiBridge(deaf, site.on_error)
    async with serving(site) as listener:
        async with client(listener.port) as raw:
            raw.send(GET)
            await raw.head()
        await until(lambda: ended)
    assert not site.errors


async def test_an_app_that_answers_nothing_is_a_500() -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    site = Site()
    site.bridge = AsgiBridge(nothing, site.on_error)
    async with serving(site) as listener, client(listener.port) as raw:
        raw.send(GET)
        answer = await raw.answer()
        assert (answer.status, answer.body) == (500, b"sorry")
        assert isinstance(site.errors[0], RuntimeError)


async def test_closing_the_bridge_ends_its_streams_in_order() -> None:
    site = Site()
    async with serving(site) as listener, client(listener.port) as raw:
        raw.send(get("/quiet"))
        await raw.head()
        await raw.chunk()
        await site.bridge.close()
        assert await raw.chunk() == b""
