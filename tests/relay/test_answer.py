"""When the status is fixed, what is said while nothing comes, and how a broken stream ends."""

from __future__ import annotations

import asyncio

import pytest
from tests.relay.rig import (
    ERROR,
    KEEP_ALIVE,
    SSE_HEAD,
    Proxy,
    Raw,
    Serve,
    client,
    form,
    get,
    pool_for,
    read_request,
    serving,
    upstream,
)

from helexa.relay.attempt import Deadlines

pytestmark = pytest.mark.anyio

REFUSAL = b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\nno"
ONE = b"a\r\ndata: xx\n\n\r\n"


def waiting(before: float, *rest: bytes | float) -> Serve:
    """Waits, then sends bytes and pauses as listed, then closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(before)
        for item in rest:
            if isinstance(item, bytes):
                writer.write(item)
            else:
                await asyncio.sleep(item)

    return serve


async def timed(raw: Raw) -> tuple[float, list[tuple[float, bytes]]]:
    """When the head came and when each chunk, in seconds from now."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    got = await raw.head()
    assert got.status == 200
    head = loop.time() - began
    chunks = []
    while chunk := await raw.chunk():
        chunks.append((loop.time() - began, chunk))
    return head, chunks


async def test_the_200_comes_after_commit_secs_with_a_keep_alive_and_not_earlier() -> None:
    async with (
        upstream(waiting(2.6, SSE_HEAD, ONE, b"0\r\n\r\n")) as port,
        serving(Proxy(pool_for(port))) as listener,
        client(listener.port) as raw,
    ):
        raw.send(get("/s"))
        head, chunks = await timed(raw)
    assert 0.79 <= head < 1.5
    assert [c for _, c in chunks] == [KEEP_ALIVE] * 2 + [b"data: xx\n\n"]
    assert 0.94 <= chunks[1][0] - chunks[0][0] < 1.7


async def test_a_silent_stream_gets_keep_alives_between_its_events() -> None:
    rest = (SSE_HEAD, ONE + b"4\r\ndata\r\n", 0.5, b"6\r\n: yy\n\n\r\n", b"0\r\n\r\n")
    async with upstream(waiting(0.0, *rest)) as port:
        proxy = Proxy(pool_for(port), form=form(commit_secs=0.1, quiet_secs=0.1))
        async with serving(proxy) as listener, client(listener.port) as raw:
            raw.send(get("/s"))
            head, chunks = await timed(raw)
    assert head < 30
    bodies = [c for _, c in chunks]
    assert (bodies[0], bodies[-1]) == (b"data: xx\n\n", b"data: yy\n\n")
    assert 2 <= len(bodies) - 2 <= 5
    assert set(bodies[1:-1]) == {KEEP_ALIVE}


async def test_a_refusal_before_the_commit_is_a_refusal_and_after_it_an_error_event() -> None:
    for before, status in ((0.0, 429), (0.25, 200)):
        async with upstream(waiting(before, REFUSAL)) as port:
            proxy = Proxy(pool_for(port), form=form(commit_secs=0.1))
            async with serving(proxy) as listener, client(listener.port) as raw:
                raw.send(get("/s"))
                answer = await raw.answer()
                assert answer.status == status
                if status == 200:
                    assert answer.chunks[0] == KEEP_ALIVE


async def test_a_stream_that_breaks_ends_in_the_error_event_and_the_connection_lives() -> None:
    async with (
        upstream(waiting(0.0, SSE_HEAD, ONE, b"5\r\ndata:", 0.05)) as port,
        serving(Proxy(pool_for(port))) as listener,
        client(listener.port) as raw,
    ):
        for _ in range(2):
            raw.send(get("/s"))
            answer = await raw.answer()
            assert answer.chunks == [b"data: xx\n\n", ERROR]


async def test_an_upstream_that_stalls_ends_in_the_error_event() -> None:
    deadlines = Deadlines(between_bytes=0.1)
    async with upstream(waiting(0.0, SSE_HEAD, ONE, 5.0)) as port:
        proxy = Proxy(pool_for(port), deadlines)
        async with serving(proxy) as listener, client(listener.port) as raw:
            raw.send(get("/s"))
            assert (await raw.answer()).chunks == [b"data: xx\n\n", ERROR]


async def test_an_upstream_that_never_answers_is_a_504_or_an_error_event() -> None:
    deadlines = Deadlines(first_byte=0.2)
    async with upstream(waiting(9.0)) as port:
        for commit, status in ((0.8, 504), (0.05, 200)):
            proxy = Proxy(pool_for(port), deadlines, form(commit_secs=commit))
            async with serving(proxy) as listener, client(listener.port) as raw:
                raw.send(get("/s"))
                answer = await raw.answer()
                assert answer.status == status
                if status == 200:
                    assert answer.chunks == [KEEP_ALIVE, ERROR]


async def test_a_node_asked_by_a_gateway_sends_no_header_before_its_engine_has_spoken() -> None:
    async with upstream(waiting(0.3, SSE_HEAD, ONE, b"0\r\n\r\n")) as port:
        proxy = Proxy(pool_for(port), form=form(commit_secs=-1, waiting_secs=0.05, quiet_secs=60))
        async with serving(proxy) as listener, client(listener.port) as raw:
            raw.send(get("/s"))
            head, chunks = await timed(raw)
    assert head >= 0.29
    assert [c for _, c in chunks] == [b"data: xx\n\n"]


async def test_a_request_accepted_late_is_committed_at_once() -> None:
    async with upstream(waiting(0.8, SSE_HEAD, ONE, b"0\r\n\r\n")) as port:
        proxy = Proxy(pool_for(port), form=form(commit_secs=0.1))
        async with serving(proxy) as listener, client(listener.port) as raw:
            # The first keeps the wheel turning; the second has waited behind it for 0.8 s.
            raw.send(get("/s") + get("/s"))
            first, _ = await timed(raw)
            second, chunks = await timed(raw)
    assert 0.09 <= first < 0.7
    assert second < 0.7
    assert chunks[0][1] == KEEP_ALIVE


async def test_a_client_of_http_1_0_gets_the_events_and_the_close() -> None:
    async with (
        upstream(waiting(0.0, SSE_HEAD, ONE, ONE, b"0\r\n\r\n")) as port,
        serving(Proxy(pool_for(port))) as listener,
        client(listener.port) as raw,
    ):
        raw.send(get("/s", version="1.0"))
        assert (await raw.answer()).body == b"data: xx\n\n" * 2
