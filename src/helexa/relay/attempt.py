"""One try at getting an answer from one upstream.

An ``Attempt`` sends the request and hands the answer on as it comes: a streamed answer in whole
events (everything up to the last blank line; the rest is held, so that keep-alives may stand
between events at any time), anything else as one body. It knows its deadlines per phase and
never a total one. What to do about a failure is the caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from helexa.relay.pool import ConnectFailed, UpstreamPool
from helexa.relay.upstream import Failure, Headers, UpstreamConnection
from helexa.relay.wheel import Wheel

Events = Callable[[bytes], None]


class Deadlines(msgspec.Struct, frozen=True):
    """Seconds per phase; a connection's own deadline belongs to its pool."""

    send: float = 30.0
    first_byte: float = 600.0
    between_bytes: float = 300.0


class Attempt:
    """A request under way at one upstream.

    After ``run``: ``failure`` is None when the answer is complete as its framing says; ``status``
    is 0 when none came; ``body`` is everything that did not go to ``on_events``.

    Args:
        on_events: Gets whole events of a 200 answer; None collects the body instead.
        max_body: Largest collected body and largest single event, bytes.
    """

    __slots__ = (
        "__weakref__",
        "_connection",
        "_deadlines",
        "_done",
        "_held",
        "_last",
        "_loop",
        "_max_body",
        "_on_events",
        "_parts",
        "_paused",
        "_pool",
        "_size",
        "_stopped",
        "_streaming",
        "_wheel",
        "bytes_in",
        "connected_at",
        "failure",
        "first_at",
        "headers",
        "started_at",
        "status",
    )

    def __init__(  # one call site per application, on the hot path
        self,
        pool: UpstreamPool,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        on_events: Events | None = None,
        max_body: int = 64 * 1024 * 1024,
    ) -> None:
        self._pool = pool
        self._wheel = wheel
        self._loop = loop
        self._deadlines = deadlines
        self._on_events = on_events
        self._max_body = max_body
        self._connection: UpstreamConnection | None = None
        self._done: asyncio.Future[None] | None = None
        self._held = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._paused = False
        self._stopped = False
        self._streaming = False
        self._last = 0.0
        self.started_at = self.connected_at = self.first_at = 0.0
        self.bytes_in = 0
        self.status = 0
        self.headers: Headers = []
        self.failure: Failure | None = None

    @property
    def body(self) -> bytes:
        """What was collected: a plain answer, a refusal's body, the start of a broken event."""
        return b"".join(self._parts)

    async def run(self, head: bytes, body: bytes) -> None:
        """Send the request and return when the answer has ended, well or not.

        A kept connection that closes before it answered is tried once more on a new one. When
        cancelled, the upstream connection is dropped at once.

        Args:
            head: Request line and header lines with the blank line.
        """
        self.started_at = self._loop.time()
        if await self._once(head, body, fresh=False) is Failure.STALE:
            self.failure = None
            await self._once(head, body, fresh=True)

    async def _once(self, head: bytes, body: bytes, *, fresh: bool) -> Failure | None:
        connection = None if fresh else self._pool.take_idle()
        if connection is None:
            try:
                connection = await self._pool.take(fresh=fresh)
            except ConnectFailed as error:
                self.failure = error.failure
                return self.failure
        self._connection = connection
        self._done = self._loop.create_future()
        self._last = self.connected_at = self._loop.time()
        try:
            if not self._stopped:  # else somebody called ``stop`` while there was no connection
                if self._paused:
                    connection.pause()
                connection.send(head, body, self)
                self._wheel.watch(self._last + self._shortest(), self)
                await self._done
        finally:
            # Only an exchange that has not ended by itself still has a connection.
            if self._connection is not None:
                self._connection.abandon()
                self._connection = None
        return self.failure

    def pause(self, paused: bool) -> None:
        """Back-pressure from the reader: stop or resume reading from the upstream."""
        self._paused = paused
        self._last = self._loop.time()
        if self._connection is not None:
            if paused:
                self._connection.pause()
            else:
                self._connection.resume()

    def stop(self) -> None:
        """Enough: drop the upstream connection and let ``run`` return without a failure."""
        self._stopped = True
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None
        self._end()

    def _shortest(self) -> float:
        return min(self._deadlines.send, self._deadlines.first_byte, self._deadlines.between_bytes)

    def watch(self, now: float) -> float | None:
        """Look at the deadline of the phase; called by the wheel."""
        connection = self._connection
        if connection is None or self._done is None or self._done.done():
            return None
        if self._paused:
            return now + self._shortest()
        if self.bytes_in:
            due, failure = self._deadlines.between_bytes, Failure.TIMEOUT_BETWEEN
        elif connection.unsent:
            due, failure = self._deadlines.send, Failure.TIMEOUT_SEND
        else:
            due, failure = self._deadlines.first_byte, Failure.TIMEOUT_FIRST
        if self._last + due > now:
            return min(self._last + due, now + self._shortest())
        connection.abandon()
        self.on_failure(failure)
        return None

    def _end(self) -> None:
        done = self._done
        if done is not None and not done.done():
            done.set_result(None)

    # ── Sink ────────────────────────────────────────────────────────────────────────────────

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._streaming = status == 200 and self._on_events is not None
        self._last = self._loop.time()

    def on_body(self, data: bytes) -> None:
        self._last = now = self._loop.time()
        if not self.bytes_in:
            self.first_at = now
        self.bytes_in += len(data)
        if self._streaming:
            self._events(data)
            return
        self._size += len(data)
        if self._size > self._max_body:
            self._give_up(Failure.TOO_LARGE)
        else:
            self._parts.append(data)

    def _events(self, data: bytes) -> None:
        if self._held or not data.endswith(b"\n\n"):
            data = self._whole(data)
            if not data:
                return
        try:
            self._on_events(data)  # type: ignore[misc]  # set whenever _streaming is
        except Exception as error:  # noqa: BLE001  # a bug in the caller's hook must reach the caller
            self._raise(error)

    def _whole(self, data: bytes) -> bytes:
        """What is held and ``data`` up to the last blank line; the rest is held."""
        held = self._held
        # Three bytes of what was held suffice to see a blank line that was cut.
        tail = held[-3:]
        seen = tail + data if tail else data
        cut = max(seen.rfind(b"\n\n") + 2, seen.rfind(b"\n\r\n") + 3)
        if cut <= max(len(tail), 2):
            # Pieces are joined once, not for each of them: an event may be large.
            self._parts.append(data)
            self._held = seen
            self._size += len(data)
            if self._size > self._max_body:
                self._give_up(Failure.TOO_LARGE)
            return b""
        rest = seen[cut:]
        whole = seen[:cut]
        if self._parts:
            whole = b"".join(self._parts) + whole[len(tail) :]
            self._parts = []
        if rest:
            self._parts.append(rest)
        self._held = rest
        self._size = len(rest)
        return whole

    def _raise(self, error: Exception) -> None:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)

    def _give_up(self, failure: Failure) -> None:
        if self._connection is not None:
            self._connection.abandon()
        self.on_failure(failure)

    def on_complete(self) -> None:
        self._connection = None
        if self._streaming and self._held:
            rest = b"".join(self._parts)
            self._parts, self._held = [], b""
            if rest.strip():
                self._events(rest + b"\n\n")
        self._end()

    def on_failure(self, failure: Failure) -> None:
        self._connection = None
        self.failure = failure
        self._end()
