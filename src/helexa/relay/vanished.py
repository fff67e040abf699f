"""Whether the other side is still there, asked of the kernel: who vanished says no goodbye.

::

    nothing under way ─▶ keep-alive probes; unanswered, the kernel ends the connection
    sent, not taken   ─▶ no acknowledgement of any kind for so long: ``lost``

A reader that is merely slow acknowledges every probe of its full window, so it is neither; that is
why ``TCP_USER_TIMEOUT``, which ends it all the same, is not used (tcp(7)).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from typing import Any

LOST_SECS = 30.0
"""Without any acknowledgement for so long, nobody is there."""

_LINUX = sys.platform == "linux"
_PROBES = 3
_LEFT = frozenset((7, 8))  # tcp_info's state: CLOSE, CLOSE_WAIT
_INFO = struct.Struct("=3xB20xI28xI")  # tcpi_probes, tcpi_unacked, tcpi_last_ack_recv (ms)


def probe_idle(sock: socket.socket, secs: float) -> None:
    """Have the kernel probe a connection while it is quiet, and end it after ``secs`` unanswered.

    Of a socket that listens, Linux copies the options to whatever it accepts.
    """
    if _LINUX and sock.family in {socket.AF_INET, socket.AF_INET6}:
        every = max(1, int(secs / (_PROBES + 1)))
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)


def _tcp(sock: Any) -> bool:
    return _LINUX and sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}


def closed(sock: Any) -> bool:
    """The other side has closed, though we do not read."""
    return _tcp(sock) and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in _LEFT


def lost(sock: Any, secs: float) -> bool:
    """What was sent is not acknowledged, and nothing at all has been for ``secs``.

    A full window is probed at growing intervals; one unanswered probe may have left just now.
    """
    if not _tcp(sock):
        return False
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
    probes, unacked, silent_ms = _INFO.unpack(info)
    waits: bool = unacked > 0 or probes > 1
    return waits and bool(silent_ms >= secs * 1000)
