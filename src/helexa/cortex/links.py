"""The relayed path to each node: its connections and the head that every request carries."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable

from helexa.relay.client import KeptClient, parse_url
from helexa.relay.outbox import Outbox
from helexa.relay.pool import UpstreamPool
from helexa.relay.trunk import Trunk
from helexa.relay.wheel import Wheel


class NodeLink:
    """One node as the data plane sees it.

    Args:
        pool: Connections, one for each request under way.
        trunk: One connection for many requests, where the node has that ...
        channels: ... and the pool of what it gives out.
        trust: Header lines with the fleet secret and our name, complete.
    """

    __slots__ = ("_channels", "_prefix", "_trunk", "_trust", "name", "pool")

    def __init__(
        self,
        name: str,
        pool: UpstreamPool,
        trunk: Trunk,
        channels: UpstreamPool,
        prefix: str,
        trust: bytes,
    ) -> None:
        self.name = name
        self.pool = pool
        self._trunk = trunk
        self._channels = channels
        self._prefix = prefix.rstrip("/").encode()
        self._trust = trust

    def way(self, *, small: bool) -> UpstreamPool:
        """Where a request takes its connection from.

        Args:
            small: Neither it nor its answer would keep others waiting that share a connection.
        """
        return self._channels if small and self._trunk.up() else self.pool

    @property
    def multiplexed(self) -> bool:
        """Requests share one connection."""
        return self._trunk.open

    def offered(self, multiplex: bool) -> None:
        """The node has said whether it takes many requests over one connection.

        Where a proxy serves it under a path of its own, it would not know its own paths there.
        """
        if self._trunk.outdated():
            self._channels.renew()
            self._trunk.renew()
        self._trunk.offered(multiplex and not self._prefix)

    def close(self) -> None:
        """Let go of what is idle; what runs goes on."""
        self.pool.close()
        self._channels.close()
        self._trunk.close()

    def head(self, path: bytes, size: int, request_id: str, attempt: int, lines: bytes) -> bytes:
        """Request line and headers, with the blank line.

        Args:
            path: Route on the node.
            size: Bytes of the body.
            lines: Further header lines, complete.
        """
        return (
            b"POST %b%b HTTP/1.1\r\n%bx-request-id: %b\r\nx-helexa-attempt: %d\r\n"
            b"%bcontent-length: %d\r\n\r\n"
        ) % (self._prefix, path, self._trust, request_id.encode(), attempt, lines, size)


class Links:
    """The links by node name; follows the fleet's configuration."""

    def __init__(
        self,
        wheel: Wheel,
        loop: asyncio.AbstractEventLoop,
        *,
        gateway: str,
        secret: str | None,
        connect_secs: float,
        outbox: Outbox | None = None,
    ) -> None:
        self._wheel = wheel
        self._loop = loop
        self._connect_secs = connect_secs
        self._outbox = outbox
        lines = f"content-type: application/json\r\nx-helexa-gateway: {gateway}\r\n"
        if secret is not None:
            lines += f"authorization: Bearer {secret}\r\n"
        self._trust = lines.encode()
        self._links: dict[str, NodeLink] = {}

    def add(
        self,
        name: str,
        endpoint: str,
        tls: ssl.SSLContext | None = None,
        said: Callable[[str], object] = lambda _what: None,
    ) -> NodeLink:
        """Prepare the way to a node; nothing is connected yet.

        Args:
            said: Told in words when the way changes.
        """
        origin, prefix = parse_url(endpoint)
        pool = UpstreamPool(
            origin,
            self._wheel,
            self._loop,
            connect_secs=self._connect_secs,
            tls=tls,
            outbox=self._outbox,
            delay_acks=True,
        )
        lines = f"host: {origin.authority}\r\n".encode() + self._trust
        trunk = Trunk(
            pool.dial, lines, self._wheel, self._loop, said=said, route=lambda: pool.shortcut
        )
        channels = UpstreamPool(
            origin, self._wheel, self._loop, connect_secs=self._connect_secs, dial=trunk.dial
        )
        link = self._links[name] = NodeLink(name, pool, trunk, channels, prefix, lines)
        return link

    def client(self, name: str) -> KeptClient | None:
        """For calls to a node over the same connections; None when it is not configured."""
        link = self._links.get(name)
        return None if link is None else KeptClient(link.pool, self._wheel, self._loop)

    def remove(self, name: str) -> None:
        """Forget a node; what runs on it goes on."""
        link = self._links.pop(name, None)
        if link is not None:
            link.close()

    def get(self, name: str) -> NodeLink | None:
        """The way to a node, or None when it is not configured (any more)."""
        return self._links.get(name)

    def close(self) -> None:
        """Close every idle connection."""
        for name in list(self._links):
            self.remove(name)
