"""A streamed answer on its way to a client: when its status is fixed, and that it is never silent.

::

    open ──accept()──▶ waiting ──commit_secs──▶ committed (200 + keep-alives)
      │                   │                          │
      └──── refuse ───────┴──── first events ────────┴──▶ relaying ──▶ ended

Before anything is sent a failure is an ordinary refusal; afterwards it is the dialect's error
event without a success terminator. Keep-alives are the dialect's and stand between whole events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from helexa.relay.reply import Reply
from helexa.relay.wheel import Wheel


class StreamForm(msgspec.Struct, frozen=True):
    """How one dialect streams.

    Args:
        headers: Header lines of the 200.
        keep_alive: Makes one keep-alive.
        commit_secs: Silence after which an accepted request gets its 200; negative means only
            with the first events (a node asked by a gateway).
        waiting_secs: Between keep-alives before the first event.
        quiet_secs: Between keep-alives afterwards.
        stall_secs: A client that takes nothing for so long is cut off.
    """

    headers: bytes
    keep_alive: Callable[[], bytes]
    commit_secs: float = 0.8
    waiting_secs: float = 1.0
    quiet_secs: float = 5.0
    stall_secs: float = 300.0


class Answer:
    """The downstream half of one streamed exchange; its deadlines live as long as it is held.

    Attributes:
        relaying: Events of an upstream have been written.
        last: Loop time of the last write; whoever writes to ``reply`` directly sets it.
    """

    __slots__ = (
        "__weakref__",
        "_form",
        "_headers",
        "_loop",
        "_slow_at",
        "_standing",
        "_wheel",
        "last",
        "relaying",
        "reply",
    )

    def __init__(
        self, reply: Reply, form: StreamForm, wheel: Wheel, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.reply = reply
        self.relaying = False
        self._form = form
        self._wheel = wheel
        self._loop = loop
        self._headers = form.headers
        self.last = loop.time()
        self._slow_at = 0.0
        self._standing = (0, 0)

    @property
    def committed(self) -> bool:
        """The 200 has been sent; a refusal is no longer possible."""
        return self.reply.started

    def accept(self, received: float) -> None:
        """Everything that can be refused without waiting has been: start the commit clock.

        Args:
            received: Loop time when the request came; silence counts from there.
        """
        commit = self._form.commit_secs
        if commit >= 0:
            self._wheel.watch(received + commit, self)
        else:
            self._wheel.watch(self._loop.time() + self._form.quiet_secs, self)

    def add_headers(self, lines: bytes) -> None:
        """More header lines, if the status is not out yet."""
        self._headers += lines

    def write(self, events: bytes) -> None:
        """Relay whole events."""
        self.last = self._loop.time()
        self.relaying = True
        if self.reply.started:
            self.reply.write(events)
        else:
            self.reply.start(200, self._headers, events)

    def end(self, last: bytes = b"") -> None:
        """End the answer; ``last`` are its final events (terminator or error event)."""
        if not self.reply.started:
            self.reply.start(200, self._headers)
        self.reply.end(last)

    def watch(self, now: float) -> float | None:
        """Fix the status, keep the client awake, or cut it off; called by the wheel."""
        reply, form = self.reply, self._form
        if reply.ended or reply.gone:
            return None
        if reply.slow:
            return self._ask_slow(now)
        self._slow_at = 0.0
        if not reply.started:
            if form.commit_secs < 0:
                return now + form.quiet_secs
            self.last = now
            reply.start(200, self._headers, form.keep_alive())
            return now + form.waiting_secs
        every = form.quiet_secs if self.relaying else form.waiting_secs
        # Half a tick of slack keeps a keep-alive every second from becoming every other tick.
        if now - self.last >= every - 0.05:
            self.last = now
            reply.write(form.keep_alive())
            return now + every
        return self.last + every

    def _ask_slow(self, now: float) -> float | None:
        """A client that reads slowly is waited for; one that takes nothing is cut off."""
        standing = self.reply.standing
        if not self._slow_at or standing != self._standing:
            self._slow_at = now
            self._standing = standing
        elif now - self._slow_at >= self._form.stall_secs:
            self.reply.drop()
            return None
        return now + min(self._form.quiet_secs, self._form.stall_secs)
