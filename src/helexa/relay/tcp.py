"""Connections over the network; ``unix`` has those on one machine."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from helexa.relay.vanished import LOST_SECS, probe_idle

P = TypeVar("P", bound=asyncio.BaseProtocol)
Address = tuple[socket.AddressFamily, Any]
"""One of a name's addresses, as ``socket.connect`` takes it."""

_NEXT_SECS = 0.25  # an address that has said nothing for so long is no reason to leave out others


async def connect_tcp(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], P],
    host: str,
    port: int,
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
    name = host if tls is not None else None
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "it is no host name") from error
    sock = await first_to_answer(loop, [(family, address) for family, *_, address in found])
    probe_idle(sock, lost_secs)
    _, made = await loop.create_connection(protocol, sock=sock, ssl=tls, server_hostname=name)
    return made


async def first_to_answer(
    loop: asyncio.AbstractEventLoop, addresses: Iterable[Address]
) -> socket.socket:
    """A socket connected to one of ``addresses``: the first that answers (RFC 8305).

    Each is tried when the one before it has failed or been silent for a quarter of a second. One
    after the other, an address that nothing comes back from would use up the time of all.

    Raises:
        OSError: None can be had; several errors are told together.
    """
    won: asyncio.Future[socket.socket] = loop.create_future()
    tries: list[asyncio.Task[OSError | None]] = []
    sock = None
    try:
        for address in addresses:
            tries.append(loop.create_task(_try(loop, address, won)))
            await _either(won, tries[-1], secs=_NEXT_SECS)
            if won.done():
                break
        while not won.done() and (waits := [one for one in tries if not one.done()]):
            await _either(won, *waits)
        if not won.done():
            raise _together([error for one in tries if (error := one.result())])
        sock = won.result()
        return sock
    finally:
        for one in tries:
            one.cancel()
        if not won.done():
            won.cancel()
        elif sock is None:  # whoever wanted it has gone
            won.result().close()


async def _either(*tries: asyncio.Future[Any], secs: float | None = None) -> None:
    await asyncio.wait(tries, timeout=secs, return_when=asyncio.FIRST_COMPLETED)


async def _try(
    loop: asyncio.AbstractEventLoop, address: Address, won: asyncio.Future[socket.socket]
) -> OSError | None:
    """Connect to one address, for ``won`` if nobody was faster; returns what was in the way."""
    family, where = address
    try:
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:  # a family that this machine does not have
        return error
    try:
        sock.setblocking(False)
        await loop.sock_connect(sock, where)
        if not won.done():
            won.set_result(sock)
    except OSError as error:
        return error
    finally:
        if not won.done() or won.cancelled() or won.result() is not sock:
            sock.close()
    return None


def _together(errors: list[OSError]) -> OSError:
    if len(errors) == 1:
        return errors[0]
    return OSError("; ".join(map(str, errors)) or "the name has no address")
