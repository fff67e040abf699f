"""One connection's life: answers in order, deadlines, drains."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.relay.rig import GET, Echo, client, get, post, serving, until

from helexa.relay.http1 import BadRequest, Limits
from helexa.relay.reply import Reply
from helexa.relay.request import Head, Request

QUICK = Limits(head_secs=0.2, body_secs=0.2, keep_alive_secs=0.3, stall_secs=0.3)


@pytest.mark.anyio
async def test_a_connection_is_kept_and_pipelined_requests_are_answered_in_order() -> None:
    async with serving(Echo()) as listener, client(listener.port) as raw:
        raw.send(get("/later/30") + post("/echo", b"one") + get("/stream/2") + GET)
        assert (await raw.answer()).body == b"GET /later/30|"
        assert (await raw.answer()).body == b"POST /echo|one"
        streamed = await raw.answer()
        assert streamed.chunks == [b"first", b"-0", b"-1", b"last"]
        assert (await raw.answer()).body == b"GET /echo|"
        raw.send(GET)
        assert (await raw.answer()).status == 200
        assert len(listener.connections.open) == 1


@pytest.mark.anyio
async def test_a_head_request_gets_the_head_and_no_body() -> None:
    async with serving(Echo()) as listener, client(listener.port) as raw:
        for path in ("/echo", "/stream/3"):
            raw.send(f"HEAD {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
            assert (await raw.answer(bodyless=True)).status == 200
        raw.send(GET)
        assert (await raw.answer()).body == b"GET /echo|"


@pytest.mark.anyio
async def test_an_http_1_0_client_gets_an_answer_ended_by_the_close() -> None:
    async with serving(Echo()) as listener:
        for path, body in (("/stream/1", b"first-0last"), ("/echo", b"GET /echo|")):
            for extra in ("", "connection: keep-alive\r\n"):
                async with client(listener.port) as raw:
                    raw.send(get(path, extra, version="1.0"))
                    answer = await raw.answer()
                    assert answer.body == body
                    assert b"transfer-encoding" not in answer.headers
                    assert answer.headers[b"connection"] == b"close"
                    assert await raw.closed()


@pytest.mark.anyio
async def test_chunked_request_bodies_arrive_whole() -> None:
    app = Echo()
    async with serving(app) as listener, client(listener.port) as raw:
        body = b"".join(b"%x;ext=1\r\n%b\r\n" % (n, b"z" * n) for n in (1, 5000, 2, 3, 10_000, 1))
        raw.send(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        raw.send(b"0\r\ntrailer: x\r\n\r\n" + GET)
        assert (await raw.answer()).body == b"POST /echo|" + b"z" * 15_007
        assert (await raw.answer()).body == b"GET /echo|"
        assert b"trailer" not in app.seen[0].headers


def refuse_strangers(head: Head) -> BadRequest | None:
    return None if b"x-known" in head.headers else BadRequest(401, "stranger", "Who are you?")


@pytest.mark.anyio
@pytest.mark.parametrize("size", [b"content-length: 100000\r\n", b"transfer-encoding: chunked\r\n"])
@pytest.mark.parametrize("expects", [b"", b"expect: 100-continue\r\n"])
async def test_a_long_body_is_not_read_from_a_stranger(size: bytes, expects: bytes) -> None:
    app = Echo()
    head = b"POST /echo HTTP/1.1\r\nhost: a\r\n" + expects + size
    async with serving(app, foresee=refuse_strangers) as listener:
        async with client(listener.port) as raw:
            raw.send(get("/later/10") + post("/echo", b"short") + head + b"\r\n")
            assert (await raw.answer()).body == b"GET /later/10|"
            assert (await raw.answer()).body == b"POST /echo|short"
            refused = await raw.answer()
            assert (refused.status, refused.headers[b"x-code"]) == (401, b"stranger")
            assert await raw.closed()
        async with client(listener.port) as raw:
            raw.send(head + b"x-known: yes\r\n\r\n")
            if expects:
                assert (await raw.answer()).status == 100
            body = b"x" * 100_000
            raw.send(b"186a0\r\n%b\r\n0\r\n\r\n" % body if b"chunked" in size else body)
            assert (await raw.answer()).body == b"POST /echo|" + body


@pytest.mark.anyio
async def test_a_strangers_long_body_is_not_read_behind_a_short_one_of_the_same_head() -> None:
    strict = serving(Echo(), foresee=refuse_strangers)
    async with strict as listener, client(listener.port) as raw:
        for _ in range(2):  # the second one's head is recalled
            raw.send(post("/echo", b"short"))
            assert (await raw.answer()).body == b"POST /echo|short"
        raw.send(post("/echo", b"x" * 100_000)[:200])
        refused = await raw.answer()
        assert (refused.status, refused.headers[b"x-code"]) == (401, b"stranger")
        assert await raw.closed()


@pytest.mark.anyio
async def test_expect_100_continue_is_answered_when_it_is_that_requests_turn() -> None:
    expecting = (
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
    )
    async with serving(Echo(), Limits(body_bytes=100)) as listener:
        async with client(listener.port) as raw:
            raw.send(expecting)
            assert (await raw.answer()).status == 100
            raw.send(b"ab")
            assert (await raw.answer()).body == b"POST /echo|ab"
            raw.send(get("/later/30") + expecting)
            assert (await raw.answer()).body == b"GET /later/30|"
            assert (await raw.answer()).status == 100
            raw.send(b"cd" + expecting + b"ef")  # a client that does not wait hears no 100 twice
            assert (await raw.answer()).body == b"POST /echo|cd"
            assert (await raw.answer()).status == 100
            assert (await raw.answer()).body == b"POST /echo|ef"
        async with client(listener.port) as raw:
            raw.send(expecting.replace(b"length: 2", b"length: 101"))
            assert (await raw.answer()).status == 413
            assert await raw.closed()


@pytest.mark.anyio
async def test_answers_without_content_have_no_length() -> None:
    class Empty(Echo):
        def handle(self, request: Request, reply: Reply) -> None:
            reply.send(204, b"", b"")

    async with serving(Empty()) as listener, client(listener.port) as raw:
        raw.send(GET + GET)
        for _ in range(2):
            answer = await raw.answer()
            assert (answer.status, b"content-length" in answer.headers) == (204, False)


@pytest.mark.anyio
async def test_an_answer_that_has_begun_is_cut_rather_than_answered_twice() -> None:
    app = Echo()
    async with serving(app) as listener, client(listener.port) as raw:
        raw.send(get("/hold"))
        await until(lambda: app.held)
        reply = app.held[0]
        reply.write(b"before the head there is no body")
        reply.start(200, b"", b"one")
        reply.start(200, b"", b"two")
        reply.send(500, b"", b"three")
        reply.end()
        sent = await raw.reader.read()
        assert sent.count(b"HTTP/1.1") == 1
        assert sent.endswith(b"3\r\none\r\n")
    async with serving(app) as listener, client(listener.port) as raw:
        raw.send(get("/hold"))
        await until(lambda: len(app.held) == 2)
        app.held[1].end()
        assert await raw.closed()


@pytest.mark.anyio
@pytest.mark.parametrize("crumbs", [False, True], ids=["silent", "a byte at a time"])
@pytest.mark.parametrize("part", ["head", "second head", "body", "chunked body"])
async def test_a_request_that_arrives_too_slowly_is_answered_408(part: str, crumbs: bool) -> None:
    start = {
        "head": b"GET /echo HTTP/1.1\r\nho",
        "second head": GET + b"GET /echo HTTP/1.1\r\nho",
        "body": post("/echo", b"x" * 1000)[:-990],
        "chunked body": b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n8\r\nx",
    }[part]
    async with serving(Echo(), QUICK) as listener, client(listener.port) as raw:
        raw.send(start)
        if part == "second head":
            assert (await raw.answer()).status == 200

        async def drip() -> None:
            while crumbs:
                await asyncio.sleep(0.05)
                raw.send(b"x")

        dripping = asyncio.create_task(drip())
        began = asyncio.get_running_loop().time()
        answer = await raw.answer()
        assert asyncio.get_running_loop().time() - began > 0.15
        assert answer.status == 408
        assert dripping.done() is not crumbs  # it would have gone on for ever
        dripping.cancel()
        assert await raw.closed()


@pytest.mark.anyio
async def test_an_idle_connection_is_closed_without_a_word_and_a_busy_one_is_not() -> None:
    async with serving(Echo(), QUICK) as listener:
        async with client(listener.port) as raw:
            assert await raw.closed()
        async with client(listener.port) as raw:
            raw.send(get("/later/900"))
            assert (await raw.answer()).status == 200
            assert await raw.closed()


@pytest.mark.anyio
async def test_a_handlers_bug_cuts_its_connection_and_no_other() -> None:
    loop = asyncio.get_running_loop()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    async with serving(Echo()) as listener, client(listener.port) as other:
        async with client(listener.port) as raw:
            raw.send(get("/raise") + GET)
            with pytest.raises(asyncio.IncompleteReadError):
                await raw.answer()
        other.send(GET)
        assert (await other.answer()).status == 200
    loop.set_exception_handler(None)
    assert [str(e) for e in told] == ["a handler's bug"]


@pytest.mark.anyio
async def test_a_drain_closes_the_idle_lets_the_busy_finish_and_cuts_the_rest() -> None:
    app = Echo()
    async with (
        serving(app) as listener,
        client(listener.port) as idle,
        client(listener.port) as half,
        client(listener.port) as busy,
        client(listener.port) as stuck,
    ):
        idle.send(GET)
        assert (await idle.answer()).status == 200
        half.send(GET[:10])
        busy.send(get("/later/150") + GET)
        stuck.send(get("/hold"))
        await until(lambda: len(app.seen) == 3)
        clock = [0.0]  # of the drain
        listener._loop = cast("Any", SimpleNamespace(time=lambda: clock[0]))
        drain = asyncio.create_task(listener.drain(60.0))
        assert await idle.closed()
        half.send(GET[10:])
        answer = await half.answer()
        assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        assert (await busy.answer()).body == b"GET /later/150|"
        assert await busy.closed()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", listener.port)
        assert not drain.done()
        clock[0] = 60.0
        assert await drain == 1
        await until(lambda: app.gone)


@pytest.mark.anyio
async def test_a_patient_drain_still_answers_on_kept_connections_and_says_that_it_is_the_last() -> (
    None
):
    app = Echo()
    async with (
        serving(app) as listener,
        client(listener.port) as idle,
        client(listener.port) as begun,
        client(listener.port) as plain,
    ):
        idle.send(GET)
        assert (await idle.answer()).status == 200
        begun.send(get("/hold"))
        await until(lambda: len(app.held) == 1)
        app.held[0].start(200, b"")
        plain.send(get("/hold"))
        await until(lambda: len(app.held) == 2)
        drain = asyncio.create_task(listener.drain(60, patience=30))
        await until(lambda: listener.connections.draining)
        for reply in app.held[:]:
            if reply.started:
                reply.end(b"whole")
            else:
                reply.send(200, b"", b"whole")
        assert (await plain.answer()).headers[b"connection"] == b"close"
        # Its head had promised that the connection stays, so the next request may be on its way.
        first = await begun.answer()
        assert (first.body, b"connection" in first.headers) == (b"whole", False)
        for raw in (idle, begun):
            raw.send(GET)
            answer = await raw.answer()
            assert (answer.status, answer.headers[b"connection"]) == (200, b"close")
        assert await drain == 0


REQUEST = st.tuples(
    st.sampled_from(["/echo", "/later/0", "/later/3", "/stream/0", "/stream/2", "/big/70000"]),
    st.sampled_from(["GET", "HEAD", "POST", "chunked", "upgrade"]),
    st.integers(0, 3000),
)


def rendered(path: str, kind: str, size: int) -> bytes:
    body = b"b" * size
    if kind == "POST":
        return post(path, body)
    if kind == "chunked":
        halves = [p for p in (body[: size // 3], body[size // 3 :]) if p]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in halves)
        return (
            f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".encode()
            + chunks
            + b"0\r\n\r\n"
        )
    if kind == "upgrade":
        return get(path, "connection: upgrade\r\nupgrade: websocket\r\n")
    return f"{kind} {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode()


def expected(path: str, kind: str, size: int) -> bytes:
    if kind == "HEAD":
        return b""
    if path.startswith("/stream"):
        return b"first" + b"".join(b"-%d" % i for i in range(int(path[8:]))) + b"last"
    if path.startswith("/big"):
        return b"x" * 70_000
    method, body = (b"POST", b"b" * size) if kind in {"POST", "chunked"} else (b"GET", b"")
    return b"%b %b|%b" % (method, path.encode(), body)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(requests=st.lists(REQUEST, min_size=1, max_size=12), seed=st.integers(0, 1 << 30))
def test_any_mix_in_any_pieces_is_answered_in_order(
    runner: asyncio.Runner, requests: list[tuple[str, str, int]], seed: int
) -> None:
    rng = random.Random(seed)

    async def run() -> None:
        async with serving(Echo(), Limits(pipeline=3)) as listener, client(listener.port) as raw:
            data = b"".join(rendered(*r) for r in requests)
            cuts = sorted(rng.randrange(len(data)) for _ in range(rng.randrange(12)))

            async def write() -> None:
                for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True):
                    raw.send(data[a:b])
                    await asyncio.sleep(0.001 if rng.random() < 0.3 else 0)

            writing = asyncio.create_task(write())
            for path, kind, size in requests:
                answer = await raw.answer(bodyless=kind == "HEAD")
                assert answer.status == 200
                assert answer.body == expected(path, kind, size)
            await writing

    runner.run(run())
