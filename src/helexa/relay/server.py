"""The server side of a connection: requests in, answers in order.

One ``ServerProtocol`` per connection. Requests are parsed as they come (``reader``) and answered
one after the other: a pipelined request waits in ``_queue`` until the answer before it has ended.

::

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
from typing import Any

from helexa.relay.connections import Connections
from helexa.relay.http1 import BadRequest
from helexa.relay.reader import HEAD, IDLE, RequestReader
from helexa.relay.reply import Reply
from helexa.relay.request import Head, Request
from helexa.relay.vanished import closed, lost

_LINGER_SECS = 2.0  # a refused client gets this long to read why, while its bytes are thrown away
_QUEUED_BYTES = 1 << 20  # bodies that wait behind an answer; more are not read
_BODY = frozenset((b"content-length", b"transfer-encoding"))  # who sends them sends a body first
_SLOWEST = 1000.0  # bytes/s that a body must average once its first ``body_secs`` are over


class ServerProtocol(RequestReader):
    """One client connection."""

    __slots__ = (
        "__weakref__",
        "_active",
        "_boxed",
        "_handling",
        "_linger_until",
        "_lost",
        "_moved",
        "_queue",
        "_reading",
        "_shared",
        "_standing",
        "_transport",
        "_write",
        "pauses",
        "write_paused",
    )

    def __init__(self, shared: Connections) -> None:
        super().__init__(shared.loop, shared.limits)
        self._shared = shared
        self._transport: Any = None
        self._write: Any = None
        self._queue: deque[Request] = deque()
        self._active: Reply | None = None
        self._boxed = -1
        self._handling = False
        self._reading = True
        self._lost = False
        self._linger_until = 0.0
        self._standing = (0, 0)
        self._moved = 0.0
        self.pauses = 0
        self.write_paused = False

    @property
    def busy(self) -> bool:
        """An answer is under way or waits for its turn."""
        return self._active is not None or bool(self._queue) or self._refusal is not None

    @property
    def idle(self) -> bool:
        """Nothing is under way, and nothing of a request has come."""
        return not self.busy and not self.closing and self._stage == IDLE

    @property
    def unsent(self) -> int:
        """Bytes that the client has not taken yet."""
        size: int = self._transport.get_write_buffer_size()
        return size

    @property
    def standing(self) -> tuple[int, int]:
        """Another value after everything that the client takes."""
        return self.unsent, self.pauses

    def _unbox(self) -> None:
        """What was posted leaves before anything else is done with the connection."""
        outbox = self._shared.outbox
        if outbox is not None and self._boxed == outbox.turn:
            outbox.flush()

    # ── connection ──────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._write = transport.write  # type: ignore[attr-defined]  # bound once: twice a request
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._peer = str(peer[0]).removeprefix("::ffff:")  # of IPv4, at an address of both
        self._secure = transport.get_extra_info("sslcontext") is not None
        shared = self._shared
        self._transport.set_write_buffer_limits(shared.limits.write_high_water)
        shared.open.add(self)
        self._heard = self._moved = shared.loop.time()
        shared.wheel.watch(self._heard + shared.step, self)
        if shared.draining and not shared.patience:
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._shared.open.discard(self)
        self._lost = True
        self._body.clear()
        self._client_left()
        # The parser holds our callbacks and a refusal its traceback: cycles that would leave
        # every closed connection to the collector.
        self._parser = self._refusal = None

    def eof_received(self) -> bool:
        self._unbox()
        self._client_left()
        return False  # closes the transport once what was written has been taken

    def _client_left(self) -> None:
        self.closing = True
        self._queue.clear()
        active, self._active = self._active, None
        if active is not None:
            active.client_left()

    def pause_writing(self) -> None:
        self.write_paused = True
        self.pauses += 1
        if self._active is not None:
            self._active.flow(True)

    def resume_writing(self) -> None:
        self.write_paused = False
        if self._active is not None:
            self._active.flow(False)
        elif self._queue:
            self._next()

    # ── deadlines, asked by the wheel ───────────────────────────────────────────────────────

    def watch(self, now: float) -> float | None:
        """Look at every deadline of the connection; returns when to look again."""
        if self._lost:
            return None
        again = now + self._shared.step
        lingered = self._linger_until and now >= self._linger_until
        if self._stuck(now) or lingered or self._vanished():
            self.abort()
        elif self.closing:
            pass  # what is written still has to be taken
        elif self.busy:
            if not self._reading and (self._transport.is_closing() or closed(self._socket)):
                self.abort()  # its end is behind bytes that we do not read
        elif now >= self._due():
            if self._stage == IDLE:
                self._close()
            else:
                self._refuse(
                    BadRequest(408, "request_timeout", "The request took too long to arrive.")
                )
        return again

    def _due(self) -> float:
        limits = self._limits
        if self._stage == IDLE:
            return self._heard + limits.keep_alive_secs
        if self._stage == HEAD:
            return self._began + limits.head_secs
        return min(self._heard, self._began + self._body_bytes / _SLOWEST) + limits.body_secs

    def _stuck(self, now: float) -> bool:
        """The client has taken nothing of what waits for it for ``stall_secs``.

        Only looked at while nothing is being added, so that a smaller rest means progress.
        """
        standing = self.standing
        adding = self._active is not None and not self.write_paused
        if not standing[0] or adding or standing != self._standing:
            self._standing = standing
            self._moved = now
            return False
        return now - self._moved >= self._limits.stall_secs

    def _vanished(self) -> bool:
        """Who is to get something is not there any more, and has not said so."""
        waits = self._active is not None or self.unsent
        return bool(waits) and lost(self._socket, self._limits.lost_secs)

    @property
    def _socket(self) -> Any:
        return self._transport.get_extra_info("socket")

    # ── requests ────────────────────────────────────────────────────────────────────────────

    def _accept(self, request: Request) -> None:
        """Hand a request over; behind an answer that is under way or not taken, later."""
        if self._active is not None or self._handling or self.write_paused:
            self._wait(request)
            return
        shared, head = self._shared, request.head
        outbox = shared.outbox
        if outbox is not None and self._boxed == outbox.turn:
            outbox.flush()  # as ``_unbox``: what comes now may be written at once
        self._active = reply = Reply(
            self,
            self._write,
            shared.date,
            head.head_only,
            head.chunked,
            not head.keep_alive or shared.draining,
        )
        self._handling = True
        try:
            shared.app.handle(request, reply)
        except Exception as error:  # noqa: BLE001  # inside the parser it would pass for bad bytes
            self._loop.call_exception_handler(
                {"message": "a request handler raised", "exception": error, "protocol": self}
            )
            self.abort()
        finally:
            self._handling = False

    def _wait(self, request: Request) -> None:
        self._queue.append(request)
        if self._reading and self._full():
            self._reading = False
            self._transport.pause_reading()

    def _full(self) -> bool:
        queue = self._queue
        if not queue:
            return False
        return (
            len(queue) >= self._limits.pipeline or sum(len(r.body) for r in queue) > _QUEUED_BYTES
        )

    def _send_continue(self) -> None:
        # A 100 must not overtake the answers of requests pipelined before it.
        if self._continue and not self.busy and not self.closing:
            self._continue = False
            self._unbox()
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _foresee(self, head: Head) -> None:
        refusal = self._shared.foresee(head)
        if refusal is not None:
            raise refusal

    def _switch(self, rest: memoryview) -> bool:
        """Give the connection away, unless something is still to be done with it."""
        parser = self._parser
        if self.busy or len(rest) or not _BODY.isdisjoint(self._headers):
            return False
        if parser.get_method() != b"GET" or parser.get_http_version() != "1.1":
            return False
        self._unbox()
        if not self._shared.switch(self._transport, self._url, self._headers):
            return False
        self._shared.open.discard(self)
        self._lost = self.closing = True
        self._parser = None
        return True

    def _refuse(self, error: BadRequest) -> None:
        """Answer what could not be parsed, after the answers before it, and close."""
        if not self.closing and self._refusal is None:
            self._refusal = error.with_traceback(None)
            error.url, error.headers = self._url, self._headers
            self._next()

    # ── answers ─────────────────────────────────────────────────────────────────────────────

    def _next(self) -> None:
        """Hand over queued requests until one does not answer at once."""
        if self._handling:
            return
        queue = self._queue
        while queue and self._active is None and not self.closing and not self.write_paused:
            self._accept(queue.popleft())
        if self._refusal is not None and self._active is None and not self.closing:
            self._answer_refusal(self._refusal)
        if not self._reading and not self.closing and not self._full():
            self._reading = True
            self._transport.resume_reading()

    def _answer_refusal(self, error: BadRequest) -> None:
        self._unbox()
        headers, body = self._shared.app.refuse(error)
        date = self._shared.date
        self._active = Reply(self, self._write, date, False, True, True)
        self._active.send(error.status, headers, body)

    def reply_ended(self, close: bool, last: bytes = b"") -> None:
        """The active answer has been written whole, but for its ``last`` bytes."""
        if last:
            outbox = self._shared.outbox
            if close or outbox is None:
                self._write(last)
            else:
                self._boxed = outbox.turn
                outbox.put(self._write, last)
        self._active = None
        self._heard = self._loop.time()
        shared = self._shared
        if close or self.closing or (shared.draining and not shared.patience):
            self.closing = True
            self._queue.clear()
            self._unbox()
            if self._refusal is not None:
                self._linger()
            else:
                self._transport.close()
        else:
            if self._queue or self._refusal is not None:
                self._next()
            if self._continue:
                self._send_continue()

    def _close(self) -> None:
        self._unbox()
        self.closing = True
        self._transport.close()

    def _linger(self) -> None:
        """Close in two steps (RFC 9112, 9.6).

        A refused client may still be sending; closing now would reset the connection and take
        our answer away before it is read.
        """
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._linger_until = self._heard + _LINGER_SECS
        self._shared.wheel.watch(self._linger_until, self)

    def abort(self) -> None:
        """Cut the connection without an orderly end."""
        self.closing = True
        self._transport.abort()

    def close_soon(self) -> None:
        """Let the answer that is being made say that it is the last."""
        if self._active is not None and not self._queue:
            self._active.close_behind()

    def close_when_idle(self, before: float) -> None:
        """Close if nothing is under way, and nothing has been since ``before`` (loop's time)."""
        if self.idle and self._heard <= before:
            self._close()
