"""The client side of a connection: one request at a time to a node or an engine.

The connection parses what comes back and tells its ``Sink``; it decides nothing. Body bytes of
one ``data_received`` reach the sink as one piece, whatever their chunks were. Where whole chunks
may travel on as they are, framing and all, ``forward`` is offered them first (see ``plainly``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from math import inf
from typing import Any, Protocol

import httptools

from helexa.relay.acks import InternetSocket, delay_acks, internet_socket
from helexa.relay.outbox import Outbox
from helexa.relay.plainly import whole_answer
from helexa.relay.vanished import lost

Headers = list[tuple[bytes, bytes]]
_COPIED = 65_536  # a body below this travels in one write with its head
_MOST_HEAD = 262_144  # bytes of an answer before its body, interim answers included
Forward = Callable[[bytes], float]


class Failure(Enum):
    """How an upstream exchange can fail."""

    CONNECT = "could not connect"
    STALE = "a kept connection was closed before it answered"
    RESET = "the connection broke"
    TIMEOUT_CONNECT = "no connection in time"
    TIMEOUT_SEND = "the request was not taken in time"
    TIMEOUT_FIRST = "no answer in time"
    TIMEOUT_BETWEEN = "the answer stalled"
    PROTOCOL = "the answer is not valid HTTP"
    FRAMING = "the answer ended before its stated length"
    TOO_LARGE = "the answer is larger than allowed"
    FULL = "every connection is in use"

    @property
    def timed_out(self) -> bool:
        """A deadline passed (504), as opposed to a broken exchange (502)."""
        return self.name.startswith("TIMEOUT")


class Sink(Protocol):
    """Who wants the answer; called in this order, from the event loop.

    Attributes:
        streams: It comes piece by piece, if it comes: ``on_answer`` is not worth a try.
    """

    __slots__ = ()
    streams: bool = False

    def on_response(self, status: int, headers: Headers) -> None:
        """The final status line and headers (never a 1xx)."""

    def on_body(self, data: bytes) -> None:
        """Some of the body, never empty."""

    def on_complete(self) -> None:
        """The whole body has been seen, as its framing says."""

    def on_answer(self, headers: Headers, body: bytes) -> None:
        """A whole 200 at once, instead of the three above; the connection is free already."""
        self.on_response(200, headers)
        if body:
            self.on_body(body)
        self.on_complete()

    def on_failure(self, failure: Failure) -> None:
        """It will not come; the connection is closed."""

    def watch(self, now: float) -> float | None:
        """Look at its deadlines if the connection is on a wheel; returns when to look again."""


class UpstreamConnection(asyncio.Protocol):
    """One connection of a pool. Idle, or busy with exactly one sink.

    Args:
        delay_acks: See ``UpstreamPool``.

    Attributes:
        forward: Set by the sink: takes bytes that begin a chunk as they came and returns the
            time by its clock, or 0 for what it did not take.
        heard: When it took something last.
        every: While it is on a wheel, how often the deadlines of its sinks are looked at.
    """

    __slots__ = (
        "__weakref__",
        "_aligned",
        "_answered",
        "_begun",
        "_boxed",
        "_chunked",
        "_closed",
        "_complete",
        "_delays_acks",
        "_head_bytes",
        "_headers",
        "_informational",
        "_internet",
        "_keep",
        "_length",
        "_on_idle",
        "_outbox",
        "_parser",
        "_parts",
        "_paused",
        "_sink",
        "_transport",
        "_write",
        "every",
        "forward",
        "heard",
        "idle_since",
        "served",
    )

    def __init__(
        self,
        on_idle: Callable[[UpstreamConnection, bool], None],
        outbox: Outbox | None = None,
        *,
        delay_acks: bool = False,
    ) -> None:
        self._on_idle = on_idle
        self._outbox = outbox
        self._delays_acks = delay_acks
        self._internet: InternetSocket | None = None
        self._boxed = -1
        self._transport: Any = None
        self._write: Any = None
        self._parser: Any = None
        self._sink: Sink | None = None
        self._parts: list[bytes] = []
        self._headers: Headers = []
        self._head_bytes = 0
        self._aligned = False
        self._begun = False
        self._answered = False
        self._complete = False
        self._paused = False
        self._informational = False
        self._chunked = False
        self._length = False
        self._keep = True
        self._closed = False
        self.forward: Forward | None = None
        self.heard = 0.0
        self.every = inf
        self.idle_since = 0.0
        self.served = 0

    def usable(self) -> bool:
        """Idle, open, and nothing unexpected has arrived."""
        return not self._closed and self._sink is None and not self._transport.is_closing()

    @property
    def unsent(self) -> int:
        """Bytes of the request that the kernel has not taken yet."""
        return self._left()

    def vanished(self, secs: float) -> bool:
        """Nothing of what was sent has been acknowledged for so long."""
        return not self._closed and lost(self._transport.get_extra_info("socket"), secs)

    def _left(self) -> int:
        if self._outbox is not None and self._boxed == self._outbox.turn:
            self._outbox.flush()
        size: int = self._transport.get_write_buffer_size()
        return size

    def send(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send a request; ``sink`` hears of the answer."""
        self._sink = sink
        self._begun = self._answered = self._complete = self._aligned = False
        self._keep = True
        self._head_bytes = 0
        self.forward = None
        self.heard = 0.0
        self.served += 1
        if len(body) < _COPIED:
            outbox = self._outbox
            if outbox is None:
                self._write(head + body)
            else:
                self._boxed = outbox.turn
                outbox.put(self._write, head + body)
        else:
            self._write(head)
            self._write(body)

    def pause(self) -> None:
        """Stop reading: the sink's reader is slow."""
        if not self._closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if not self._closed:
            self._paused = False
            self._transport.resume_reading()

    def abandon(self) -> None:
        """Drop the exchange and the connection at once; the sink hears nothing more."""
        self._sink = self.forward = None
        if not self._closed:
            self._closed = True
            self._transport.abort()

    def disown(self) -> None:
        """Whoever connected it has gone before it was made: nobody says that it is lost, and it
        and its transport know each other."""
        self._closed = True
        self._parser = self._transport = self._write = None

    def watch(self, now: float) -> float | None:
        """Have the sink look at its deadlines; called by the wheel."""
        if self._closed:
            return None
        sink = self._sink
        again = None if sink is None else sink.watch(now)
        return now + self.every if again is None else min(again, now + self.every)

    # ── asyncio ─────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write = transport.write  # type: ignore[attr-defined]  # bound once: for every request
        # It holds us until the connection is lost, so not before there is one.
        self._parser = httptools.HttpResponseParser(self)
        if self._delays_acks:
            self._internet = internet_socket(transport)

    def data_received(self, data: bytes) -> None:
        forward = self.forward
        if forward is not None and self._aligned:  # the path of every token; there is a sink
            heard = forward(data)
            if heard:
                self.heard = heard
                return
        sink = self._sink
        if sink is None:
            self.abandon()  # bytes nobody asked for: an answer that was longer than it said
            return
        if self._aligned:
            self._aligned = False
        elif not self._begun and not sink.streams:
            answer = whole_answer(data)
            if answer is not None:  # the parser does not see it
                self._begun = self._answered = self._complete = True
                self._release()
                headers, body = answer
                sink.on_answer(headers, body)
                return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self._complete or isinstance(error, httptools.HttpParserUpgrade):
                self._deliver(sink)
                self._fail(Failure.PROTOCOL)
                return
            self._keep = False  # garbage behind a complete answer
        if not self._answered and self._endless(len(data)):
            return
        # A size line cannot end like this, and the bytes of a chunk that goes on came later.
        self._aligned = self._aligned and data.endswith(b"\n\r\n")
        parts = self._parts
        if parts:
            self._parts = []
            sink.on_body(parts[0] if len(parts) == 1 else b"".join(parts))
        if self._complete:
            self._finish(sink)

    def _endless(self, size: int) -> bool:
        """Whether the head has become too long with these bytes; then that was the answer."""
        self._head_bytes += size
        if self._head_bytes <= _MOST_HEAD:
            return False
        self._fail(Failure.PROTOCOL)
        return True

    def _deliver(self, sink: Sink) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            sink.on_body(parts[0] if len(parts) == 1 else b"".join(parts))

    def _finish(self, sink: Sink) -> None:
        if self._sink is not None:  # else it gave the exchange up while it was told of the body
            self._release()
            sink.on_complete()

    def _release(self) -> None:
        """The answer is whole: the connection is idle again, or closes."""
        self._sink = self.forward = None
        if self._paused:
            self.resume()  # the next exchange has another reader
        # An answer may come before its request has left: what is still to be sent would stand
        # in front of the next one.
        keep = self._keep and not self._closed and not self._left()
        if not keep and not self._closed:
            self._closed = True
            self._transport.abort() if self._left() else self._transport.close()
        self._on_idle(self, keep)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._parser = self.forward = None  # they hold us, or who holds us: cycles
        sink, self._sink = self._sink, None
        self._on_idle(self, False)
        if sink is None:
            return
        if not self._answered:
            stale = self.served > 1 and not self._begun
            sink.on_failure(Failure.STALE if stale else Failure.RESET)
        elif exc is None and not self._chunked and not self._length:
            sink.on_complete()  # close-delimited
        else:
            sink.on_failure(Failure.FRAMING)

    def _fail(self, failure: Failure) -> None:
        sink, self._sink = self._sink, None
        self.forward = None
        if not self._closed:
            self._closed = True
            self._transport.abort()
        if sink is not None:
            sink.on_failure(failure)

    # ── httptools ───────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep = False  # a second answer to one request
            return
        self._begun = True
        self._headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._answered:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        status = self._parser.get_status_code()
        self._informational = 100 <= status < 200
        if self._informational:
            return
        self._answered = True
        self._chunked = self._length = False
        for name, value in self._headers:
            if name == b"transfer-encoding" and value.strip().lower().endswith(b"chunked"):
                self._chunked = True
            elif name == b"content-length":
                self._length = True
        if status in (204, 304):
            self._length = True
        self._keep = self._parser.should_keep_alive()
        if self._chunked and self._internet is not None and not self._closed:
            delay_acks(self._internet)
        if self._sink is not None:
            self._sink.on_response(status, self._headers)

    def on_body(self, body: bytes) -> None:
        self._aligned = False
        if not self._complete:
            self._parts.append(body)

    def on_chunk_complete(self) -> None:
        self._aligned = True

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            return
        self._complete = True
