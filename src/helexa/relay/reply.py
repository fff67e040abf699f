"""The server's half of one exchange: an answer, framed for the client that asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from helexa.relay.http1 import DateHeader
from helexa.relay.plainly import SIZE_LINES

if TYPE_CHECKING:
    from helexa.relay.server import ServerProtocol

_NO_CONTENT = frozenset((204, 304))  # RFC 9110, 8.6: no body, and 204 no content-length either
_SMALL = len(SIZE_LINES)
_COPIED = 65_536  # a body below this travels in one write with its head


class Reply:
    """One answer: either ``send`` once, or ``start``, ``write`` …, ``end``.

    Every method is safe after the client has gone: bytes then go nowhere. ``on_gone`` is called
    once when the client leaves before the answer ended; ``on_flow`` with True when the client
    reads too slowly (stop producing) and with False when it has caught up.

    Attributes:
        passes: Whole chunks may go to ``transmit`` as they are, framing and all; whoever passes
            them on counts ``bytes_sent``. The path of every token.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_close",
        "_date",
        "_mute",
        "_protocol",
        "bytes_sent",
        "ended",
        "gone",
        "on_flow",
        "on_gone",
        "passes",
        "started",
        "status",
        "transmit",
    )

    def __init__(
        self,
        protocol: ServerProtocol,
        write: Callable[[bytes], object],
        date: DateHeader,
        head_only: bool,
        chunked: bool,
        close: bool,
    ) -> None:
        self._protocol = protocol
        self.transmit = write  # straight to the transport
        self._date = date
        self._mute = True  # no bytes of a body may leave: not begun, ended, gone or HEAD
        self.passes = False
        self._bodyless = head_only
        self._chunked = chunked  # older clients get close-delimited answers
        self._close = close or not chunked
        self.started = False
        self.ended = False
        self.gone = False
        self.status = 0
        self.bytes_sent = 0
        self.on_gone: Callable[[], object] | None = None
        self.on_flow: Callable[[bool], object] | None = None

    @property
    def standing(self) -> tuple[int, int]:
        """Another value after everything that a slow client takes."""
        return (0, 0) if self.gone else self._protocol.standing

    @property
    def slow(self) -> bool:
        """The client's buffer is full; what is written now waits in memory."""
        return self._protocol.write_paused

    def close_behind(self) -> None:
        """Let the answer say that the connection closes after it, unless it has begun."""
        if not self.started:
            self._close = True

    def send(self, status: int, headers: bytes, body: bytes, stated: bytes | None = None) -> None:
        """The whole answer. ``headers`` are complete lines without content-length.

        When another one has begun, that one is cut: a second head inside it would be data.

        Args:
            stated: The length of a body that was not made, since only the head was asked for.
        """
        if self.gone or self.ended:
            return
        if self.started:
            self.abort()
            return
        self.started = True
        self.status = status
        close = self._close or self._protocol.closing
        size = len(body)
        if status in _NO_CONTENT:
            body, length = b"", b""
        else:
            length = b"content-length: %d\r\n" % size
            if stated is not None and self._bodyless:
                length = b"content-length: %b\r\n" % stated
        if self._bodyless:
            body = b""
        else:
            self.bytes_sent += size
        head = b"%b%b%b%b\r\n" % (
            self._date.lines(status),
            headers,
            length,
            b"connection: close\r\n" if close else b"",
        )
        if size >= _COPIED:
            self.transmit(head)
            head = b""
        self.ended = True
        self.on_gone = self.on_flow = None
        self._protocol.reply_ended(close, head + body)

    def start(self, status: int, headers: bytes, first: bytes = b"") -> None:
        """Begin a streamed answer; ``first`` travels in the same packet as the head."""
        if self.gone or self.started or self.ended:
            return
        self.started = True
        self._mute = self._bodyless
        self.passes = self._chunked and not self._bodyless
        self.status = status
        if self._protocol.closing:
            self._close = True
        head = b"%b%b%b%b\r\n" % (
            self._date.lines(status),
            headers,
            b"transfer-encoding: chunked\r\n" if self._chunked else b"",
            b"connection: close\r\n" if self._close else b"",
        )
        if first and not self._bodyless:
            self.bytes_sent += len(first)
            head += self._frame(first)
        self.transmit(head)

    def write(self, data: bytes) -> None:
        """More of a streamed answer; one call is one chunk on the wire."""
        if self._mute or not data:
            return
        size = len(data)
        self.bytes_sent += size
        if self._chunked:  # formatting costs twice as much as adding
            line = SIZE_LINES[size] if size < _SMALL else b"%x\r\n" % size
            data = line + data + b"\r\n"
        self.transmit(data)

    def end(self, last: bytes = b"") -> None:
        """Finish a streamed answer, with ``last`` as its final bytes.

        An answer that was never begun is cut: there is nothing true to send.
        """
        if self.gone or self.ended:
            return
        if not self.started:
            self.abort()
            return
        tail = b""
        if last and not self._bodyless:
            self.bytes_sent += len(last)
            tail = self._frame(last)
        if self._chunked and not self._bodyless:
            tail += b"0\r\n\r\n"
        if tail:
            self.transmit(tail)
        self._finish()

    def abort(self) -> None:
        """Cut the connection: the client must see that the answer broke."""
        if not self.gone and not self.ended:
            self.ended = self._mute = True
            self.passes = False
            self.on_gone = self.on_flow = None
            self._protocol.abort()

    def drop(self) -> None:
        """Cut the connection as if the client had left: ``on_gone`` will be called."""
        if not self.gone and not self.ended:
            self._protocol.abort()

    def _frame(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _finish(self) -> None:
        self.ended = self._mute = True
        self.passes = False
        self.on_gone = self.on_flow = None
        self._protocol.reply_ended(self._close)

    # Called by the protocol.

    def client_left(self) -> None:
        """The connection is gone."""
        if self.ended or self.gone:
            return
        self.gone = self._mute = True
        self.passes = False
        callback, self.on_gone, self.on_flow = self.on_gone, None, None
        if callback is not None:
            callback()

    def flow(self, paused: bool) -> None:
        """The connection's write buffer passed a water mark."""
        if self.on_flow is not None:
            self.on_flow(paused)
