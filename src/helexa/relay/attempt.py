"""One try at getting an answer from one upstream.

An ``Attempt`` sends the request and hands the answer on as it comes: a streamed answer in whole
events (everything up to the last blank line; the rest is held, so that keep-alives may stand
between events at any time), anything else as one body. It knows its deadlines per phase and
never a total one. What to do about a failure is the caller's business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import msgspec

from helexa.relay.errand import Signal, in_task
from helexa.relay.pool import ConnectFailed, UpstreamPool
from helexa.relay.upstream import Failure, Headers, UpstreamConnection
from helexa.relay.wheel import Wheel

Events = Callable[[bytes], None]

_LOOK_SECS = 2.0  # so long a deadline's entry (80 bytes) outlives a request that has ended


class Deadlines(msgspec.Struct, frozen=True):
    """Seconds per phase; a connection's own deadline belongs to its pool."""

    send: float = 30.0
    first_byte: float = 600.0
    between_bytes: float = 300.0
    shortest: float = 0.0  # how often it suffices to look; derived

    def __post_init__(self) -> None:
        least = min(self.send, self.first_byte, self.between_bytes, _LOOK_SECS)
        msgspec.structs.force_setattr(self, "shortest", least)


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
        self._done: asyncio.Future[None] | Signal | None = None
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

    async def run(self, head: bytes, body: bytes, *, direct: bool = False) -> None:
        """Send the request and return when the answer has ended, well or not.

        A kept connection that closes before it answered is tried once more on a new one. When
        cancelled, the upstream connection is dropped at once.

        Args:
            head: Request line and header lines with the blank line.
            direct: We run as an errand, not as a task: wake up where the answer ends.
        """
        self.started_at = monotonic()
        fresh = False
        while True:
            connection = None if fresh else self._pool.take_idle()
            if connection is None:
                try:
                    connection = await in_task(self._pool.take(fresh=fresh))
                except ConnectFailed as error:
                    self.failure = error.failure
                    return
            await self._exchange(connection, head, body, direct)
            if self.failure is not Failure.STALE or fresh:
                return
            fresh, self.failure = True, None

    async def _exchange(
        self, connection: UpstreamConnection, head: bytes, body: bytes, direct: bool
    ) -> None:
        self._connection = connection
        self._done = done = Signal() if direct else self._loop.create_future()
        self._last = self.connected_at = monotonic()
        try:
            if not self._stopped:  # else somebody called ``stop`` while there was no connection
                if self._paused:
                    connection.pause()
                connection.send(head, body, self)
                self._wheel.watch(self._last + self._deadlines.shortest, self)
                await done
        finally:
            # Only an exchange that has not ended by itself still has a connection.
            if self._connection is not None:
                self._connection.abandon()
                self._connection = None

    def pause(self, paused: bool) -> None:
        """Back-pressure from the reader: stop or resume reading from the upstream."""
        self._paused = paused
        self._last = monotonic()
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

    def watch(self, now: float) -> float | None:
        """Look at the deadline of the phase; called by the wheel."""
        connection = self._connection
        if connection is None or self._done is None or self._done.done():
            return None
        if self._paused:
            return now + self._deadlines.shortest
        if self.bytes_in:
            due, failure = self._deadlines.between_bytes, Failure.TIMEOUT_BETWEEN
        elif connection.unsent:
            due, failure = self._deadlines.send, Failure.TIMEOUT_SEND
        else:
            due, failure = self._deadlines.first_byte, Failure.TIMEOUT_FIRST
        if self._last + due > now:
            return min(self._last + due, now + self._deadlines.shortest)
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
        self._last = monotonic()

    def on_body(self, data: bytes) -> None:
        self._last = now = monotonic()
        if not self.bytes_in:
            self.first_at = now
        self.bytes_in += len(data)
        if self._streaming:
            # The path of every token: no call that is not needed.
            if self._held or not data.endswith(b"\n\n"):
                data = self._whole(data)
            if data:
                self._hand_on(data)
            return
        self._size += len(data)
        if self._size > self._max_body:
            self._give_up(Failure.TOO_LARGE)
        else:
            self._parts.append(data)

    def _hand_on(self, events: bytes) -> None:
        try:
            self._on_events(events)  # type: ignore[misc]  # set whenever _streaming is
        except Exception as error:  # noqa: BLE001  # a bug in the hook must reach the caller
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
                self._hand_on(rest + b"\n\n")
        self._end()

    def on_failure(self, failure: Failure) -> None:
        self._connection = None
        self.failure = failure
        self._end()
