"""The multiplexed connection to a node: opened when it is wanted, and again after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from helexa.relay.multiplex import PATH, TOKEN, Multiplex, P
from helexa.relay.vanished import lost
from helexa.relay.wheel import Wheel

_OPEN_SECS = 3.0
_AGAIN_SECS = 2.0  # after a try that failed
_LOOK_SECS = 5.0
_MOST_HEAD = 16_384  # of the answer to the request to switch


class Dial(Protocol):
    """Connects a protocol to the other side; raises ``OSError``."""

    def __call__(self, protocol: Callable[[], P], /) -> Awaitable[P]: ...


class Refused(Exception):
    """The other side has answered, and does not speak this."""


class _Asking(asyncio.Protocol):
    """Asks to switch, and hands the connection over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, request: bytes) -> None:
        self.answer: asyncio.Future[Multiplex] = loop.create_future()
        self._loop = loop
        self._request = request
        self._transport: Any = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, rest = self._got.partition(b"\r\n\r\n")
        if self.answer.done() or (not blank and len(head) <= _MOST_HEAD):
            return
        if rest or not head.startswith(b"HTTP/1.1 101 "):  # who is asked never begins
            words = head.partition(b"\r\n")[0][:80].decode("latin-1")
            self.answer.set_exception(Refused(words))
            self._transport.abort()
            return
        multiplex = Multiplex(self._loop)
        self._transport.set_protocol(multiplex)
        multiplex.connection_made(self._transport)
        self.answer.set_result(multiplex)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed without an answer"))

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if self._transport is not None:
            self._transport.abort()


async def _connect(
    dial: Dial, headers: bytes, loop: asyncio.AbstractEventLoop, secs: float
) -> Multiplex:
    """Ask the other side for a multiplexed connection.

    Args:
        headers: Header lines of the request, complete.
        secs: For all of it.

    Raises:
        Refused: It answers, and does not speak this.
        OSError: No connection, or it broke.
        TimeoutError: After ``secs``.
    """
    request = b"GET %b HTTP/1.1\r\n%bconnection: upgrade\r\nupgrade: %b\r\n\r\n"
    asking: _Asking | None = None
    try:
        async with asyncio.timeout(secs):
            asking = await dial(lambda: _Asking(loop, request % (PATH, headers, TOKEN)))
            return await asking.answer
    except BaseException:
        if asking is not None:
            asking.give_up()
        raise


class Trunk:
    """Gives out channels while the node offers them, and ordinary connections otherwise.

    Args:
        dial: Connects to the node.
        headers: Header lines of the request for it, complete.
        lost_secs: So long what was sent may stay unacknowledged.
        said: Told in words when it opens and when it cannot be used.
    """

    __slots__ = (
        "__weakref__",
        "_dial",
        "_due",
        "_headers",
        "_loop",
        "_lost_secs",
        "_multiplex",
        "_offered",
        "_opening",
        "_said",
        "_wheel",
    )

    def __init__(
        self,
        dial: Dial,
        headers: bytes,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        lost_secs: float = 30.0,
        said: Callable[[str], object] = lambda _what: None,
    ) -> None:
        self._dial = dial
        self._headers = headers
        self._wheel = wheel
        self._loop = loop
        self._lost_secs = lost_secs
        self._said = said
        self._offered = False
        self._multiplex: Multiplex | None = None
        self._opening: asyncio.Task[None] | None = None
        self._due = 0.0

    def offered(self, offered: bool) -> None:
        """The node has said whether it takes one."""
        self._offered = offered
        self._due = 0.0

    def up(self) -> bool:
        """Whether it is open; else it is opened meanwhile, if the node takes one."""
        multiplex = self._multiplex
        if multiplex is not None and multiplex.usable:
            return True
        if self._offered and self._opening is None and self._loop.time() >= self._due:
            self._opening = self._loop.create_task(self._open())
        return False

    async def dial(self, protocol: Callable[[], P]) -> P:
        """A channel; where there is none (any more), a connection.

        Raises:
            OSError: No connection.
        """
        multiplex = self._multiplex
        if multiplex is not None and multiplex.usable:
            return multiplex.channel(protocol)
        return await self._dial(protocol)

    def close(self) -> None:
        """Begin no more channels; those that are open go on."""
        self._offered = False
        if self._opening is not None:
            self._opening.cancel()
        if self._multiplex is not None:
            self._multiplex.close()

    async def _open(self) -> None:
        try:
            self._multiplex = await _connect(self._dial, self._headers, self._loop, _OPEN_SECS)
        except Refused as error:
            self._offered = False
            self._said(f"each request has a connection of its own: {error}")
        except (OSError, UnicodeError) as error:  # TimeoutError is one
            self._due = self._loop.time() + _AGAIN_SECS
            self._said(f"no multiplexed connection: {error}")
        else:
            self._said("requests share one connection")
            self._wheel.watch(self._loop.time() + _LOOK_SECS, self)
        finally:
            self._opening = None

    def watch(self, now: float) -> float | None:
        """Give it up when the node is not there any more and has not said so."""
        multiplex = self._multiplex
        if multiplex is None or not multiplex.usable:
            return None
        if lost(multiplex.extra_info("socket"), self._lost_secs):
            multiplex.abort()
            return None
        return now + _LOOK_SECS
