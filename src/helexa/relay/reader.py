"""Bytes of a client in, requests out: the parsing half of a server connection.

httptools (llhttp, strict) splits the bytes; this adds what it leaves open: limits, the checks of
``check_head``, requests to switch protocols (served as if they had not asked, but for the one
that the answering half knows). A head that comes
again is recalled, and its body of known length counted off, without the parser, which then still
stands where the request before has ended. ::

    IDLE ──first byte──▶ HEAD ──blank line──▶ BODY ──whole──▶ IDLE
      │                    └───────── BadRequest ─────┘ refused, nothing is read any more
      └──a head recalled──▶ BODY, ``_need`` bytes to come ──whole──▶ IDLE
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools

from helexa.relay.http1 import SINGLE, BadRequest, Limits, check_head
from helexa.relay.recall import Recall, recall
from helexa.relay.request import Head, Request

# Which part of a request comes next. Plain integers: an Enum's look-up costs 1 us a request here.
IDLE, HEAD, BODY = 0, 1, 2

_SMALL_PIECE = 4096  # pieces of a body below this are gathered: a list of crumbs costs 40 x them
_FRAMING_SLACK = 1 << 20  # bytes of chunk framing and trailers that a body may come with
_FRAMING_RATIO = 8  # and per byte of it: one-byte chunks need six
_DIGITS = 5  # of a content-length; with more than that a stranger may not send it
_LONG = 10**_DIGITS
_MISSES = 4  # so many heads in a row that were not the last one, and none is remembered any more


class RequestReader(asyncio.Protocol):
    """The receiving half; ``ServerProtocol`` is the answering one."""

    __slots__ = (
        "_began",
        "_body",
        "_body_bytes",
        "_chunk",
        "_continue",
        "_head_bytes",
        "_headers",
        "_heard",
        "_limits",
        "_loop",
        "_misses",
        "_need",
        "_origin",
        "_parser",
        "_peer",
        "_recall",
        "_refusal",
        "_request",
        "_secure",
        "_size",
        "_stage",
        "_url",
        "_wire_bytes",
        "closing",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._loop = loop
        self._limits = limits
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request: Request | None = None
        self._refusal: BadRequest | None = None
        self._headers: dict[bytes, bytes] = {}
        self._url = b""
        self._recall: Recall | None = None
        self._origin: bytes | None = None
        self._misses = 0
        self._need = 0
        self._body: list[bytes | bytearray] = []
        self._body_bytes = 0
        self._wire_bytes = 0
        self._head_bytes = 0
        self._chunk = self._size = 0
        self._stage = IDLE
        self._continue = False
        self._heard = self._began = 0.0
        self._peer = ""
        self._secure = False
        self.closing = False

    # What the answering half does with it.

    def _accept(self, request: Request) -> None:
        """A request has arrived whole."""
        raise NotImplementedError

    def _refuse(self, error: BadRequest) -> None:
        """What arrived is no request; nothing after it is."""
        raise NotImplementedError

    def _send_continue(self) -> None:
        """A client waits for the word to send its body."""
        raise NotImplementedError

    def _foresee(self, head: Head) -> None:
        """A long body will follow this head, or one of unknown length.

        Raises:
            BadRequest: It would be read in vain.
        """

    def _switch(self, rest: memoryview) -> bool:  # noqa: ARG002
        """The head just read asks for another protocol; whether another one reads on now."""
        return False

    # ── bytes ───────────────────────────────────────────────────────────────────────────────

    def data_received(self, data: bytes) -> None:
        if self.closing or self._refusal is not None:
            return  # nothing after a refusal or "Connection: close" is anybody's request
        self._heard = self._loop.time()
        if self._need:
            data = self._gather(data)
        if self._stage == IDLE:
            if self._recall is not None:
                data = self._recalled(data, self._recall)
            self._origin = data
        if not data or self.closing:
            return
        self._chunk = self._size = len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = memoryview(data)[upgrade.args[0] :]
            if not self._switch(rest):
                self._serve_plainly(rest)
        except httptools.HttpParserError as error:
            self._unparsable(error)
        else:
            if self._stage:
                self._check_growth(len(data))

    # ── a head that comes again ─────────────────────────────────────────────────────────────

    def _recalled(self, data: bytes, last: Recall) -> bytes:
        """Take the requests whose heads are known; returns what is for the parser."""
        while data and not self.closing:
            start = last.match(data)
            if not start or last.length > self._limits.body_bytes:
                break
            self._misses = 0
            if last.length >= _LONG and self._in_vain(last.head):
                return b""
            end = start + last.length
            body = data[start:end]
            request = Request(last.head, body, self._heard, self._peer, self._secure)
            if end > len(data):
                self._stage = BODY
                self._began = self._heard
                self._request = request
                self._body_bytes = self._wire_bytes = 0
                self._need = last.length
                return self._gather(body)
            data = data[end:]
            self._accept(request)
        return data

    def _in_vain(self, head: Head) -> bool:
        """A long body follows a head that is known; whether that was refused."""
        try:
            self._foresee(head)
        except BadRequest as refusal:
            self._refuse(refusal)
        return self._refusal is not None

    def _gather(self, data: bytes) -> bytes:
        """More of a body of known length; returns what is behind it."""
        rest = data[self._need :]
        if rest:
            data = data[: self._need]
        self._need -= len(data)
        if data:
            self.on_body(data)
        if not self._need:
            self.on_message_complete()
        return rest

    def _check_growth(self, size: int) -> None:
        """Bound what has arrived of an unfinished request, seen by the parser or not."""
        if self._stage == HEAD:
            # A head that began behind other bytes of this chunk is counted from the next one on.
            self._head_bytes += self._chunk
            if self._head_bytes > self._limits.head_bytes:
                self._refuse(self._head_too_large())
            return
        self._wire_bytes += size
        if self._wire_bytes > _FRAMING_SLACK + _FRAMING_RATIO * self._body_bytes:
            self._refuse(BadRequest(400, "invalid_request", "Chunk framing without a body."))

    def _unparsable(self, error: httptools.HttpParserError) -> None:
        # httptools chains what a callback raised; our own refusals come through it.
        cause = error.__context__
        if isinstance(cause, BadRequest):
            self._refuse(cause)
        elif self._stage == HEAD and self._head_bytes + self._chunk > self._limits.head_bytes:
            self._refuse(self._head_too_large())
        else:
            self._refuse(BadRequest(400, "invalid_request", f"Not a valid HTTP request: {error}."))

    def _head_too_large(self) -> BadRequest:
        limit = self._limits.head_bytes
        return BadRequest(
            431, "headers_too_large", f"Request line and headers exceed {limit} bytes."
        )

    def _body_too_large(self) -> BadRequest:
        limit = self._limits.body_bytes
        return BadRequest(413, "payload_too_large", f"The body is larger than {limit} bytes.")

    # ── requests to switch protocols ────────────────────────────────────────────────────────

    def _serve_plainly(self, rest: memoryview) -> None:
        """Go on as if the head just read had not asked to switch (RFC 9110, 7.8)."""
        feed = [rest, self._plain_head()]
        while feed and not self.closing and self._refusal is None:
            data = feed.pop()
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                feed += [data[upgrade.args[0] :], self._plain_head()]
            except httptools.HttpParserError as error:
                self._unparsable(error)
        if self._stage and self._refusal is None:
            self._check_growth(len(rest))

    def _plain_head(self) -> memoryview:
        if self._parser.get_method() == b"CONNECT":
            self._refuse(BadRequest(400, "invalid_request", "CONNECT is not served here."))
            return memoryview(b"")
        asked = self._headers.get(b"connection", b"").lower().split(b",")
        kept = b",".join(t for t in asked if t.strip() in {b"close", b"keep-alive"})
        hidden = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%b: %b\r\n" % (k, v) for k, v in self._headers.items() if k not in hidden]
        if kept:
            lines.append(b"connection: %b\r\n" % kept)
        start = (self._parser.get_method(), self._url, self._parser.get_http_version().encode())
        self._parser = httptools.HttpRequestParser(self)
        return memoryview(b"%b %b HTTP/%b\r\n" % start + b"".join(lines) + b"\r\n")

    # ── httptools, in the order of a message ────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self._headers = {}
        self._url = b""
        self._head_bytes = 0
        self._began = self._heard
        self._stage = HEAD

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
        parser, headers, limits = self._parser, self._headers, self._limits
        if self._head_bytes + self._size > limits.head_bytes:
            self._check_head_size()
        version = parser.get_http_version()
        check_head(version, headers)
        self._stage = BODY
        origin, self._origin = self._origin, None
        if parser.should_upgrade():
            return
        length = headers.get(b"content-length")
        if length is not None and (len(length) > 18 or int(length) > limits.body_bytes):
            raise self._body_too_large()
        head = Head(parser.get_method(), self._url, headers, version, parser.should_keep_alive())
        if b"transfer-encoding" in headers or (length is not None and len(length) > _DIGITS):
            self._foresee(head)
        if b"expect" in headers and version == "1.1":
            if headers[b"expect"].strip().lower() != b"100-continue":
                raise BadRequest(417, "invalid_request", "Only '100-continue' can be expected.")
            self._continue = True
            self._send_continue()
        self._body_bytes = self._wire_bytes = 0
        self._request = Request(head, b"", self._heard, self._peer, self._secure)
        if origin is not None and self._misses < _MISSES:
            self._misses += 1
            self._recall = recall(origin, head)
        else:
            self._recall = None

    def _check_head_size(self) -> None:
        # The chunks that brought the head are larger than the limit; the head itself may not be.
        size = len(self._url) + sum(len(k) + len(v) + 4 for k, v in self._headers.items())
        if size > self._limits.head_bytes:
            raise self._head_too_large()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.body_bytes:
            raise self._body_too_large()
        self._continue = False
        pieces = self._body
        if pieces and len(body) < _SMALL_PIECE:
            last = pieces[-1]
            if isinstance(last, bytearray):
                last += body
                return
            pieces.append(bytearray(body))
        else:
            pieces.append(body)

    def on_message_complete(self) -> None:
        self._stage = IDLE
        self._chunk = 0  # the rest of these bytes is not counted for a head that does not end here
        request = self._request
        if request is None or self.closing:
            return  # a head that asked to switch protocols comes again without that
        self._request = None
        self._continue = False
        pieces = self._body
        if pieces:
            request.body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
            self._body = []
        self._accept(request)
