"""From an upstream's bytes to a client's: nothing lost or cut, and nobody waits for the slow."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.relay.proxy import KEEP_ALIVE, SSE_HEAD, Proxy, form
from tests.relay.rig import (
    WAYS,
    Serve,
    client,
    descriptors,
    get,
    pooled,
    post,
    read_request,
    rst,
    serving,
    until,
)

from helexa.relay.attempt import Deadlines
from helexa.relay.http1 import Limits

FLOOD = 60_000_000
LINE = st.sampled_from(["\n", "\r\n"])
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)
EVENTS = st.lists(st.tuples(st.lists(TEXT, min_size=1, max_size=3), LINE), min_size=1, max_size=12)


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n\r\n"


def cut(rng: random.Random, data: bytes, most: int) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(most)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def ends_whole(chunk: bytes) -> bool:
    return chunk.endswith((b"\n\n", b"\n\r\n"))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    events=EVENTS,
    framed=st.booleans(),
    rest=st.sampled_from([b"", b"data: the last one has no blank line", b"data: nor this\n"]),
    seed=st.integers(0, 1 << 30),
    way=st.sampled_from(WAYS),
)
def test_any_pieces_of_any_events_arrive_whole_and_unchanged(
    runner: asyncio.Runner,
    way: str,
    events: list[tuple[list[str], str]],
    framed: bool,
    rest: bytes,
    seed: int,
) -> None:
    rng = random.Random(seed)
    rendered = ["".join(f"data: {t}{nl}" for t in lines) + nl for lines, nl in events]
    body = "".join(rendered).encode()
    sent = body + rest

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = SSE_HEAD if framed else b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        wire = head + (chunked(cut(rng, sent, 8)) if framed else sent)
        for piece in cut(rng, wire, 10):
            writer.write(piece)
            await asyncio.sleep(rng.choice([0, 0, 0.001, 0.012]))

    async def run() -> None:
        async with pooled(serve, way) as pool:
            proxy = Proxy(pool, form=form(commit_secs=0.01, waiting_secs=0.02, quiet_secs=0.02))
            async with serving(proxy) as listener, client(listener.port) as raw:
                for piece in cut(rng, post("/s", b"{}"), 4):
                    raw.send(piece)
                    await asyncio.sleep(0)
                answer = await raw.answer()
        assert answer.status == 200
        assert all(ends_whole(chunk) for chunk in answer.chunks)
        alive = [c for c in answer.chunks if c == KEEP_ALIVE]
        got = b"".join(c for c in answer.chunks if c != KEEP_ALIVE)
        assert got == (sent + b"\n\n" if rest else sent)
        assert len(alive) + answer.body.count(b"data:") >= 1

    runner.run(run())


def flood(total: int, sent: list[int]) -> Serve:
    event = b"data: " + b"x" * 8000 + b"\n\n"
    piece = b"%x\r\n%b\r\n" % (len(event), event)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(SSE_HEAD)
        for _ in range(total // len(piece)):
            writer.write(piece)
            sent[0] += len(piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    return serve


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_slow_reader_costs_bounded_memory_and_slows_only_itself(way: str) -> None:
    sent = [0]
    async with pooled(flood(FLOOD, sent), way) as pool:
        proxy = Proxy(pool)
        async with serving(proxy) as listener, client(listener.port) as slow:
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send(get("/s"))
            await until(lambda: proxy.flows == [True])
            await asyncio.sleep(0.05)
            connection = next(iter(listener.connections.open))
            assert connection.unsent < 1_000_000
            # Another one gets everything meanwhile.
            async with client(listener.port) as quick:
                quick.send(get("/s"))
                assert len((await quick.answer()).body) > FLOOD - 1_000_000
            assert connection.unsent < 1_000_000
            assert sent[0] < FLOOD + 25_000_000  # the kernel's share, or what was on its way
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len((await slow.answer()).body) > FLOOD - 1_000_000


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_reader_that_stalls_is_cut_and_its_upstream_with_it(way: str) -> None:
    async with pooled(flood(FLOOD, [0]), way) as pool:
        proxy = Proxy(pool, form=form(stall_secs=0.2, quiet_secs=0.05))
        async with serving(proxy) as listener, client(listener.port) as slow:
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            slow.send(get("/s"))
            await until(lambda: proxy.in_flight)
            await until(lambda: not proxy.in_flight and not pool.open)
            await until(lambda: not listener.connections.open)


@pytest.mark.anyio
@pytest.mark.parametrize("way", WAYS)
async def test_a_reader_that_is_slow_but_reads_is_not_cut(way: str) -> None:
    async with pooled(flood(20_000_000, [0]), way) as pool:
        # It reads for longer than the bound all in all, and is never so slow in between.
        proxy = Proxy(pool, form=form(stall_secs=1.0, quiet_secs=0.05))
        async with serving(proxy, Limits(stall_secs=1.0)) as listener:
            for _ in range(10):  # a process that is held up does not read: then it is cut rightly
                if await read_slowly(listener.port) > 19_900_000:
                    return
    pytest.fail("it is cut though it reads")


async def read_slowly(port: int) -> int:
    """Read a stream to its end, a bit all the time; how much has come."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=65_536)
    writer.write(get("/s"))
    got = 0
    with contextlib.suppress(OSError):
        while data := await reader.read(200_000):
            got += len(data)
            if data.endswith(b"0\r\n\r\n"):
                break
            await asyncio.sleep(0.015)
        writer.close()
    return got


async def fickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upstream with every habit: keeps, closes, resets, stalls, streams, refuses."""
    rng = random.Random(id(writer) >> 4)
    while True:
        await read_request(reader)
        habit = rng.random()
        if habit < 0.1:
            return
        if habit < 0.15:
            rst(writer)
            return
        if habit < 0.3:
            await asyncio.sleep(0.05)
        if habit < 0.4:
            writer.write(b"HTTP/1.1 503 No\r\ncontent-length: 2\r\n\r\nno")
            continue
        writer.write(SSE_HEAD)
        for i in range(rng.randrange(6)):
            event = b"data: %d\n\n" % i
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(rng.choice([0, 0.001, 0.004]))
        if habit > 0.9:
            return
        writer.write(b"0\r\n\r\n")


@pytest.mark.anyio
@pytest.mark.parametrize(("way", "many"), [("connection", 10_000), ("channel", 3_000)])
async def test_after_10_000_random_cancels_every_counter_and_descriptor_is_back(
    way: str, many: int
) -> None:
    rng = random.Random(11)
    deadlines = Deadlines(send=1.0, first_byte=0.03, between_bytes=0.03)
    options = {"limit": 40, "connect_secs": 0.1, "idle_secs": 0.2}
    async with pooled(fickle, way, **options) as pool:
        proxy = Proxy(pool, deadlines, form(commit_secs=0.01, waiting_secs=0.01, quiet_secs=0.01))
        async with serving(proxy) as listener:
            start = descriptors()
            left = many

            async def leave(how: float) -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                path = "/plain" if rng.random() < 0.3 else "/s"
                writer.write(post(path, b"x" * rng.choice([0, 10, 50_000])) * rng.choice([1, 1, 3]))
                try:
                    if how < 0.5:
                        await asyncio.sleep(rng.random() * 0.02)
                    elif how < 0.8:
                        await reader.read(1)
                except OSError:
                    pass
                if rng.random() < 0.5:
                    rst(writer)
                else:
                    writer.close()

            async def worker() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await leave(rng.random())

            await asyncio.gather(*(worker() for _ in range(60)))
            await until(lambda: not listener.connections.open and not proxy.tasks)
            assert proxy.in_flight == 0
            await until(lambda: pool.open == 0)  # idle ones leave by their age
            assert (pool.idle, pool.busy, len(pool._waiters)) == (0, 0, 0)
            await until(lambda: len(proxy.wheel) == 0)
            await until(lambda: descriptors() <= start)
