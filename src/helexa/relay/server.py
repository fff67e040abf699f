"""The server side of a connection: bytes in, requests out, answers in order.

One ``ServerProtocol`` per connection. Requests are parsed with httptools (llhttp, strict) as
they come and answered one after the other: a pipelined request waits in ``_queue`` until the
answer before it has ended. ::

    data_received ─▶ parser ─▶ Request ─▶ _queue ─▶ handler(request, reply)
                                             ▲            │
                                             └─ reply_ended

The protocol owns the connection's fate: who closes it, when it is idle, too slow, too large.
A client that shuts down its sending half while an answer is due is taken to have left: nothing
in TCP tells a half-close from a close, and an abandoned request must not keep a seat.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import httptools

from helexa.relay.http1 import SINGLE, BadRequest, DateHeader, Limits, check_head
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.wheel import Wheel

Handler = Callable[[Request, Reply], None]
"""Takes a request and sees to it that the reply ends, now or later."""


class App(Protocol):
    """What a server does with requests; implemented by the two applications."""

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request. Must not block; must not raise."""

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        """Header lines and body for a request that could not even be parsed."""


class Connections:
    """Everything the connections of one listener share, and the set of those that are open."""

    def __init__(
        self, app: App, wheel: Wheel, loop: asyncio.AbstractEventLoop, limits: Limits
    ) -> None:
        self.app = app
        self.wheel = wheel
        self.loop = loop
        self.limits = limits
        self.date = DateHeader()
        self.open: set[ServerProtocol] = set()
        self.draining = False

    def protocol(self) -> ServerProtocol:
        """A protocol for a new connection (the factory given to ``create_server``)."""
        return ServerProtocol(self)

    def busy(self) -> int:
        """Connections with an answer under way."""
        return sum(1 for c in self.open if c.busy)

    def drain(self) -> None:
        """Idle connections close now, busy ones after their current answer."""
        self.draining = True
        for connection in list(self.open):
            connection.close_when_idle()


class ServerProtocol(asyncio.Protocol):
    """One client connection."""

    __slots__ = (
        "_active",
        "_body",
        "_body_bytes",
        "_continue",
        "_handling",
        "_head_bytes",
        "_headers",
        "_heard",
        "_in_head",
        "_parser",
        "_peer",
        "_queue",
        "_reading",
        "_refusal",
        "_request",
        "_secure",
        "_shared",
        "_transport",
        "_upgrade",
        "_url",
        "closing",
        "write_paused",
    )

    def __init__(self, shared: Connections) -> None:
        self._shared = shared
        self._transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()
        self._active: Reply | None = None
        self._handling = False
        self._request: Request | None = None
        self._refusal: BadRequest | None = None
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = True
        self._reading = True
        self._upgrade = False
        self._continue = False
        self._heard = 0.0
        self._peer = ""
        self._secure = False
        self.closing = False
        self.write_paused = False

    @property
    def busy(self) -> bool:
        """An answer is under way or waits for its turn."""
        return self._active is not None or bool(self._queue) or self._refusal is not None

    def date(self) -> bytes:
        """The ``date`` header line."""
        return self._shared.date.line()

    # ── connection ──────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._peer = str(peer[0])
        self._secure = transport.get_extra_info("sslcontext") is not None
        shared = self._shared
        self._transport.set_write_buffer_limits(shared.limits.write_high_water)
        shared.open.add(self)
        self._heard = shared.loop.time()
        shared.wheel.at(self._heard + shared.limits.head_secs, self._watch)
        if shared.draining:
            self.close_when_idle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._shared.open.discard(self)
        self.closing = True
        self._queue.clear()
        self._body.clear()
        active, self._active = self._active, None
        if active is not None:
            active.client_left()

    def eof_received(self) -> bool:
        return False  # closes the transport; connection_lost tells the reply

    def pause_writing(self) -> None:
        self.write_paused = True
        if self._active is not None:
            self._active.flow(True)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._active is not None:
            self._active.flow(False)

    def _watch(self, now: float) -> float | None:
        """Deadlines of the reading side, asked by the wheel."""
        limits = self._shared.limits
        if self._transport.is_closing():
            return None
        if self.busy:
            return now + limits.head_secs
        if self._in_head:
            due = self._heard + (limits.head_secs if self._head_bytes else limits.keep_alive_secs)
        else:
            due = self._heard + limits.body_secs
        if due > now:
            return due
        if self._in_head and not self._head_bytes:
            self._transport.close()
        else:
            self._refuse(BadRequest(408, "request_timeout", "The request took too long to arrive."))
        return None

    # ── bytes in ────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self.closing or self._refusal is not None:
            return  # nothing after a refusal or "Connection: close" is anybody's request
        self._heard = self._shared.loop.time()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except BadRequest as error:
            self._refuse(error)
            return
        except httptools.HttpParserError as error:
            self._unparsable(error)
            return
        if self._in_head and self._head_bytes > self._shared.limits.head_bytes:
            self._refuse(self._head_too_large())

    def _unparsable(self, error: httptools.HttpParserError) -> None:
        # httptools chains what a callback raised; our own refusals come through it.
        cause = error.__context__
        if isinstance(cause, BadRequest):
            self._refuse(cause)
        elif self._queue and not self._queue[-1].keep_alive:
            return  # bytes after "Connection: close" are nobody's request
        elif self._in_head and self._head_bytes > self._shared.limits.head_bytes:
            self._refuse(self._head_too_large())
        else:
            self._refuse(BadRequest(400, "invalid_request", f"Not a valid HTTP request: {error}."))

    def _head_too_large(self) -> BadRequest:
        limit = self._shared.limits.head_bytes
        return BadRequest(
            431, "headers_too_large", f"Request line and headers exceed {limit} bytes."
        )

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Serve the request as if it had not asked to switch protocols (RFC 9110, 7.8)."""
        if self._parser.get_method() == b"CONNECT":
            self._refuse(BadRequest(400, "invalid_request", "CONNECT is not served here."))
            return
        hidden = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b: %b\r\n" % (k, v) for k, v in self._headers.items() if k not in hidden]
        method = self._parser.get_method()
        self._parser = httptools.HttpRequestParser(self)
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, self._url, b"".join(lines))
        self.data_received(head + rest)

    # httptools callbacks, in the order of a message

    def on_message_begin(self) -> None:
        self._headers = {}
        self._url = b""
        self._body = []
        self._body_bytes = 0
        self._request = None
        self._in_head = True
        self._upgrade = False

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._request is not None:
            return  # a trailer; nothing reads them
        name = name.lower()
        headers = self._headers
        if name in headers:
            if name in SINGLE:
                raise BadRequest(
                    400, "invalid_request", f"Header '{name.decode('latin-1')}' is repeated."
                )
            joint = b"; " if name == b"cookie" else b", "
            value = headers[name] + joint + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        parser, headers, limits = self._parser, self._headers, self._shared.limits
        version = parser.get_http_version()
        check_head(version, headers)
        self._in_head = False
        self._head_bytes = 0
        if parser.should_upgrade():
            self._upgrade = True
            return
        length = headers.get(b"content-length")
        if length is not None and (len(length) > 18 or int(length) > limits.body_bytes):
            raise self._body_too_large()
        expect = headers.get(b"expect")
        if expect is not None and version == "1.1":
            if expect.strip().lower() != b"100-continue":
                raise BadRequest(417, "invalid_request", "Only '100-continue' can be expected.")
            self._continue = True
            self._send_continue()
        self._request = Request(
            parser.get_method(),
            self._url,
            headers,
            version=version,
            keep_alive=parser.should_keep_alive(),
            received=self._heard,
            peer=self._peer,
            secure=self._secure,
        )

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._shared.limits.body_bytes:
            raise self._body_too_large()
        self._body.append(body)
        self._continue = False

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        request = self._request
        if self._upgrade or request is None:
            return
        self._continue = False
        body = self._body
        if body:
            request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        self._request = None
        if self.closing:
            return
        self._queue.append(request)
        if len(self._queue) >= self._shared.limits.pipeline and self._reading:
            self._reading = False
            self._transport.pause_reading()
        if self._active is None:
            self._next()

    def _body_too_large(self) -> BadRequest:
        limit = self._shared.limits.body_bytes
        return BadRequest(413, "payload_too_large", f"The body is larger than {limit} bytes.")

    def _send_continue(self) -> None:
        # A 100 must not overtake the answers of requests pipelined before it.
        if self._continue and not self.busy:
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ── answers out ─────────────────────────────────────────────────────────────────────────

    def _next(self) -> None:
        """Hand over queued requests until one does not answer at once."""
        if self._handling:
            return
        self._handling = True
        try:
            while self._queue and self._active is None and not self.closing:
                request = self._queue.popleft()
                reply = Reply(
                    self,
                    bodyless=request.method == b"HEAD",
                    chunks=request.version == "1.1",
                    close=not request.keep_alive or self._shared.draining,
                )
                self._active = reply
                self._shared.app.handle(request, reply)
            if self._refusal is not None and self._active is None and not self.closing:
                self._answer_refusal(self._refusal)
        finally:
            self._handling = False
        if not self._reading and len(self._queue) < self._shared.limits.pipeline:
            self._reading = True
            self._transport.resume_reading()

    def transmit(self, data: bytes) -> None:
        """Bytes of the active answer."""
        self._transport.write(data)

    def reply_ended(self, close: bool) -> None:
        """The active answer has been written whole."""
        self._active = None
        self._heard = self._shared.loop.time()
        if close or self.closing or self._shared.draining:
            self.closing = True
            self._queue.clear()
            self._transport.close()
        else:
            self._next()
            self._send_continue()

    def abort(self) -> None:
        """Cut the connection without an orderly end."""
        self.closing = True
        self._transport.abort()

    def close_when_idle(self) -> None:
        """Close now if nothing is under way, else after the current answer."""
        if not self.busy and self._in_head and not self._head_bytes:
            self.closing = True
            self._transport.close()

    def _refuse(self, error: BadRequest) -> None:
        """Answer what could not be parsed, after the answers before it, and close."""
        if not self.closing and self._refusal is None:
            self._refusal = error
            self._next()

    def _answer_refusal(self, error: BadRequest) -> None:
        headers, body = self._shared.app.refuse(error)
        self._active = Reply(self, bodyless=False, chunks=True, close=True)
        self._active.send(error.status, headers, body)
