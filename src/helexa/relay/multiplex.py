"""Many connections in one, for two that exchange many small pieces.

A kernel charges for every read and every write, and hardly for their size. Between a gateway and
a node pass hundreds of tokens every few milliseconds, each on the connection of its request; over
one connection those of one turn of the loop cost one write and one read. So both ends may agree
on frames, each a piece of a *channel*: to whoever uses it an HTTP/1.1 connection like any other,
for ``Channel`` is a transport.

::

    GET /multiplex, Upgrade: helexa-multiplex/1 ──▶
                          ◀── 101 Switching Protocols
    frame: channel (u32), size of the payload << 3 | kind (u32), payload; little-endian

    OPEN          a channel begins
    PIECE         bytes, as they would stand on a connection of their own
    CLOSE, ABORT  the channel has ended, well or not; what still comes for it is dropped
    HOLD, GO      whoever reads the channel is slow, or has caught up

The side that asked opens the channels and numbers them, upwards; a number is never used again.
Nothing waits longer than the turn of the loop in which it was written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from struct import Struct
from typing import Any, TypeVar

from helexa.relay.channel import ABORT, CLOSE, GO, HOLD, OPEN, Channel
from helexa.relay.vanished import lost
from helexa.relay.wheel import Wheel

VERSION = 1
PATH = b"/multiplex"
TOKEN = b"helexa-multiplex/1"
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: " + TOKEN + b"\r\n\r\n"
)

PIECE = 0
FRAME = Struct("<II")
MOST = 65_536
"""Bytes of a frame's payload; what is longer travels in several."""

_HEAD = FRAME.size
_HIGH_WATER = 1 << 20  # bytes that the kernel has not taken; beyond, every channel has to wait
_LARGE = 4096  # bytes of a piece that is not gathered with others ...
_MANY = 512  # ... and frames and pieces that are
_MOST_CHANNELS = 16_384  # twice what a pool of ours has; more is nobody of ours
_LOOK_SECS = 5.0
_LAST = 2**32 - 1

P = TypeVar("P", bound=asyncio.BaseProtocol)
Receive = Callable[[bytes], object]


class Multiplex(asyncio.Protocol):
    """The connection under its channels, at either end.

    Args:
        accept: Makes the protocol of a channel that the other side begins; None accepts none.
        on_lost: Told once that the connection is gone, before its channels are.

    Attributes:
        full: The kernel does not keep up with what is written.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accept: Callable[[], asyncio.Protocol] | None = None,
        on_lost: Callable[[Multiplex], object] = lambda _multiplex: None,
    ) -> None:
        self.loop = loop
        self.full = False
        self._accept = accept
        self._on_lost = on_lost
        self._transport: Any = None
        self._channels: dict[int, Channel] = {}
        self._receivers: dict[int, Receive] = {}
        self._last = 0  # the highest number so far
        self._out: list[bytes] = []
        self._rest = b""
        self._closing = False
        self._lost = False
        self._lost_secs = self._stall_secs = inf
        self._written = 0  # bytes, ever
        self._taken = 0  # of those, by the kernel
        self._moved = 0.0

    def __len__(self) -> int:
        """Channels that are open."""
        return len(self._channels)

    @property
    def usable(self) -> bool:
        """New channels may be begun."""
        return not self._closing and self._last < _LAST

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        size: int = self._transport.get_write_buffer_size()
        return size + sum(map(len, self._out))

    def extra_info(self, name: str, default: Any = None) -> Any:
        """Of the transport under it."""
        return self._transport.get_extra_info(name, default)

    def channel(self, protocol: Callable[[], P]) -> P:
        """Begin a channel, at once; the other side learns of it with its first bytes.

        Raises:
            ConnectionError: The connection is gone.
        """
        if not self.usable:
            raise ConnectionAbortedError("the multiplexed connection is gone")
        self._last += 1
        self.tell(self._last, OPEN)  # now: another one may have something to say before it
        return self._begin(self._last, protocol())

    def _begin(self, number: int, protocol: P) -> P:
        channel = self._channels[number] = Channel(self, number)
        self._receivers[number] = protocol.data_received  # type: ignore[attr-defined]
        try:
            channel.begin(protocol)
        except BaseException:
            channel.abort()
            raise
        return protocol

    def close(self) -> None:
        """Begin no more channels; end with the last one."""
        self._closing = True
        self._close_if_idle()

    def abort(self) -> None:
        """End it at once, with all of its channels."""
        self._closing = True
        self._transport.abort()

    def guard(self, wheel: Wheel, lost_secs: float, stall_secs: float) -> None:
        """Have it given up when nobody is there any more to say that it has ended.

        Args:
            lost_secs: So long what was sent may stay unacknowledged ...
            stall_secs: ... and what was written untaken by the other side.
        """
        self._lost_secs, self._stall_secs = lost_secs, stall_secs
        self._moved = self.loop.time()
        wheel.watch(self._moved + self._step, self)

    @property
    def _step(self) -> float:
        return min(_LOOK_SECS, self._lost_secs / 4, self._stall_secs / 4)

    def watch(self, now: float) -> float | None:
        """Whether the other side is there and reads; called by the wheel."""
        if self._lost:
            return None
        waits = self._transport.get_write_buffer_size()
        taken = self._written - waits
        if not waits or taken != self._taken:
            self._taken, self._moved = taken, now
        stalled = now - self._moved >= self._stall_secs
        if stalled or lost(self.extra_info("socket"), self._lost_secs):
            self.abort()
            return None
        return now + self._step

    def _close_if_idle(self) -> None:
        if self._closing and not self._channels and self._transport is not None:
            self._flush()
            self._transport.close()

    # ── of channels ─────────────────────────────────────────────────────────────────────────

    def put(self, number: int, data: bytes) -> None:
        """A piece of a channel; leaves at the end of the loop's turn at the latest."""
        out, size = self._out, len(data)
        if not size:
            return
        if not out:
            self.loop.call_soon(self._flush)
        if size <= MOST:
            out.append(FRAME.pack(number, size << 3))  # PIECE is 0
            out.append(data)
        else:
            for at in range(0, size, MOST):
                piece = data[at : at + MOST]
                out += (FRAME.pack(number, len(piece) << 3), piece)
        if size > _LARGE or len(out) > _MANY:
            self._flush()  # whoever writes on and on must meet the kernel's pace

    def tell(self, number: int, kind: int) -> None:
        """Something else about a channel."""
        if not self._out:
            self.loop.call_soon(self._flush)
        self._out.append(FRAME.pack(number, kind))

    def direct(self, number: int, receive: Receive) -> None:
        """Where pieces of a channel go from now on."""
        if number in self._receivers:
            self._receivers[number] = receive

    def forget(self, number: int) -> None:
        """A channel has ended."""
        self._channels.pop(number, None)
        self._receivers.pop(number, None)
        if self._closing:
            self.loop.call_soon(self._close_if_idle)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            data = b"".join(out)
            self._written += len(data)
            self._transport.write(data)

    # ── asyncio.Protocol ────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        unpack = FRAME.unpack_from
        pieces: dict[int, bytes] = {}  # what came of one channel is one piece again
        while end - at >= _HEAD:
            number, word = unpack(data, at)
            start = at + _HEAD
            stop = start + (word >> 3)
            if stop > end:
                if word >> 3 > MOST:
                    self._transport.abort()  # no frame of ours
                break
            at = stop
            if word & 7:
                self._hand_out(pieces)
                pieces = {}
                self._told(number, word & 7)
            elif number in pieces:
                pieces[number] += data[start:stop]
            else:
                pieces[number] = data[start:stop]
        self._rest = data[at:]
        self._hand_out(pieces)

    def _hand_out(self, pieces: dict[int, bytes]) -> None:
        receivers = self._receivers
        for number, piece in pieces.items():
            receive = receivers.get(number)
            if receive is None:
                continue  # it has ended here, which the other side has not heard yet
            try:
                receive(piece)
            except Exception as error:  # noqa: BLE001  # its bug must not end the others
                self.raised(self._channels.get(number), error)

    def _told(self, number: int, kind: int) -> None:
        channel = self._channels.get(number)
        try:
            if kind == OPEN:
                self._opened(number)
            elif kind > OPEN:
                self.abort()  # no frame of ours
            elif channel is None:
                pass
            elif kind in {HOLD, GO}:
                channel.hold(kind == HOLD)
            else:
                self.forget(number)
                channel.ended(None if kind == CLOSE else ConnectionResetError("reset by the peer"))
        except Exception as error:  # noqa: BLE001  # as above
            self.raised(channel, error)

    def _opened(self, number: int) -> None:
        if number <= self._last or self._accept is None or len(self) >= _MOST_CHANNELS:
            self.abort()  # no frame of ours
            return
        self._last = number
        if self._closing:
            self.tell(number, ABORT)
        else:
            self._begin(number, self._accept())

    def raised(self, channel: Channel | None, error: Exception) -> None:
        """A channel's protocol has a bug: that is the channel's end, and no other's."""
        context = {"message": "a channel's protocol raised", "exception": error}
        self.loop.call_exception_handler(context)
        if channel is not None:
            channel.abort()

    def pause_writing(self) -> None:
        self._fill(True)

    def resume_writing(self) -> None:
        self._fill(False)

    def _fill(self, full: bool) -> None:
        self.full = full
        self._tell_all(lambda channel: channel.fill(full))

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = self._lost = True
        self._on_lost(self)
        error = exc or ConnectionResetError("the multiplexed connection has ended")
        self._tell_all(lambda channel: channel.ended(error))
        self._channels.clear()
        self._receivers.clear()

    def _tell_all(self, tell: Callable[[Channel], object]) -> None:
        for channel in list(self._channels.values()):
            try:
                tell(channel)
            except Exception as error:  # noqa: BLE001  # as above
                self.raised(channel, error)
