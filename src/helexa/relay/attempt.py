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

from helexa.relay.pool import ConnectFailed, UpstreamPool
from helexa.relay.unreached import Unreached
from helexa.relay.upstream import Failure, Forward, Headers, Sink, UpstreamConnection
from helexa.relay.wheel import Wheel

Events = Callable[[bytes], None]
Done = Callable[[], None]

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


class Attempt(Sink):
    """A request under way at one upstream: ``start`` it and be told, or await ``run``.

    Attributes:
        failure: None when the answer is complete as its framing says.
        ended: Nothing is under way, or no more.
        status: 0 when none came.
        unreached: Why no connection could be had.
        error: What ``on_events`` raised, a bug of the caller's; the exchange ends there.

    Args:
        on_events: Gets whole events of a 200 answer; None collects the body instead.
        max_body: Largest collected body and largest single event, bytes.
        forward: Offered whole chunks of a 200 answer as they came, framing and all, while nothing
            is held; what it does not take (returns False) goes to ``on_events``.
    """

    __slots__ = (
        "__weakref__",
        "_again",
        "_connecting",
        "_connection",
        "_deadlines",
        "_done",
        "_forward",
        "_held",
        "_last",
        "_loop",
        "_max_body",
        "_on_events",
        "_parts",
        "_paused",
        "_pool",
        "_request",
        "_size",
        "_stopped",
        "_streaming",
        "_unsent",
        "_wheel",
        "bytes_in",
        "connected_at",
        "ended",
        "error",
        "failure",
        "first_at",
        "headers",
        "status",
        "streams",
        "unreached",
    )

    def __init__(  # one call site per application, on the hot path
        self,
        pool: UpstreamPool,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        deadlines: Deadlines,
        on_events: Events | None = None,
        max_body: int = 64 * 1024 * 1024,
        forward: Forward | None = None,
    ) -> None:
        self._pool = pool
        self._wheel = wheel
        self._loop = loop
        self._deadlines = deadlines
        self._on_events = on_events
        self._max_body = max_body
        self._forward = forward
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._request: tuple[bytes, bytes] = (b"", b"")
        self._done: Done | None = None
        self._held = b""
        self._parts: list[bytes] = []
        self._size = 0
        self._again = False
        self._paused = False
        self._stopped = False
        self._streaming = False
        self._unsent = 0
        self._last = 0.0
        self.connected_at = self.first_at = 0.0
        self.bytes_in = 0
        self.ended = True
        self.streams = on_events is not None
        self.status = 0
        self.headers: Headers = []
        self.failure: Failure | None = None
        self.unreached: Unreached | None = None
        self.error: Exception | None = None

    @property
    def body(self) -> bytes:
        """What was collected: a plain answer, a refusal's body, the start of a broken event."""
        parts = self._parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def start(self, head: bytes, body: bytes, done: Done) -> None:
        """Send the request; ``done`` is called once, later, when the answer has ended.

        A kept connection that closes before it answered is tried once more on a new one.

        Args:
            head: Request line and header lines with the blank line.
            done: Called well or not, from where the answer's end was read; see ``failure``.
        """
        self._request = (head, body)
        self._done = done
        self.ended = False
        if self._stopped:  # before there was anything to stop
            self._loop.call_soon(self._end)
            return
        connection = self._pool.take_idle()
        if connection is not None:
            self._send(connection)
        else:
            self._connect(fresh=False)

    async def run(self, head: bytes, body: bytes) -> None:
        """As ``start``, and return when the answer has ended, well or not.

        When cancelled, the upstream connection is dropped at once.
        """
        ended = self._loop.create_future()
        self.start(head, body, lambda: None if ended.done() else ended.set_result(None))
        try:
            await ended
        finally:
            self.drop()
        if self.error is not None:
            raise self.error

    def _connect(self, *, fresh: bool) -> None:
        self._connecting = self._loop.create_task(self._take(fresh=fresh))

    async def _take(self, *, fresh: bool) -> None:
        try:
            connection = await self._pool.take(fresh=fresh)
        except ConnectFailed as error:
            self._connecting = None
            self.failure, self.unreached = error.failure, error.why
            self._end()
        else:
            self._connecting = None
            self._send(connection)

    def _send(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self._last = self.connected_at = now = monotonic()
        if self._paused:
            connection.pause()
        head, body = self._request
        connection.send(head, body, self)
        shortest = self._deadlines.shortest
        if shortest < connection.every:  # the first of its exchanges, or an impatient one
            connection.every = shortest
            self._wheel.watch(now + shortest, connection)

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
        """Enough: drop the upstream connection and end without a failure."""
        self._stopped = True
        self._abandon()
        self._end()

    def drop(self) -> None:
        """Drop the upstream connection; nobody is told."""
        self._done = self._on_events = self._forward = None  # who asked may hold us: a cycle
        self._request = (b"", b"")
        self.ended = True
        self._abandon()

    def lose(self) -> None:
        """The upstream has nothing of it any more: end as if the connection had broken."""
        self._give_up(Failure.RESET)

    @property
    def heard(self) -> float:
        """When the upstream last gave a sign, or the request was sent; 0 before that."""
        connection = self._connection
        if connection is None or self._paused:
            return 0.0
        return max(self._last, connection.heard) if self.bytes_in else self._last

    def _abandon(self) -> None:
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abandon()

    def watch(self, now: float) -> float | None:
        """Look at the deadline of the phase; returns when to look again."""
        connection = self._connection
        if connection is None:
            return None
        if self._paused:
            return now + self._deadlines.shortest
        lost_secs = self._pool.lost_secs
        if self.bytes_in:
            self._last = max(self._last, connection.heard)
            due, failure = self._deadlines.between_bytes, Failure.TIMEOUT_BETWEEN
        elif unsent := connection.unsent:
            if unsent != self._unsent:  # a long request on a slow line is no stalled one
                self._unsent, self._last = unsent, now
            due, failure = self._deadlines.send, Failure.TIMEOUT_SEND
        else:
            due, failure = self._deadlines.first_byte, Failure.TIMEOUT_FIRST
        if self._last + lost_secs <= now and connection.vanished(lost_secs):
            self._give_up(Failure.RESET)
            return None
        if self._last + due > now:
            return min(self._last + due, now + self._deadlines.shortest)
        self._give_up(failure)
        return None

    def _end(self) -> None:
        done, self._done = self._done, None
        self.ended = True
        if done is not None:
            self._request = (b"", b"")
            self._on_events = self._forward = None
            done()

    # ── Sink ────────────────────────────────────────────────────────────────────────────────

    def on_response(self, status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._streaming = status == 200 and self._on_events is not None

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
            connection = self._connection
            if connection is not None:
                connection.forward = None if self._held else self._forward
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
            self.error = error
            self.stop()

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

    def _give_up(self, failure: Failure) -> None:
        self._abandon()
        self.failure = failure
        self._end()

    def on_answer(self, headers: Headers, body: bytes) -> None:
        self._connection = None
        if self.streams or len(body) > self._max_body:
            Sink.on_answer(self, headers, body)
            return
        self.status, self.headers = 200, headers
        self.first_at = self._last = monotonic()
        self.bytes_in = len(body)
        self._parts = [body]
        self._end()

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
        if failure is Failure.STALE and not self._again:
            self._again = True
            self._connect(fresh=True)
        else:
            self.failure = failure
            self._end()
