"""Connecting to a Unix socket, which may be one of the abstract namespace.

uvloop ends a path at its first zero byte, where abstract names begin; a socket that is connected
already it takes as it is.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)

_FULL_SECS = 0.005


async def connect_unix(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], P], path: str
) -> tuple[asyncio.BaseTransport, P]:
    """As ``create_unix_connection``; waits, for as long as its caller does, while more connections
    than the listener lets wait have not been accepted.

    Raises:
        OSError: Nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        while True:
            try:
                sock.connect(path)  # at once or not at all
                break
            except BlockingIOError:
                await asyncio.sleep(_FULL_SECS)
        return await loop.create_unix_connection(protocol, sock=sock)
    except BaseException:
        sock.close()
        raise
