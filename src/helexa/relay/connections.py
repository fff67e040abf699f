"""The connections of one listener: what they share, which are open, and their drain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from helexa.relay.http1 import BadRequest, DateHeader, Limits
from helexa.relay.multiplex import PATH, SWITCHING, TOKEN, Multiplex
from helexa.relay.outbox import Outbox
from helexa.relay.reply import Reply
from helexa.relay.request import Head, Request
from helexa.relay.wheel import Wheel

if TYPE_CHECKING:
    from helexa.relay.server import ServerProtocol

MayMultiplex = Callable[[Mapping[bytes, bytes]], bool]
Foresee = Callable[[Head], BadRequest | None]
"""Says by the head alone why a request will be refused, so that its body need not be read."""


class App(Protocol):
    """What a server does with requests; implemented by the two applications."""

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request. Must not block; must not raise."""

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        """Header lines and body for a request that could not even be parsed."""


class Connections:
    """Everything the connections of one listener share, and the set of those that are open.

    Args:
        serve: Makes the protocol of one of them.
        multiplexed: Whether somebody may bring many connections over one (see ``multiplex``), by
            the headers with which they ask; None is nobody.
        foresee: Asked before a long body is read; nothing is foreseen without it.
    """

    def __init__(
        self,
        serve: Callable[[Connections], ServerProtocol],
        app: App,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        outbox: Outbox | None = None,
        *,
        multiplexed: MayMultiplex | None = None,
        foresee: Foresee = lambda _head: None,
    ) -> None:
        self._serve = serve
        self.foresee = foresee
        self.app = app
        self.outbox = outbox
        self.wheel = wheel
        self.loop = loop
        self.limits = limits
        self.date = DateHeader()
        self.open: set[ServerProtocol] = set()
        self.draining = False
        self.patience = 0.0
        self._drained = 0.0
        self._multiplexed = multiplexed
        self._multiplexes: set[Multiplex] = set()
        # How often a connection's deadlines are looked at: they are late by a quarter at most.
        secs = (limits.head_secs, limits.body_secs, limits.keep_alive_secs, limits.stall_secs)
        self.step = min(*secs, limits.lost_secs) / 4

    def protocol(self) -> ServerProtocol:
        """A protocol for a new connection (the factory given to ``create_server``)."""
        return self._serve(self)

    def busy(self) -> int:
        """Connections with an answer under way."""
        return sum(1 for c in self.open if c.busy)

    @property
    def idle(self) -> int:
        """Connections that wait for a request."""
        return sum(1 for c in self.open if c.idle)

    def drain(self, patience: float = 0.0) -> None:
        """Idle connections close now, busy ones after their current answer.

        Args:
            patience: For so many seconds of silence they stay all the same, unless their last
                answer said that they close. Whoever keeps connections may have sent the next
                request before it could know, and may not send it twice.
        """
        self.draining = True
        self.patience = patience
        self._drained = self.loop.time()
        for connection in list(self.open):
            connection.close_soon()
        self.close_idle()
        for multiplex in list(self._multiplexes):
            multiplex.close()

    def close_idle(self) -> None:
        """Close what has been idle for as long as the drain's patience."""
        before = self.loop.time() - self.patience
        if self._drained <= before:
            for connection in list(self.open):
                connection.close_when_idle(before)

    def switch(
        self, transport: asyncio.Transport, url: bytes, headers: Mapping[bytes, bytes]
    ) -> bool:
        """Let a connection carry many from now on, if that is what was asked for."""
        may, limits = self._multiplexed, self.limits
        if may is None or self.draining or url != PATH or headers.get(b"upgrade") != TOKEN:
            return False
        if not may(headers):
            return False
        multiplex = Multiplex(self.loop, self.protocol, self._multiplexes.discard)
        self._multiplexes.add(multiplex)
        transport.write(SWITCHING)
        transport.set_protocol(multiplex)
        multiplex.connection_made(transport)
        multiplex.guard(self.wheel, limits.lost_secs, limits.stall_secs)
        return True
