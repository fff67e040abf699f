"""The multiplexed connection to a node: opened when it is wanted, and again after it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from helexa.relay.multiplex import PATH, TOKEN, Multiplex, P
from helexa.relay.vanished import LOST_SECS
from helexa.relay.wheel import Wheel

_OPEN_SECS = 3.0
_AGAIN_SECS = 2.0  # after a try that failed; twice as long after each further one ...
_SELDOM_SECS = 60.0  # ... up to this
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
        # Whoever speaks it names it, and never begins.
        if rest or not head.startswith(b"HTTP/1.1 101 ") or TOKEN not in head.lower():
            words = head.partition(b"\n")[0].strip()[:80].decode("ascii", "backslashreplace")
            self.answer.set_exception(Refused(f"the answer was {words!r}"))
            self._transport.abort()
            return
        multiplex = Multiplex(self._loop)
        self._transport.set_protocol(multiplex)
        multiplex.connection_made(self._transport)
        self.answer.set_result(multiplex)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError("closed without an answer"))
            self.answer.exception()  # nobody may wait for it any more

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
    finally:
        del asking  # an error would hold it, and is held by it: a cycle


class Trunk:
    """Gives out channels while the node offers them, and ordinary connections otherwise.

    Args:
        dial: Connects to the node.
        headers: Header lines of the request for it, complete.
        lost_secs: So long what was sent may stay unacknowledged, ...
        stall_secs: ... and untaken by a node that is there.
        said: Told in words when it opens and when it cannot be used.
        route: Where ``dial`` leads to at the moment; see ``outdated``.
    """

    __slots__ = (
        "_again",
        "_dial",
        "_due",
        "_headers",
        "_loop",
        "_lost_secs",
        "_multiplex",
        "_offered",
        "_opening",
        "_route",
        "_said",
        "_stall_secs",
        "_taken",
        "_trouble",
        "_wheel",
    )

    def __init__(
        self,
        dial: Dial,
        headers: bytes,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        *,
        lost_secs: float = LOST_SECS,
        stall_secs: float = 300.0,
        said: Callable[[str], object] = lambda _what: None,
        route: Callable[[], object] = lambda: None,
    ) -> None:
        self._dial = dial
        self._headers = headers
        self._wheel = wheel
        self._loop = loop
        self._lost_secs = lost_secs
        self._stall_secs = stall_secs
        self._said = said
        self._route = route
        self._taken: object = None  # the route of what is open
        self._offered = False
        self._multiplex: Multiplex | None = None
        self._opening: asyncio.Task[None] | None = None
        self._due = 0.0
        self._again = _AGAIN_SECS
        self._trouble = ""  # what was said of the last try

    @property
    def open(self) -> bool:
        """Channels can be had."""
        return self._multiplex is not None and self._multiplex.usable

    def offered(self, offered: bool) -> None:
        """The node has said whether it takes one; then it is opened."""
        self._offered = offered
        self._due = 0.0
        self._again = _AGAIN_SECS
        self.up()

    def outdated(self) -> bool:
        """It is open, and would lead another way if it were opened now."""
        return self.open and self._taken != self._route()

    def up(self) -> bool:
        """Whether it is open and takes more; else it is opened meanwhile, if the node takes one."""
        multiplex = self._multiplex
        if multiplex is not None and multiplex.usable:
            return not multiplex.full
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

    def renew(self) -> None:
        """Begin no more channels on the one that is open; those that it has go on."""
        if self._multiplex is not None:
            self._multiplex.close()

    def close(self) -> None:
        """Begin no more channels at all; those that are open go on."""
        self._offered = False
        if self._opening is not None:
            self._opening.cancel()
        self.renew()

    async def _open(self) -> None:
        try:
            multiplex = await _connect(self._dial, self._headers, self._loop, _OPEN_SECS)
        except Refused as error:
            self._offered = False
            self._fail(f"each request has a connection of its own: {error}")
        except TimeoutError:
            self._fail(f"no multiplexed connection: no answer in {_OPEN_SECS:g} s")
        except OSError as error:
            self._fail(f"no multiplexed connection: {error}")
        else:
            self.renew()  # one that has run out of numbers
            self._multiplex, self._taken = multiplex, self._route()
            multiplex.guard(self._wheel, self._lost_secs, self._stall_secs)
            self._again, self._trouble = _AGAIN_SECS, ""
            self._said("requests share one connection")
        finally:
            self._opening = None

    def _fail(self, what: str) -> None:
        self._due = self._loop.time() + self._again
        self._again = min(2 * self._again, _SELDOM_SECS)
        if what != self._trouble:
            self._trouble = what
            self._said(what)
