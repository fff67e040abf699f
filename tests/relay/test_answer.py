"""When the status is fixed, what is said while nothing comes, and how a broken stream ends."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from tests.relay.proxy import ERROR, KEEP_ALIVE, SSE, SSE_HEAD, Proxy, form
from tests.relay.rig import Serve, client, get, pool_for, read_request, serving, upstream
from tests.relay.test_wheel import TICK, FakeLoop, made

from helexa.relay.answer import Answer
from helexa.relay.attempt import Deadlines
from helexa.relay.reply import Reply

pytestmark = pytest.mark.anyio

REFUSAL = b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\n\r\nno"
ONE = b"a\r\ndata: xx\n\n\r\n"
EVENT = b"data: x\n\n"


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


class Heard:
    """A client that notes what it is told and when, by a clock that moves when told."""

    def __init__(self, loop: FakeLoop) -> None:
        self.started = self.ended = self.gone = self.slow = False
        self.at: list[tuple[float, bytes]] = []
        self._loop, self._began = loop, loop.now

    def start(self, status: int, headers: bytes, body: bytes = b"") -> None:
        assert (status, headers, self.started) == (200, SSE, False)
        self.started = True
        self.write(body)

    def write(self, data: bytes) -> None:
        self.at.append((round(self._loop.now - self._began, 6), data))


def answering(**changes: float) -> tuple[FakeLoop, Heard, Answer]:
    """An answer whose time is the test's; the wheel is late by two ticks at most."""
    loop, wheel = made()
    heard = Heard(loop)
    clock = cast("asyncio.AbstractEventLoop", loop)
    return loop, heard, Answer(cast("Reply", heard), form(**changes), wheel, clock)


def about(seconds: float) -> object:
    """So late, or later by what the wheel may be."""
    return pytest.approx(seconds + TICK, abs=TICK + 0.01)


def test_the_200_comes_after_commit_secs_with_a_keep_alive_and_not_earlier() -> None:
    loop, heard, answer = answering()
    answer.accept(loop.time())
    loop.run(loop.now + 2.6)
    answer.write(EVENT)
    loop.run(loop.now + 5.5)
    alive = [(about(0.8), KEEP_ALIVE), (about(1.8), KEEP_ALIVE)]
    assert heard.at == [*alive, (2.6, EVENT), (about(7.6), KEEP_ALIVE)]


def test_a_silent_stream_gets_keep_alives_between_its_events() -> None:
    loop, heard, answer = answering(quiet_secs=0.5)
    answer.accept(loop.time())
    for _ in range(3):
        answer.write(EVENT)
        loop.run(loop.now + 0.4)  # not silent for so long
    loop.run(loop.now + 1.0)
    answer.write(EVENT)
    times = [0.0, 0.4, 0.8, about(1.3), about(1.85), 2.2]
    said = [EVENT] * 3 + [KEEP_ALIVE] * 2 + [EVENT]
    assert heard.at == list(zip(times, said, strict=True))


def test_a_request_accepted_late_is_committed_at_once() -> None:
    loop, heard, answer = answering()
    answer.accept(loop.time() - 0.9)  # it has waited so long behind another one
    loop.run(loop.now + 0.2)
    assert heard.at == [(about(0.0), KEEP_ALIVE)]


async def test_a_refusal_before_the_commit_is_a_refusal_and_after_it_an_error_event() -> None:
    for commit, status in ((60.0, 429), (0.1, 200)):
        told = asyncio.Event()

        async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            await told.wait()  # noqa: B023 - the server ends with its turn of the loop
            writer.write(REFUSAL)

        async with upstream(refuses) as port:
            proxy = Proxy(pool_for(port), form=form(commit_secs=commit, waiting_secs=60))
            async with serving(proxy) as listener, client(listener.port) as raw:
                raw.send(get("/s"))
                if status == 429:
                    told.set()
                    assert (await raw.answer()).status == status
                else:
                    assert (await raw.head()).status == status
                    assert await raw.chunk() == KEEP_ALIVE
                    told.set()
                    assert await raw.chunk() == ERROR


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
    async with upstream(waiting(0.0, SSE_HEAD, ONE, 60.0)) as port:
        proxy = Proxy(pool_for(port), deadlines, form(quiet_secs=60))
        async with serving(proxy) as listener, client(listener.port) as raw:
            raw.send(get("/s"))
            assert (await raw.answer()).chunks == [b"data: xx\n\n", ERROR]


async def test_an_upstream_that_never_answers_is_a_504_or_an_error_event() -> None:
    deadlines = Deadlines(first_byte=0.2)
    async with upstream(waiting(60.0)) as port:
        for commit, status in ((60.0, 504), (0.05, 200)):
            proxy = Proxy(pool_for(port), deadlines, form(commit_secs=commit, waiting_secs=60))
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
            began = asyncio.get_running_loop().time()
            raw.send(get("/s"))
            answer = await raw.answer()
            assert asyncio.get_running_loop().time() - began >= 0.29
    assert (answer.status, answer.chunks) == (200, [b"data: xx\n\n"])


async def test_a_client_of_http_1_0_gets_the_events_and_the_close() -> None:
    async with (
        upstream(waiting(0.0, SSE_HEAD, ONE, ONE, b"0\r\n\r\n")) as port,
        serving(Proxy(pool_for(port))) as listener,
        client(listener.port) as raw,
    ):
        raw.send(get("/s", version="1.0"))
        assert (await raw.answer()).body == b"data: xx\n\n" * 2
