"""Connections over the network; ``unix`` has those on one machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TypeVar

from aiohappyeyeballs import AddrInfoType, start_connection

from helexa.relay.names import Name
from helexa.relay.vanished import LOST_SECS, probe_idle

P = TypeVar("P", bound=asyncio.BaseProtocol)

_NEXT_SECS = 0.25  # an address that has said nothing for so long is no reason to leave out others


async def connect_tcp(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], P],
    name: Name,
    tls: ssl.SSLContext | None,
    lost_secs: float = LOST_SECS,
) -> P:
    """Connect to a host and port, with TLS where there is a context.

    Args:
        lost_secs: A connection that is quiet and whose other side has gone without a word is
            ended by the kernel after so long.

    Raises:
        OSError: No connection; ``socket.gaierror`` also where the name could be nobody's.
    """
    sock = await first_to_answer(loop, await name.addresses())
    probe_idle(sock, lost_secs)
    host = name.host if tls is not None else None
    _, made = await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname=host)
    return made


async def first_to_answer(
    loop: asyncio.AbstractEventLoop, addresses: Sequence[AddrInfoType]
) -> socket.socket:
    """A socket connected to one of ``addresses``: the first that answers (RFC 8305).

    Each is tried when the one before it has failed or been silent for a quarter of a second. One
    after the other, an address that nothing comes back from would use up the time of all; and
    uvloop tries no second one.

    Raises:
        OSError: None can be had; several errors are told together.
    """
    return await start_connection(addresses, happy_eyeballs_delay=_NEXT_SECS, loop=loop)
