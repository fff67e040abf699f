"""Connections over the network; ``unix`` has those on one machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def connect_tcp(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], P],
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
) -> P:
    """Connect to a host and port, with TLS where there is a context.

    Raises:
        OSError: No connection; ``socket.gaierror`` also where the name could be nobody's.
    """
    name = host if tls is not None else None
    try:
        _, made = await loop.create_connection(protocol, host, port, ssl=tls, server_hostname=name)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "it is no host name") from error
    return made
