"""The node's event stream: what changes, told to gateways as it happens.

One bounded ring holds the last events; a subscriber is a cursor into it. A slow subscriber or one
that resumes too late finds its place overwritten and gets a new snapshot instead, so nothing
grows with the number or the speed of readers::

    ring  [ seq 41 | 42 | 43 | 44 ]        cursor 40 → next is 41
            oldest             newest      cursor 17 → overwritten → snapshot, cursor 44

``seq`` grows by one per event of the node's life (``epoch``); a gateway does not see events that
concern another gateway's requests, so the numbers it sees may skip.

A piece of the stream costs far more than the events in it, at both ends. So the ends of requests,
the only events that come by hundreds and that nobody's answer waits for, travel together.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Literal

import msgspec

EventType = Literal[
    "model", "load_progress", "device", "admission", "grant_low", "request_end", "drain"
]
Snapshot = Callable[[], dict[str, object]]
"""Everything of ``/health`` and ``/models``, from cached values."""

KEEP_ALIVE = b": keep-alive\n\n"
_PATIENT_S = 0.05
"""So long the end of a request waits for others, unless another event takes it along."""
_PATIENT: frozenset[EventType] = frozenset(("request_end",))


@dataclass(slots=True)
class _Event:
    seq: int
    gateway: str | None
    kind: EventType
    body: dict[str, object]
    data: bytes = b""  # of what is patient, made when somebody reads it: many at once


@dataclass(slots=True, eq=False)
class Subscription:
    """One reader's place in the stream. Close it when the reader leaves."""

    bus: Bus
    gateway: str | None
    cursor: int
    closed: bool = False
    bell: asyncio.Event = field(default_factory=asyncio.Event)

    def close(self) -> None:
        """The reader has left."""
        self.closed = True
        self.bell.set()

    async def batches(self, keep_alive_s: float = 10.0) -> AsyncGenerator[bytes, None]:
        """Whole SSE events, as many as are due at once; a comment when nothing happens.

        Args:
            keep_alive_s: Seconds of silence before a comment is sent.
        """
        self.bus.subscriptions.add(self)
        try:
            while not (self.closed or self.bus.closed):
                self.bell.clear()
                due = self.bus.due(self)
                if due:
                    yield due
                    continue
                try:
                    async with asyncio.timeout(keep_alive_s):
                        await self.bell.wait()
                except TimeoutError:
                    yield KEEP_ALIVE
            last = b"" if self.closed else self.bus.due(self)
            if last:
                yield last
        finally:
            self.bus.subscriptions.discard(self)


class Bus:
    """Publishes events to any number of subscribers without ever waiting for one.

    Args:
        epoch: The node's life; part of every event and of the event id.
        snapshot: Called for a first or a lost subscriber.
        plain: Turns a body in which something is null into what is encoded.
        history: Events kept for ``Last-Event-ID``.
    """

    def __init__(
        self,
        epoch: int,
        snapshot: Snapshot,
        history: int = 1024,
        *,
        plain: Callable[[object], object] = lambda body: body,
    ) -> None:
        self.epoch = epoch
        self.seq = 0
        self.closed = False
        self.subscriptions: set[Subscription] = set()
        self._snapshot = snapshot
        self._ring: deque[_Event] = deque(maxlen=history)
        self._plain = plain
        self._waking = False
        self._encoder = msgspec.json.Encoder()

    def publish(
        self, kind: EventType, body: dict[str, object], *, gateway: str | None = None
    ) -> None:
        """Append an event and wake the readers, at once or soon.

        Args:
            body: Members beside ``seq``, ``epoch`` and ``type``.
            gateway: The only gateway that gets it; None is everybody.
        """
        self.seq += 1
        event = _Event(self.seq, gateway, kind, body)
        self._ring.append(event)
        if kind not in _PATIENT:
            self._told(event)
            self._wake()
        elif not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_later(_PATIENT_S, self._wake)

    def subscribe(self, gateway: str | None, last_event_id: str | None = None) -> Subscription:
        """A reader that resumes behind ``last_event_id``, or starts with a snapshot."""
        return Subscription(self, gateway, self._resume(last_event_id))

    def due(self, sub: Subscription) -> bytes:
        """What ``sub`` has not seen yet, and move its cursor to the newest event."""
        oldest = self._ring[0].seq if self._ring else self.seq + 1
        if sub.cursor < oldest - 1:
            sub.cursor = self.seq
            return self._encode(self.seq, "snapshot", self._snapshot())
        missed = self.seq - sub.cursor
        sub.cursor = self.seq
        if not missed:
            return b""
        tail = [self._ring[i] for i in range(len(self._ring) - missed, len(self._ring))]
        return b"".join([self._told(e) for e in tail if e.gateway in (None, sub.gateway)])

    def follows(self, gateway: str | None) -> bool:
        """Whether that gateway listens."""
        return any(sub.gateway == gateway for sub in self.subscriptions)

    def close(self) -> None:
        """End every stream after what is due."""
        self.closed = True
        self._wake()

    def _resume(self, last_event_id: str | None) -> int:
        """The cursor for an id such as ``1732150000-41``; −1 asks for a snapshot."""
        epoch, _, seq = (last_event_id or "").partition("-")
        if epoch != str(self.epoch) or not seq.isdecimal() or int(seq) > self.seq:
            return -1
        return int(seq)

    def _told(self, event: _Event) -> bytes:
        if not event.data:
            event.data, event.body = self._encode(event.seq, event.kind, event.body), {}
        return event.data

    def _encode(self, seq: int, kind: str, body: dict[str, object]) -> bytes:
        payload = {"seq": seq, "epoch": self.epoch, "type": kind, **body}
        data = self._encoder.encode(payload)
        if b"null" in data:  # asked first: what nobody has to leave anything out of costs a tenth
            data = self._encoder.encode(self._plain(payload))
        return b"id: %d-%d\nevent: %s\ndata: %s\n\n" % (
            self.epoch,
            seq,
            kind.encode(),
            data,
        )

    def _wake(self) -> None:
        self._waking = False
        for sub in self.subscriptions:
            sub.bell.set()
