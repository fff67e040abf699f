"""Unix sockets: listening on one of the file system, connecting to one of either namespace.

uvloop ends a path at its first zero byte, where abstract names begin; a socket that is connected
already it takes as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)

LONGEST_PATH = 107
"""Bytes of a path that fit into an address (unix(7)); the last one ends it."""

_FULL_SECS = 0.005


def bound_unix(path: Path) -> socket.socket:
    """A socket at ``path`` for this user only, in the place of one that an earlier life has left.

    Raises:
        OSError: The path is too long, taken by something else, or cannot be written.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise OSError(f"{path} is longer than the {LONGEST_PATH} bytes of a socket's address")
    if path.is_socket():
        if _listens(path):
            raise OSError(errno.EADDRINUSE, f"{path} is in use by another process")
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(OSError):  # Linux makes the file with the socket's own mode
            os.fchmod(sock.fileno(), 0o600)
        sock.bind(str(path))
        path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    return sock


def _listens(path: Path) -> bool:
    """Whether somebody does there; asked without waiting."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.setblocking(False)
        try:
            asking.connect(str(path))
        except BlockingIOError:
            return True  # as many wait there as may
        except OSError:
            return False
    return True


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
