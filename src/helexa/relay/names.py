"""The addresses behind a host's name, looked up in threads of our own.

The loop has four threads for that, and a resolver that does not answer holds one for ten seconds
or more: behind a few such names every other one had to wait, those of ``/etc/hosts`` too.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Any

from aiohappyeyeballs import AddrInfoType

LookUp = Callable[[str, int], Sequence[AddrInfoType]]

_PATIENCE_SECS = 0.5  # a resolver that is slower is not waited for where there is an older answer
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


def look_up(host: str, port: int, flags: int = 0) -> Sequence[AddrInfoType]:
    """What the system's resolver says; blocking.

    Raises:
        socket.gaierror: There is no such name, or nobody to ask.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except ValueError as error:  # UnicodeError is one
        raise socket.gaierror(socket.EAI_NONAME, "it is not a host name") from error


class Name:
    """A host and a port, and where that is.

    It is looked up for every connection, once at a time whoever asks. While the resolver is slow
    or away the last answer holds, so that an outage of the DNS takes no host away.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, look: LookUp = look_up
    ) -> None:
        self.host = host
        self._port = port
        self._loop = loop
        self._look = look
        self._known: Sequence[AddrInfoType] | None = None
        self._asking: asyncio.Future[Sequence[AddrInfoType]] | None = None
        self._fixed: Sequence[AddrInfoType] | None = None
        with contextlib.suppress(socket.gaierror):  # it is a name
            self._fixed = look_up(host, port, _NUMERIC)

    @property
    def unanswered(self) -> bool:
        """The resolver has been asked, and there is no answer of it, nor an older one."""
        return self._asking is not None and self._known is None

    async def addresses(self) -> Sequence[AddrInfoType]:
        """All of them, in the order in which to try them.

        Raises:
            socket.gaierror: There is no such name, or nobody to ask.
        """
        if self._fixed is not None:
            return self._fixed
        asking = self._asking or self._ask()
        known = self._known
        if known is None:
            return await asyncio.shield(asking)
        try:
            async with asyncio.timeout(_PATIENCE_SECS):
                return await asyncio.shield(asking)
        except OSError as error:  # TimeoutError is one
            if error.errno == socket.EAI_NONAME:
                raise
            return known

    def _ask(self) -> asyncio.Future[Sequence[AddrInfoType]]:
        answer: asyncio.Future[Sequence[AddrInfoType]] = self._loop.create_future()
        answer.add_done_callback(self._answered)
        self._asking = answer
        # A daemon: a program that ends does not wait for a resolver.
        thread = Thread(target=self._work, args=(answer,), daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            answer.set_exception(OSError(errno.EAGAIN, f"it cannot be looked up: {error}"))
        return answer

    def _work(self, answer: asyncio.Future[Sequence[AddrInfoType]]) -> None:
        tell: tuple[Callable[[Any], object], object]
        try:
            tell = answer.set_result, self._look(self.host, self._port)
        except OSError as error:
            tell = answer.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(*tell)

    def _answered(self, answer: asyncio.Future[Sequence[AddrInfoType]]) -> None:
        self._asking = None
        if not answer.cancelled() and answer.exception() is None:
            self._known = answer.result()
