"""A bounded pool of connections to one origin (a node, an engine).

Idle connections are reused youngest first, so that a burst's extra connections age and are
closed. At the bound, requests wait in order, each with the connect deadline; what becomes free is
handed to the first of them, so that nobody who comes later can be faster.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable

import msgspec

from helexa.relay.multiplex import P
from helexa.relay.names import Name
from helexa.relay.outbox import Outbox
from helexa.relay.tcp import connect_tcp
from helexa.relay.trunk import Dial
from helexa.relay.unix import connect_unix
from helexa.relay.unreached import Unreached, silent, unnamed, unreached
from helexa.relay.upstream import Failure, UpstreamConnection
from helexa.relay.vanished import LOST_SECS
from helexa.relay.wheel import Wheel


class Origin(msgspec.Struct, frozen=True):
    """Where to connect: ``host:port``, or a Unix socket when ``uds`` is set."""

    host: str = "127.0.0.1"
    port: int = 0
    uds: str | None = None
    tls: bool = False

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.uds is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class ConnectFailed(Exception):
    """No connection could be had; ``failure`` says how, ``why`` what stood in the way."""

    def __init__(self, failure: Failure, detail: str = "", why: Unreached | None = None) -> None:
        super().__init__(detail or failure.value)
        self.failure = failure
        self.why = why


_NOBODY = (FileNotFoundError, ConnectionRefusedError, PermissionError, NotADirectoryError)
"""What a shortcut answers that is gone, or not for us."""


class UpstreamPool:
    """Connections to one origin.

    Attributes:
        shortcut: A Unix socket that leads there too and is taken instead; see ``take_shortcut``.

    Args:
        limit: Connections at once, busy and idle.
        idle_secs: An idle connection older than this is closed.
        connect_secs: Deadline for a new connection and for waiting at the bound.
        outbox: Requests leave through it; None sends them at once.
        delay_acks: Streamed answers may be acknowledged late. Only for servers that send small
            pieces without waiting for that (``TCP_NODELAY``), as nodes do.
        tls: Needed where the origin speaks TLS, and nobody else dials.
        dial: Makes the connections in its place; see ``dial``.
        lost_secs: An origin that acknowledges nothing for so long has vanished.
    """

    def __init__(
        self,
        origin: Origin,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        *,
        limit: int = 8192,
        idle_secs: float = 60.0,
        connect_secs: float = 3.0,
        tls: ssl.SSLContext | None = None,
        outbox: Outbox | None = None,
        delay_acks: bool = False,
        dial: Dial | None = None,
        lost_secs: float = LOST_SECS,
    ) -> None:
        if origin.tls and tls is None and dial is None:
            raise ValueError(f"{origin} needs a context for TLS")
        self.origin = origin
        self.open = 0
        self.connected = 0
        self._idle: deque[UpstreamConnection] = deque()
        self._busy: set[UpstreamConnection] = set()
        self._waiters: deque[asyncio.Future[UpstreamConnection | None]] = deque()
        self._wheel = wheel
        self._loop = loop
        self._limit = limit
        self._idle_secs = idle_secs
        self._connect_secs = connect_secs
        self._tls = tls
        self._outbox = outbox
        self._delay_acks = delay_acks
        self._dial = dial or self.dial
        self._name = Name(loop, origin.host, origin.port)
        self.lost_secs = lost_secs
        self.shortcut: str | None = None
        self._shortcut_lost: Callable[[OSError], object] = lambda _error: None
        self._outdated: set[UpstreamConnection] = set()  # busy ones of another way
        self._evicting = False
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that wait for work."""
        return len(self._idle)

    @property
    def busy(self) -> int:
        """Connections with a request under way."""
        return len(self._busy)

    def take_shortcut(
        self, path: str | None, lost: Callable[[OSError], object] = lambda _error: None
    ) -> None:
        """Connect to the Unix socket ``path`` from now on; None is the origin's own address.

        Connections of the other way are not used again.

        Args:
            lost: Told when nobody answers at ``path``: it is the origin's own address again, for
                the connection that noticed it already.
        """
        if path != self.shortcut:
            self.shortcut, self._shortcut_lost = path, lost
            self.renew()

    def renew(self) -> None:
        """Use no connection again that there is now; what is under way goes on."""
        self._outdated |= self._busy
        while self._idle:
            self._close_oldest()

    def take_idle(self) -> UpstreamConnection | None:
        """A kept connection, or None; never waits."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.usable():
                self._busy.add(connection)
                return connection
            self._forget()  # closing already; its end finds it in neither set
        return None

    async def take(self, *, fresh: bool = False) -> UpstreamConnection:
        """A connection: kept if there is one (unless ``fresh``), else new.

        Raises:
            ConnectFailed: Refused, unreachable, or not within ``connect_secs``.
        """
        deadline = self._loop.time() + self._connect_secs
        first = False
        while True:
            if self._closed:
                raise ConnectFailed(Failure.CONNECT, "the pool is closed")
            connection = None if fresh else self.take_idle()
            if connection is not None:
                return connection
            if self._idle and self.open >= self._limit:
                self._close_oldest()
            if self.open < self._limit:
                self.open += 1
                return await self._connect(deadline)
            connection = await self._wait(deadline, first=first)
            if connection is None:
                return await self._connect(deadline)
            if connection.usable():
                return connection
            first = True  # it closed on its way to us: our place is still the first

    async def _connect(self, deadline: float) -> UpstreamConnection:
        """A new connection on a place that is counted already."""
        made, origin, begun = False, self.origin, list[UpstreamConnection]()

        def protocol() -> UpstreamConnection:
            begun.append(self._protocol())
            return begun[-1]

        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._dial(protocol)
            made = True
        except TimeoutError as error:
            why = self.silent(self._connect_secs)
            raise ConnectFailed(Failure.TIMEOUT_CONNECT, why.whole, why) from error
        except OSError as error:
            if origin.uds is not None:
                raise ConnectFailed(Failure.CONNECT, str(error)) from error
            why = unreached(error, origin.host, origin.port)
            raise ConnectFailed(Failure.CONNECT, why.whole, why) from error
        finally:
            if not made:
                self._forget()
                for unmade in begun:
                    unmade.disown()
        self.connected += 1
        self._busy.add(connection)
        return connection

    def silent(self, secs: float) -> Unreached:
        """Words for a connection that could not be had within ``secs`` seconds."""
        if self._name.unanswered:
            return unnamed(self.origin.host, secs)
        return silent(self.origin.host, self.origin.port, secs)

    async def dial(self, protocol: Callable[[], P]) -> P:
        """Connect ``protocol`` to the origin; the pool knows nothing of it.

        Raises:
            OSError: No connection.
        """
        made = await self._by_shortcut(protocol)
        return await self._by_address(protocol) if made is None else made

    async def _by_shortcut(self, protocol: Callable[[], P]) -> P | None:
        """A connection to the shortcut; None where there is none, or none any more."""
        path = self.shortcut
        if path is None:
            return None
        try:
            _, made = await connect_unix(self._loop, protocol, path)
        except _NOBODY as error:
            if self.shortcut == path:  # the first of several to notice
                lost = self._shortcut_lost
                self.take_shortcut(None)
                lost(error)
            return None
        return made

    async def _by_address(self, protocol: Callable[[], P]) -> P:
        origin = self.origin
        if origin.uds is not None:
            _, made = await connect_unix(self._loop, protocol, origin.uds)
            return made
        tls = self._tls if origin.tls else None
        return await connect_tcp(self._loop, protocol, self._name, tls, self.lost_secs)

    def _protocol(self) -> UpstreamConnection:
        return UpstreamConnection(self._returned, self._outbox, delay_acks=self._delay_acks)

    async def _wait(self, deadline: float, *, first: bool) -> UpstreamConnection | None:
        """Wait for a turn: a busy-marked connection, or None for a counted place to connect."""
        waiter: asyncio.Future[UpstreamConnection | None] = self._loop.create_future()
        if first:
            self._waiters.appendleft(waiter)
        else:
            self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError as error:
            self._pass_on(waiter)
            raise ConnectFailed(Failure.FULL) from error
        except BaseException:
            self._pass_on(waiter)
            raise

    def _pass_on(self, waiter: asyncio.Future[UpstreamConnection | None]) -> None:
        """The waiter leaves; if its turn came in the same moment, it is the next one's."""
        if not waiter.done():
            waiter.cancel()
            if self._waiters and len(self._waiters) > 2 * self._limit:
                self._waiters = deque(w for w in self._waiters if not w.done())
        elif not waiter.cancelled() and waiter.exception() is None:
            connection = waiter.result()
            if connection is None:
                self._forget()
            elif connection.usable():
                self._returned(connection, True)

    def drop(self, connection: UpstreamConnection) -> None:
        """Give up a busy connection together with its exchange."""
        connection.abandon()

    def _returned(self, connection: UpstreamConnection, keep: bool) -> None:
        """A connection finished its exchange (``keep``) or is gone."""
        if connection not in self._busy:
            if not keep and connection in self._idle:
                self._idle.remove(connection)
                self._forget()
            return  # else it has been counted as gone already
        if self._outdated and connection in self._outdated:
            self._outdated.discard(connection)
            if keep:
                connection.abandon()
                keep = False
        if keep and not self._closed:
            waiter = self._first_waiter() if self._waiters else None
            if waiter is not None:
                waiter.set_result(connection)  # stays busy
                return
            self._busy.discard(connection)
            connection.idle_since = self._loop.time()
            self._idle.append(connection)
            if not self._evicting:
                self._evicting = True
                self._wheel.at(connection.idle_since + self._idle_secs, self._evict)
            return
        self._busy.discard(connection)
        if keep:
            connection.abandon()
        self._forget()

    def _forget(self) -> None:
        """A place is free: the first waiter's, who finds it counted, or nobody's."""
        waiter = self._first_waiter() if self._waiters else None
        if waiter is None:
            self.open -= 1
        else:
            waiter.set_result(None)

    def _first_waiter(self) -> asyncio.Future[UpstreamConnection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    def _close_oldest(self) -> None:
        self._idle.popleft().abandon()
        self._forget()

    def _evict(self, now: float) -> float | None:
        idle = self._idle
        while idle and idle[0].idle_since + self._idle_secs <= now:
            self._close_oldest()
        if idle:
            return idle[0].idle_since + self._idle_secs
        self._evicting = False
        return None

    def close(self) -> None:
        """Close every idle connection; busy ones close when their exchange ends."""
        self._closed = True
        while self._idle:
            self._close_oldest()
        while (waiter := self._first_waiter()) is not None:
            waiter.set_exception(ConnectFailed(Failure.CONNECT, "the pool is closed"))
