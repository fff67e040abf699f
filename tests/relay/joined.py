"""Two ends of a multiplexed connection and a wire between them that is moved by hand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from helexa.relay.multiplex import FRAME, Multiplex


class Turns:
    """A loop of which every turn is taken by hand."""

    def __init__(self) -> None:
        self.soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self.errors: list[dict[str, Any]] = []
        self.now = 0.0

    def call_soon(self, call: Callable[..., object], *args: Any) -> None:
        self.soon.append((call, args))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def time(self) -> float:
        return self.now

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            call, args = self.soon.popleft()
            call(*args)


class Wire:
    """One end's transport: bytes wait in ``sent`` until somebody carries them over."""

    def __init__(self, loop: Turns, high: int) -> None:
        self.loop = loop
        self.high = high
        self.sent = bytearray()
        self.paused = self.closing = False
        self.end: Multiplex | None = None

    def set_write_buffer_limits(self, _high: int) -> None:
        pass  # a kernel that takes less than that is of use here

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        assert data
        assert not self.closing
        self.sent += data
        self._level()

    def take(self, size: int) -> bytes:
        """The kernel takes some of it."""
        data = bytes(self.sent[:size])
        del self.sent[:size]
        self._level()
        return data

    def _level(self) -> None:
        assert self.end is not None
        if not self.paused and len(self.sent) > self.high:
            self.paused = True
            self.end.pause_writing()
        elif self.paused and len(self.sent) <= self.high // 4:
            self.paused = False
            self.end.resume_writing()

    def abort(self) -> None:
        self.sent.clear()
        self.close()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            assert self.end is not None
            self.loop.call_soon(self.end.connection_lost, None)


class End(asyncio.Protocol):
    """One end of a channel. Told of everything in order, of each thing once, never while it is
    being told of something else."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.got = bytearray()
        self.wrote = bytearray()
        self.over: list[Exception | None] = []
        self.left = self.aborted = self.paused = False
        self.trips = ""  # where it raises
        self._inside = False

    def _told(self, of: str) -> None:
        assert not self._inside or of == "pause"  # by its own write, as with any transport
        assert not self.over, f"{of} after the end"
        if of == self.trips:
            raise ZeroDivisionError

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert self.transport is None
        self.transport = transport
        self._told("made")

    def data_received(self, data: bytes) -> None:
        assert data
        assert not self.left
        self.got += data
        self._told("data")

    def pause_writing(self) -> None:
        assert not self.paused
        self.paused = True
        self._told("pause")

    def resume_writing(self) -> None:
        assert self.paused
        self.paused = False
        self._told("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        try:
            self._told("lost")
        finally:
            self.over.append(exc)

    def act(self, call: Callable[..., object], *args: object) -> None:
        """Use the transport: nothing may come back before that has returned."""
        self._inside = True
        try:
            call(*args)
        finally:
            self._inside = False

    def write(self, data: bytes) -> None:
        if not self.left and not self.over:
            self.wrote += data
        self.act(self.transport.write, data)

    def leave(self, *, abort: bool = False) -> None:
        self.left = True
        self.aborted |= abort
        self.act(self.transport.abort if abort else self.transport.close)


class Joined:
    """Two ends; ``near`` begins the channels."""

    def __init__(self, high: int = 1 << 20) -> None:
        self.loop = Turns()
        self.accepted: list[End] = []
        self.asked: list[End] = []
        self.wires = (Wire(self.loop, high), Wire(self.loop, high))
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.near = Multiplex(loop)
        self.far = Multiplex(loop, self._accept)
        for wire, end in zip(self.wires, (self.near, self.far), strict=True):
            wire.end = end
            end.connection_made(cast("asyncio.Transport", wire))

    def _accept(self) -> End:
        self.accepted.append(End())
        return self.accepted[-1]

    def open(self) -> End:
        self.asked.append(self.near.channel(End))
        return self.asked[-1]

    def pair(self) -> tuple[End, End]:
        near = self.open()
        self.settle()
        return near, self.accepted[-1]

    def carry(self, side: int, size: int) -> None:
        data = self.wires[side].take(size)
        to = self.wires[1 - side]
        if data and not to.closing:
            assert to.end is not None
            to.end.data_received(data)

    def settle(self) -> None:
        """Until nothing is on its way."""
        while self.loop.soon or any(w.sent for w in self.wires if not w.closing):
            self.loop.turn()
            for side in (0, 1):
                if not self.wires[side].closing:
                    self.carry(side, 1 << 30)

    def empty(self) -> bool:
        ends = (self.near, self.far)
        return not any(e._channels or e._receivers or e._out for e in ends)


class Once:
    """A wheel that asks once, when it is told to."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.target: Any = None

    def watch(self, due: float, target: Any) -> None:
        self.due, self.target = due, target

    def until(self, loop: Turns, now: float) -> None:
        while self.due is not None and self.due <= now:
            loop.now = self.due
            self.due = self.target.watch(self.due)


def frame(number: int, kind: int, payload: bytes = b"") -> bytes:
    return FRAME.pack(number, len(payload) << 3 | kind) + payload
