"""Acknowledgements of what is read: of many small pieces one now and then, instead of each.

Linux sends one with each read while it takes a connection for one-way. Where a piece comes alone
for 40 ms it goes back to that by itself (tcp(7)).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

InternetSocket = tuple[int, int, int, int]
"""Family, type, protocol, descriptor."""

_QUICKACK = getattr(socket, "TCP_QUICKACK", None)  # of Linux
_FAMILIES = frozenset((socket.AF_INET, socket.AF_INET6))


def internet_socket(transport: asyncio.BaseTransport) -> InternetSocket | None:
    """What ``transport`` reads from, where that is a connection that acknowledges."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in _FAMILIES:
        return None
    return int(sock.family), int(sock.type), sock.proto, sock.fileno()


def delay_acks(of: InternetSocket) -> None:
    """Have the kernel acknowledge every second piece or so; the connection must be open."""
    if _QUICKACK is None:
        return
    # What the transport gives out for its socket takes five times as long for this.
    with suppress(OSError):  # broken just now: its end says so
        sock = socket.SocketType(*of)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 0)
        finally:
            sock.detach()  # the descriptor is the transport's
