"""The server's half of one exchange: an answer, framed for the client that asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from helexa.relay.http1 import status_line

if TYPE_CHECKING:
    from helexa.relay.server import ServerProtocol


class Reply:
    """One answer: either ``send`` once, or ``start``, ``write`` …, ``end``.

    Every method is safe after the client has gone: bytes then go nowhere. ``on_gone`` is called
    once when the client leaves before the answer ended; ``on_flow`` with True when the client
    reads too slowly (stop producing) and with False when it has caught up.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_close",
        "_protocol",
        "bytes_sent",
        "ended",
        "gone",
        "on_flow",
        "on_gone",
        "started",
        "status",
    )

    def __init__(
        self, protocol: ServerProtocol, *, bodyless: bool, chunks: bool, close: bool
    ) -> None:
        self._protocol = protocol
        self._bodyless = bodyless  # HEAD: headers only
        self._chunked = chunks  # HTTP/1.0 clients get close-delimited answers
        self._close = close or not chunks
        self.started = False
        self.ended = False
        self.gone = False
        self.status = 0
        self.bytes_sent = 0
        self.on_gone: Callable[[], object] | None = None
        self.on_flow: Callable[[bool], object] | None = None

    @property
    def slow(self) -> bool:
        """The client's buffer is full; what is written now waits in memory."""
        return self._protocol.write_paused

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer. ``headers`` are complete lines without content-length."""
        if self.gone or self.ended:
            return
        self.started = True
        self.status = status
        close = self._close or self._protocol.closing
        head = b"%b%b%bcontent-length: %d\r\n%b\r\n" % (
            status_line(status),
            self._protocol.date(),
            headers,
            len(body),
            b"connection: close\r\n" if close else b"",
        )
        self._close = close
        self.bytes_sent += len(body)
        self._protocol.transmit(head if self._bodyless else head + body)
        self._finish()

    def start(self, status: int, headers: bytes, first: bytes = b"") -> None:
        """Begin a streamed answer; ``first`` travels in the same packet as the head."""
        if self.gone or self.started:
            return
        self.started = True
        self.status = status
        if self._protocol.closing:
            self._close = True
        head = b"%b%b%b%b%b\r\n" % (
            status_line(status),
            self._protocol.date(),
            headers,
            b"transfer-encoding: chunked\r\n" if self._chunked else b"",
            b"connection: close\r\n" if self._close else b"",
        )
        if first and not self._bodyless:
            self.bytes_sent += len(first)
            head += self._frame(first)
        self._protocol.transmit(head)

    def write(self, data: bytes) -> None:
        """More of a streamed answer; one call is one chunk on the wire."""
        if self.gone or self.ended or self._bodyless or not data:
            return
        self.bytes_sent += len(data)
        if self._chunked:
            self._protocol.transmit(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._protocol.transmit(data)

    def end(self, last: bytes = b"") -> None:
        """Finish a streamed answer, with ``last`` as its final bytes."""
        if self.gone or self.ended:
            return
        tail = b""
        if last and not self._bodyless:
            self.bytes_sent += len(last)
            tail = self._frame(last)
        if self._chunked and not self._bodyless:
            tail += b"0\r\n\r\n"
        if tail:
            self._protocol.transmit(tail)
        self._finish()

    def abort(self) -> None:
        """Cut the connection: the client must see that the answer broke."""
        if not self.gone and not self.ended:
            self.ended = True
            self._protocol.abort()

    def drop(self) -> None:
        """Cut the connection as if the client had left: ``on_gone`` will be called."""
        self._protocol.abort()

    def _frame(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _finish(self) -> None:
        self.ended = True
        self.on_gone = self.on_flow = None
        self._protocol.reply_ended(self._close)

    # Called by the protocol.

    def client_left(self) -> None:
        """The connection is gone."""
        if self.ended or self.gone:
            return
        self.gone = True
        callback, self.on_gone, self.on_flow = self.on_gone, None, None
        if callback is not None:
            callback()

    def flow(self, paused: bool) -> None:
        """The connection's write buffer passed a water mark."""
        if self.on_flow is not None:
            self.on_flow(paused)
