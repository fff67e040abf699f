"""A listening socket with its connections: bound, encrypted, drained."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

from helexa.relay.connections import App, Connections, Foresee, MayMultiplex
from helexa.relay.http1 import Limits
from helexa.relay.outbox import Outbox
from helexa.relay.server import ServerProtocol
from helexa.relay.unix import bound_unix
from helexa.relay.vanished import probe_idle
from helexa.relay.wheel import Wheel

_NO_PASSPHRASE = ""
"""For a key that is encrypted: refused, where OpenSSL would ask the terminal and wait."""


class Tls:
    """A certificate that can be renewed while it serves.

    New handshakes use what was loaded last; connections that are open keep theirs.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._stamps()
        self.context.load_cert_chain(cert, key, _NO_PASSPHRASE)

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        stats = [path.stat() for path in (self._cert, self._key)]
        return tuple((s.st_mtime_ns, s.st_ino) for s in stats)

    def reload_if_changed(self) -> bool:
        """Load the files again if they changed; a pair that does not match is left for later.

        Raises:
            OSError, ssl.SSLError: The new files cannot be used; the old certificate stays.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        # A context whose load failed half-way would serve a torn pair: try on another one first.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            self._cert, self._key, _NO_PASSPHRASE
        )
        self.context.load_cert_chain(self._cert, self._key, _NO_PASSPHRASE)
        self._seen = stamps
        return True


_LOCAL = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}


def local_url(host: str, port: int, scheme: str = "http") -> str:
    """The base URL by which clients on this machine reach what listens on ``host``."""
    host = _LOCAL.get(host, host)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


_BACKLOG = 4096


def address_of(host: str, port: int) -> dict[str, Any]:
    """An address as ``create_server`` takes it.

    ``::`` is every address, those of IPv4 too; asyncio would leave them out.

    Raises:
        OSError: It is ``::``, and the port is taken.
    """
    if host == "::" and socket.has_dualstack_ipv6():
        family = socket.AF_INET6
        return {"sock": socket.create_server(("::", port), family=family, dualstack_ipv6=True)}
    return {"host": host, "port": port}


class Listener:
    """One address that serves an ``App``, and perhaps a Unix socket beside it.

    Args:
        host, port: Where to listen; port 0 takes any free one.
        multiplexed, foresee: As of ``Connections``.
    """

    def __init__(
        self,
        app: App,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        tls: Tls | None = None,
        outbox: Outbox | None = None,
        *,
        multiplexed: MayMultiplex | None = None,
        foresee: Foresee = lambda _head: None,
    ) -> None:
        self.connections = Connections(
            ServerProtocol,
            app,
            wheel,
            loop,
            limits,
            outbox,
            multiplexed=multiplexed,
            foresee=foresee,
        )
        self.tls = tls
        self._loop = loop
        self._server: asyncio.Server | None = None
        self._local: asyncio.Server | None = None
        self._path: Path | None = None
        self.port = 0
        self.host = ""

    async def start(self, host: str, port: int) -> None:
        """Bind and listen.

        Raises:
            OSError: The port is taken, or the address is not ours.
        """
        self._server = await self._loop.create_server(
            self.connections.protocol,
            **address_of(host, port),
            backlog=_BACKLOG,
            **(self._secure(self.tls) if self.tls else {}),
        )
        for sock in self._server.sockets:
            probe_idle(sock, self.connections.limits.lost_secs)
        self.host = host
        self.port = self._server.sockets[0].getsockname()[1]

    async def start_local(self, path: Path) -> None:
        """Listen on a Unix socket too, for this user only.

        Raises:
            OSError: There can be none; see ``bound_unix``.
        """
        self._local = await self._loop.create_unix_server(
            self.connections.protocol, sock=bound_unix(path), backlog=_BACKLOG
        )
        self._path = path

    def _secure(self, tls: Tls) -> dict[str, Any]:
        # A handshake is a head; and nobody waits long for the other side's farewell.
        return {
            "ssl": tls.context,
            "ssl_handshake_timeout": self.connections.limits.head_secs,
            "ssl_shutdown_timeout": min(2.0, self.connections.limits.head_secs),
        }

    @property
    def url(self) -> str:
        """Base URL for clients on this machine."""
        return local_url(self.host, self.port, "https" if self.tls else "http")

    async def drain(self, secs: float, patience: float = 0.0) -> int:
        """Stop accepting, let answers finish for ``secs``, then cut.

        Args:
            patience: As of ``Connections.drain``.

        Returns:
            How many connections had to be cut.
        """
        for server in (self._server, self._local):
            if server is not None:
                server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self.connections.drain(patience)
        deadline = self._loop.time() + secs
        while self.connections.open and self._loop.time() < deadline:
            await asyncio.sleep(0.02)
            self.connections.close_idle()
        left = list(self.connections.open)
        for connection in left:
            connection.abort()
        return len(left)
