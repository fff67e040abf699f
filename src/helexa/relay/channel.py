"""One connection of many: a transport over a ``Multiplex``.

::

    open ──close()──▶ closing, while the other side holds ──▶ left ──▶ connection_lost
      │                                                        ▲
      ├──abort()───────────────────────────────────────────────┘
      └──the other side's CLOSE or ABORT──▶ gone ──▶ what waits to be read ──▶ connection_lost
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from helexa.relay.multiplex import Multiplex

MOST_WAITING = 64 << 20
"""Bytes that a channel keeps for a reader that is slow. Whoever heeds ``HOLD`` has sent a few
megabytes by the time it comes; whoever does not must not fill the memory."""

CLOSE, ABORT, HOLD, GO, OPEN = 1, 2, 3, 4, 5
"""What is said of a channel beside its bytes; see ``multiplex``."""


def _dropped(_data: bytes) -> None:
    """Nobody reads a channel any more that has been closed here."""


class Channel(asyncio.Transport):
    """One connection of many: the transport of the protocol that speaks over it."""

    __slots__ = (
        "_closing",
        "_direct",
        "_error",
        "_full",
        "_gone",
        "_got",
        "_held",
        "_kept",
        "_multiplex",
        "_number",
        "_paused",
        "_protocol",
        "_put",
        "_reading",
        "_waiting",
    )

    def __init__(self, multiplex: Multiplex, number: int) -> None:
        super().__init__()
        self._multiplex = multiplex
        self._number = number
        self._put = multiplex.put
        self._protocol: Any = None
        self._direct = True  # what is written leaves: neither held nor closing
        self._held = False  # the other side has asked us to wait
        self._full = multiplex.full
        self._paused = False  # so the protocol has been told
        self._kept: list[bytes] = []  # what waits for the other side
        self._reading = True
        self._got: deque[bytes] | None = None  # what waits for us, while we do not read ...
        self._waiting = 0  # ... and its bytes
        self._closing = False
        self._gone = False  # nothing is said of it any more, in either direction
        self._error: Exception | None = None

    def begin(self, protocol: Any) -> None:
        """Have ``protocol`` speak over it."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._flow()

    # ── asyncio.Transport ───────────────────────────────────────────────────────────────────

    def write(self, data: bytes) -> None:  # type: ignore[override]  # nobody writes anything else
        if self._direct:  # the path of every token
            self._put(self._number, data)
        elif not self._closing:
            self._kept.append(data)

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._direct = False
            self._multiplex.direct(self._number, _dropped)
            if self._got:
                self._got.clear()
            if not self._kept:
                self._leave(CLOSE)
        elif self._gone:
            self._lose_soon()  # what waits to be read is not wanted any more

    def abort(self) -> None:
        self._kept.clear()
        if self._gone:
            self._lose_soon()
        else:
            self._closing = True
            self._direct = False
            self._leave(ABORT)

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        if self._reading and not self._closing:
            self._reading = False
            if self._got is None:
                self._got = deque()
                self._waiting = 0
                self._multiplex.direct(self._number, self._store)
            self._multiplex.tell(self._number, HOLD)

    def _store(self, data: bytes) -> None:
        if self._got is not None:
            self._got.append(data)
            self._waiting += len(data)
            if self._waiting > MOST_WAITING:
                self._error = ConnectionAbortedError("the peer does not wait for a slow reader")
                self.abort()

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            if not self._closing:
                self._multiplex.tell(self._number, GO)
            self._multiplex.loop.call_soon(self._catch_up)

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self._kept)) + (self._multiplex.unsent if self._full else 0)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The connection under all channels has limits, and each one's reader holds it."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._multiplex.extra_info(name, default)

    def can_write_eof(self) -> bool:
        return False

    # ── told by the connection ──────────────────────────────────────────────────────────────

    def hold(self, held: bool) -> None:
        """The other side's reader is slow, or has caught up."""
        self._held = held
        self._direct = not held and not self._closing
        if not held:
            kept, self._kept = self._kept, []
            for data in kept:
                self._put(self._number, data)
            if self._closing and not self._gone:
                self._leave(CLOSE)
        self._flow()

    def fill(self, full: bool) -> None:
        """The connection under all channels takes nothing for now, or does again."""
        self._full = full
        self._flow()

    def _flow(self) -> None:
        paused = self._held or self._full
        if paused is not self._paused and self._protocol is not None:
            self._paused = paused
            if paused:
                self._protocol.pause_writing()
            else:
                self._protocol.resume_writing()

    def ended(self, error: Exception | None) -> None:
        """The other side has ended it, or the connection under it has."""
        if not self._gone:
            self._gone = self._closing = True
            self._direct = False
            self._error = error
            self._kept.clear()
            if not self._got:
                self._lose()

    # ── its end ─────────────────────────────────────────────────────────────────────────────

    def _leave(self, kind: int) -> None:
        self._gone = True
        self._multiplex.forget(self._number)
        self._multiplex.tell(self._number, kind)
        self._lose_soon()

    def _lose_soon(self) -> None:
        if self._got:
            self._got.clear()
        self._multiplex.loop.call_soon(self._lose)

    def _lose(self) -> None:
        protocol, self._protocol = self._protocol, None  # it holds us: a cycle
        if protocol is not None:
            protocol.connection_lost(self._error)

    def _catch_up(self) -> None:
        """Hand on what came while nobody read."""
        got = self._got
        if got is None:
            return
        try:
            while got and self._reading:
                data = got.popleft()
                self._waiting -= len(data)
                self._protocol.data_received(data)
        except Exception as error:  # noqa: BLE001  # as one that raises when it comes by itself
            self._multiplex.raised(self, error)
        if got or not self._reading:
            return
        self._got = None
        if self._gone:
            self._lose()
        elif not self._closing:
            self._multiplex.direct(self._number, self._protocol.data_received)
