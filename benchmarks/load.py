"""Closed-loop load on one inference endpoint, cheap enough to share a core with the stub.

Each of ``--streams`` clients keeps one connection and sends the next request when the answer to
the last one has ended. Prints one line of JSON: what the clients saw and, with ``--pids``, what
those processes (with their children) cost. CPU time per unit of work is the figure to compare on
a shared machine: it does not move when the load generator is starved.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import cast

import click
import uvloop
from kit.process import cpu_seconds, raise_descriptor_limit, rss_bytes

LAST_CHUNK = b"\r\n0\r\n\r\n"
KEPT = 40  # bytes of the last read: longer than any mark that is looked for
STAMPS = re.compile(rb"@(\d{19})@")
CHAT = "/v1/chat/completions"
LENGTH = re.compile(rb"content-length: *(\d+)")


@dataclass(frozen=True)
class Job:
    """What every client sends; ``requests`` differ in their keys only, ``last`` ends a stream."""

    host: str
    port: int
    stream: bool
    stamps: bool
    last: bytes
    requests: tuple[bytes, ...]


@dataclass
class Tally:
    """What was seen since the window opened; times in seconds."""

    requests: int = 0
    events: int = 0
    errors: int = 0
    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    delay: list[float] = field(default_factory=list)


class Board:
    """Shared by the clients: the current tally, and whether to go on."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.running = True
        self.open = 0  # requests under way
        self.faults: list[str] = []
        self.connecting: set[asyncio.Task[None]] = set()

    def window(self) -> Tally:
        """Close the current window; the tally of it."""
        closed, self.tally = self.tally, Tally()
        return closed

    def fault(self, what: str) -> None:
        """Count an error, and remember the first few in words."""
        self.tally.errors += 1
        if len(self.faults) < 3:
            self.faults.append(what)


class Client(asyncio.Protocol):
    """One connection with one request under way."""

    def __init__(self, job: Job, board: Board, request: bytes) -> None:
        self._job = job
        self._board = board
        self._request = request
        self._transport: asyncio.Transport | None = None
        self._head: bytes | None = None
        self._left = -1  # bytes of a body of known length; -1 when chunked
        self._tail = b""
        self._sent = 0.0
        self._first = False
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 24)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._busy = False
            self._board.open -= 1
            self._board.fault(f"the connection was lost: {exc}")
        if self._board.running:
            open_client(self._job, self._board, self._request)

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            self._tail += data
            head, blank, data = self._tail.partition(b"\r\n\r\n")
            if not blank:
                return
            self._begin(head)
            if not data and self._left:
                return
        if self._left < 0:
            self._chunked(data)
        else:
            self._left -= len(data)
            if self._left <= 0:
                self._end()

    def _send(self) -> None:
        if not self._board.running or self._transport is None:
            return
        self._head, self._tail, self._first, self._busy = None, b"", False, True
        self._board.open += 1
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def _begin(self, head: bytes) -> None:
        self._head, self._tail = head.lower(), b""
        if b" 200 " not in head[:14]:
            self._board.fault(head.partition(b"\r\n")[0].decode())
        length = LENGTH.search(self._head)
        self._left = int(length[1]) if length else -1

    def _chunked(self, data: bytes) -> None:
        tally, seen = self._board.tally, self._tail
        joined = seen + data
        # What was kept of the last read may end in the middle of a mark; it is not counted twice.
        events = joined.count(b"data:") - seen.count(b"data:")
        tally.events += events
        if events and not self._first:
            self._first = True
            tally.first.append(time.perf_counter() - self._sent)
        if self._job.stamps and events:
            now = time.monotonic_ns()
            tally.delay.extend((now - int(at)) / 1e9 for at in STAMPS.findall(data))
        self._tail = joined[-KEPT:]
        if self._tail.endswith(LAST_CHUNK):
            if self._job.stream and self._job.last not in self._tail:
                self._board.fault(f"a stream ended without its end: {joined[-200:]!r}")
            self._end()

    def _end(self) -> None:
        tally = self._board.tally
        tally.requests += 1
        tally.latency.append(time.perf_counter() - self._sent)
        self._busy = False
        self._board.open -= 1
        if self._transport is not None and b"connection: close" in (self._head or b""):
            self._transport.close()
        else:
            self._send()


def open_client(job: Job, board: Board, request: bytes) -> None:
    """Connect one client in the background."""
    board.connecting.add(asyncio.create_task(_connect(job, board, request)))


async def _connect(job: Job, board: Board, request: bytes) -> None:
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: Client(job, board, request), job.host, job.port)
    except OSError as error:
        board.fault(str(error))
    finally:
        board.connecting.discard(cast("asyncio.Task[None]", asyncio.current_task()))


DIALECTS = {
    "chat": (CHAT, b"[DONE]"),
    "messages": ("/v1/messages", b"message_stop"),
    "responses": ("/v1/responses", b""),  # its last event is as long as the answer
}
"""Where each dialect is asked, and what the last bytes of its streams contain."""


def asked_in(dialect: str, chat: bytes) -> bytes:
    """A chat request of ``body_of`` in another dialect."""
    body = json.loads(chat)
    body.pop("stream_options", None)
    if dialect == "responses":
        body["input"] = body.pop("messages")
        body["max_output_tokens"] = body.pop("max_tokens")
        body["store"] = False
    return chat if dialect == "chat" else json.dumps(body).encode()


def body_of(model: str, *, stream: bool, usage: bool, max_tokens: int, kb: float) -> bytes:
    """A chat request of about ``kb`` KiB."""
    words = "word " * max(50, int(kb * 1024 / 5))
    body: dict[str, object] = {
        "model": model,
        "stream": stream,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": words}],
    }
    if stream and usage:
        body["stream_options"] = {"include_usage": True}
    return json.dumps(body).encode()


def request_of(host: str, port: int, key: str, body: bytes, path: str = CHAT) -> bytes:
    """A whole HTTP request."""
    key_line = f"authorization: Bearer {key}\r\n" if key else ""
    return (
        f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{key_line}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def quantile(values: list[float], part: float) -> float | None:
    """A quantile in milliseconds."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3, 3)


def each_cpu(pids: list[int]) -> list[float]:
    """CPU seconds of each process tree so far."""
    return [cpu_seconds([pid]) for pid in pids]


@dataclass(frozen=True)
class Timing:
    """Seconds: clients start spread over ``spread``, the window opens after ``warmup``."""

    spread: float
    warmup: float
    window: float
    drain: float


async def run(job: Job, streams: int, timing: Timing, pids: list[int]) -> dict[str, object]:
    """Load, measure one window, let the answers under way end."""
    board, resident = Board(), rss_bytes(pids)
    loop = asyncio.get_running_loop()
    for index in range(streams):
        request = job.requests[index % len(job.requests)]
        loop.call_later(timing.spread * index / streams, open_client, job, board, request)
    await asyncio.sleep(timing.spread + timing.warmup)
    early, spent, start = board.window().errors, each_cpu(pids), time.perf_counter()
    await asyncio.sleep(timing.window)
    took, now = time.perf_counter() - start, each_cpu(pids)
    costs = [after - before for before, after in zip(spent, now, strict=True)]
    cpu = sum(costs)
    tally, held = board.window(), board.open
    grown = rss_bytes(pids) - resident
    board.running = False
    until = time.perf_counter() + timing.drain
    while board.open and time.perf_counter() < until:
        await asyncio.sleep(0.02)
    return {
        "requests": tally.requests,
        "requests_per_s": round(tally.requests / took, 1),
        "events": tally.events,
        "events_per_s": round(tally.events / took, 1),
        "p50_ms": quantile(tally.latency, 0.5),
        "p99_ms": quantile(tally.latency, 0.99),
        "first_p50_ms": quantile(tally.first, 0.5),
        "first_p99_ms": quantile(tally.first, 0.99),
        "delay_p50_ms": quantile(tally.delay, 0.5),
        "delay_p99_ms": quantile(tally.delay, 0.99),
        "errors": early + tally.errors + board.tally.errors,
        "faults": board.faults,
        "open": held,
        "cpu_pct": round(cpu / took * 100, 1),
        "cpu_us_per_request": round(cpu / max(1, tally.requests) * 1e6, 2),
        "cpu_us_per_event": round(cpu / max(1, tally.events) * 1e6, 3),
        "cpu_us_per_event_each": [round(c / max(1, tally.events) * 1e6, 3) for c in costs],
        "rss_growth_bytes": grown,
    }


@click.command(help=__doc__)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
@click.option("--model", default="test-model", show_default=True)
@click.option("--streams", default=32, show_default=True, help="Clients at once.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of the window.")
@click.option("--warmup", default=1.0, show_default=True, help="Seconds before the window.")
@click.option("--spread", default=0.5, show_default=True, help="Seconds over which clients start.")
@click.option("--drain", default=2.0, show_default=True, help="Seconds for answers under way.")
@click.option("--stream", is_flag=True, help="Ask for streamed answers.")
@click.option("--usage", is_flag=True, help="Ask for the usage event.")
@click.option("--dialect", type=click.Choice(list(DIALECTS)), default="chat", show_default=True)
@click.option("--stamps", is_flag=True, help="Read the stub's stamps: the relay's delay.")
@click.option("--pids", default="", help="Processes to measure, with children; a minus leaves out.")
@click.option("--key", "keys", multiple=True, help="API key; several are used in turn.")
@click.option("--body-kb", default=0.0, show_default=True, help="Size of the prompt, KiB.")
@click.option("--max-tokens", default=64, show_default=True)
def main(
    host: str,
    port: int,
    model: str,
    streams: int,
    seconds: float,
    warmup: float,
    spread: float,
    drain: float,
    stream: bool,
    usage: bool,
    dialect: str,
    stamps: bool,
    pids: str,
    keys: tuple[str, ...],
    body_kb: float,
    max_tokens: int,
) -> None:
    raise_descriptor_limit()
    body = body_of(model, stream=stream, usage=usage, max_tokens=max_tokens, kb=body_kb)
    path, last = DIALECTS[dialect]
    body = asked_in(dialect, body)
    requests = tuple(request_of(host, port, key, body, path) for key in keys or ("",))
    job = Job(host, port, stream, stamps, last, requests)
    watched = [int(pid) for pid in pids.split(",") if pid]
    result = uvloop.run(run(job, streams, Timing(spread, warmup, seconds, drain), watched))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
