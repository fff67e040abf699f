"""One streamed chat request, timed where its bytes arrive.

Times are taken in the connection's own callback, before anything is parsed, so that many streams
at once do not time each other's parsing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Mapping
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import msgspec

from helexa.bench.probe.chunks import Chunk, decode
from helexa.bench.probe.timed import REFUSED, Timed
from helexa.relay.names import Name
from helexa.relay.pool import Origin
from helexa.relay.tcp import connect_tcp
from helexa.relay.upstream import Failure, Headers, Sink, UpstreamConnection
from helexa.wire.bodies import UNREADABLE

_ERROR_BYTES = 300
_DONE = b"[DONE]"


class _Reader(Sink):
    """Sink of one stream: notes when something came, and what."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.status = 0
        self.sse = False
        self.failure: str = ""
        self.queue_ms: float | None = None
        self.arrivals: list[float] = []
        self.text: list[str] = []
        self.finish: str | None = None
        self.last: Chunk | None = None
        self.usage: Chunk | None = None
        self.ended_at = 0.0
        self.terminated = False
        self._rest = b""

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        for name, value in headers:
            if name == b"content-type":
                self.sse = value.startswith(b"text/event-stream")
            elif name == b"x-helexa-queue-ms" and value.replace(b".", b"", 1).isdigit():
                self.queue_ms = float(value)

    def on_body(self, data: bytes) -> None:
        now = time.perf_counter()
        data = self._rest + data
        if not self.sse:
            self._rest = data[: 1 << 20]
            return
        *events, self._rest = data.replace(b"\r\n", b"\n").split(b"\n\n")
        seen = False
        for event in events:
            seen = self._event(event) or seen
        if seen:
            self.arrivals.append(now)

    def _event(self, event: bytes) -> bool:
        """Whether the event carried something a reader would see."""
        start = event.find(b"data:")
        if start < 0:
            return False
        payload = event[start + 5 :].strip()
        if payload == _DONE:
            self.terminated = True
            return False
        try:
            chunk = decode(payload)
        except UNREADABLE as error:
            self.failure = self.failure or f"an event that is no chat chunk: {error}"
            return False
        if chunk.error is not None:
            self.failure = f"error in the stream: {_short(chunk.error)}"
        if chunk.usage is not None:
            self.usage = chunk
        return self._choices(chunk)

    def _choices(self, chunk: Chunk) -> bool:
        seen = False
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self.finish = choice.finish_reason
            if not choice.delta.empty:
                seen = True
                if choice.delta.content:
                    self.text.append(choice.delta.content)
        return seen

    def on_complete(self) -> None:
        self._end("")

    def on_failure(self, failure: Failure) -> None:
        self._end(failure.value)

    def watch(self, now: float) -> float | None:  # noqa: ARG002
        """The whole request has one deadline of its own."""
        return None

    def _end(self, failure: str) -> None:
        self.ended_at = time.perf_counter()
        self.failure = self.failure or failure
        if not self.done.done():
            self.done.set_result(None)

    def result(self, sent_at: float) -> Timed:
        """What it came to."""
        error, refused = self._judge()
        ms = [(at - sent_at) * 1000 for at in self.arrivals]
        usage = None if self.usage is None else self.usage.usage
        return Timed(
            status=self.status,
            error=error,
            refused=refused,
            sent_at=sent_at,
            first_ms=ms[0] if ms else None,
            last_ms=ms[-1] if ms else None,
            total_ms=((self.ended_at or time.perf_counter()) - sent_at) * 1000,
            gaps_ms=tuple(b - a for a, b in pairwise(ms)),
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            tokens=len(ms) if usage is None else usage.completion_tokens,
            counted=usage is not None,
            cached=_cached(self.usage),
            server_rate=_server_rate(self.usage),
            queue_ms=self.queue_ms,
            text="".join(self.text),
            finish_reason=self.finish,
        )

    def _judge(self) -> tuple[str, bool]:
        if self.status in REFUSED:
            return "", True
        if self.failure:
            return self.failure, False
        if self.status != 200:
            return f"status {self.status}: {_short(self._rest)}", False
        if not self.sse:
            return "the answer is not an event stream", False
        if self.finish is None:
            return "the stream ended without a finish reason", False
        return "", False


def _cached(chunk: Chunk | None) -> int | None:
    usage = None if chunk is None else chunk.usage
    details = None if usage is None else usage.prompt_tokens_details
    return None if details is None else details.cached_tokens


def _server_rate(chunk: Chunk | None) -> float | None:
    timings = None if chunk is None else chunk.timings
    if timings is None or timings.predicted_ms <= 0 or timings.predicted_n < 2:
        return None
    return timings.predicted_n / timings.predicted_ms * 1000


def _reason(error: OSError) -> str:
    """Without the addresses that asyncio puts there: what is stored is shown to others."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, ConnectionRefusedError) or error.errno is None:  # all its addresses
        return "nobody listens there"
    return os.strerror(error.errno) if error.errno > 0 else type(error).__name__


def _short(value: Any) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return " ".join(text[:_ERROR_BYTES].split())


class Prober:
    """Asks one endpoint.

    Args:
        base_url: With or without ``/v1``.
        key: Sent as a bearer token.
        timeout_s: For one request, everything together.
    """

    def __init__(self, base_url: str, key: str | None, timeout_s: float) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base_url!r} is not an http:// or https:// URL")
        tls = parts.scheme == "https"
        try:
            self._origin = Origin(parts.hostname, parts.port or (443 if tls else 80), tls=tls)
        except ValueError as error:
            raise ValueError(f"{base_url!r}: {error}") from error
        self._path = parts.path.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self._key = key
        self._timeout_s = timeout_s

    async def ask(self, body: Mapping[str, object]) -> Timed:
        """Send one chat request, streamed, and time its answer. Never raises for the target."""
        data = msgspec.json.encode(
            {**body, "stream": True, "stream_options": {"include_usage": True}}
        )
        loop = asyncio.get_running_loop()
        reader = _Reader(loop.create_future())
        connection: UpstreamConnection | None = None
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._connect(loop)
                started = time.perf_counter()
                connection.send(self._head(len(data)), data, reader)
                await reader.done
        except TimeoutError:
            reader.failure = reader.failure or f"no end within {self._timeout_s:g} s"
        except OSError as error:
            reader.failure = f"no connection: {_reason(error)}"
        finally:
            if connection is not None:
                connection.abandon()
        return reader.result(started)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> UpstreamConnection:
        origin = self._origin
        context = await asyncio.to_thread(ssl.create_default_context) if origin.tls else None
        name = Name(loop, origin.host, origin.port)
        return await connect_tcp(
            loop, lambda: UpstreamConnection(lambda _c, _keep: None), name, context
        )

    def _head(self, length: int) -> bytes:
        lines = [
            f"POST {self._path} HTTP/1.1",
            f"host: {self._origin.authority}",
            "content-type: application/json",
            "accept: text/event-stream",
            f"content-length: {length}",
            "connection: close",
        ]
        if self._key is not None:
            lines.append(f"authorization: Bearer {self._key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
