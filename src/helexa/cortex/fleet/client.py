"""A node's management routes, as the gateway uses them.

``NodeApi`` is the door that the fleet's tasks and the loader act through; ``HttpNode`` is the
real one. Foreign failures become ``UpstreamConnectionError`` or ``UpstreamTimeout``.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import NamedTuple, Protocol, cast

from helexa.core.errors import UpstreamConnectionError
from helexa.core.fleet import Discovery
from helexa.core.settings import SettingsError
from helexa.cortex.fleet.shortcut import Shortcut
from helexa.cortex.links import NodeLink
from helexa.cortex.settings import NeuronSettings
from helexa.relay.client import KeptClient, request_json, stream
from helexa.relay.multiplex import VERSION


class Answer(NamedTuple):
    """A node's answer."""

    status: int
    body: bytes


class EventStream(NamedTuple):
    """An open ``GET /events``: its status, and its bytes as they come."""

    status: int
    chunks: AsyncIterator[bytes]


class NodeApi(Protocol):
    """One node's management routes."""

    async def get(self, path: str, timeout_s: float) -> Answer:
        """One GET.

        Raises:
            UpstreamConnectionError: No connection, or it broke.
            UpstreamTimeout: No whole answer within ``timeout_s`` seconds.
        """

    async def post(self, path: str, body: object, timeout_s: float) -> Answer:
        """One POST of a JSON body; raises as ``get``."""

    def events(
        self, last_event_id: str | None, silence_s: float
    ) -> AbstractAsyncContextManager[EventStream]:
        """Open ``GET /events``; the iterator raises as ``get`` does, and after ``silence_s``
        seconds without a byte."""

    @property
    def socket(self) -> str | None:
        """The Unix socket that it is asked over; None is the network."""

    @property
    def multiplexed(self) -> bool:
        """Its requests share one connection."""

    async def offered(self, discovery: Discovery) -> None:
        """The node has said by which ways it can be asked; take the best of them."""

    async def aclose(self) -> None:
        """Close what is kept open."""


class Trust(NamedTuple):
    """What every request to a node carries: the fleet secret and our name."""

    gateway: str
    secret: str | None = None

    def headers(self) -> Mapping[str, str]:
        """As header fields."""
        fields = {"x-helexa-gateway": self.gateway}
        if self.secret is not None:
            fields["authorization"] = f"Bearer {self.secret}"
        return fields

    def __repr__(self) -> str:
        return f"Trust(gateway={self.gateway!r}, secret={'***' if self.secret else None})"


class HttpNode:
    """``NodeApi`` over HTTP.

    Args:
        endpoint: Base URL, ``http://`` or ``https://``.
        trust: What every request carries.
        tls: For ``https://``; see ``tls_of``.
        kept: Makes the calls over connections that are kept; None opens one for each.
        shortcut: Takes the node's socket where it can; None always takes the network.
        link: Takes one connection for many requests where the node has that.
    """

    def __init__(
        self,
        endpoint: str,
        trust: Trust,
        tls: ssl.SSLContext | None = None,
        kept: KeptClient | None = None,
        shortcut: Shortcut | None = None,
        link: NodeLink | None = None,
    ) -> None:
        self._base = endpoint.rstrip("/")
        self._trust = trust
        self._tls = tls
        self._kept = kept
        self._shortcut = shortcut
        self._link = link

    @property
    def socket(self) -> str | None:
        """See ``NodeApi.socket``."""
        return None if self._shortcut is None else self._shortcut.path

    @property
    def multiplexed(self) -> bool:
        """See ``NodeApi.multiplexed``."""
        return self._link is not None and self._link.multiplexed

    async def offered(self, discovery: Discovery) -> None:
        """See ``NodeApi.offered``."""
        if self._shortcut is not None:
            await self._shortcut.offered(discovery.socket)
        if self._link is not None:
            self._link.offered(discovery.multiplex == VERSION)

    async def get(self, path: str, timeout_s: float) -> Answer:
        """See ``NodeApi.get``."""
        return await self._call("GET", path, None, timeout_s)

    async def post(self, path: str, body: object, timeout_s: float) -> Answer:
        """See ``NodeApi.post``."""
        return await self._call("POST", path, body, timeout_s)

    @asynccontextmanager
    async def events(
        self, last_event_id: str | None, silence_s: float
    ) -> AsyncGenerator[EventStream, None]:
        """See ``NodeApi.events``."""
        headers = {**self._trust.headers(), "accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        items = stream(
            f"{self._base}/events",
            headers=headers,
            idle_timeout=silence_s,
            tls=self._tls,
            uds=self.socket,
        )
        async with aclosing(cast("AsyncGenerator[bytes | int, None]", items)) as open_items:
            status = await anext(open_items, None)
            if not isinstance(status, int):
                raise UpstreamConnectionError(f"{self._base}/events ended without an answer")
            yield EventStream(status, _only_bytes(open_items))

    async def aclose(self) -> None:
        """Nothing is kept open between calls."""

    async def _call(self, method: str, path: str, body: object, timeout_s: float) -> Answer:
        if self._kept is not None:
            headers = self._trust.headers()
            kept = await self._kept.call(method, self._base + path, body, headers, timeout_s)
            return Answer(kept.status, kept.body)
        response = await request_json(
            method,
            self._base + path,
            body,
            headers=self._trust.headers(),
            timeout=timeout_s,
            tls=self._tls,
        )
        return Answer(response.status, response.body)


def tls_of(node: NeuronSettings) -> ssl.SSLContext | None:
    """Trust for a node: the system's authorities, or its own ``ca``; None without TLS.

    Raises:
        SettingsError: ``ca`` cannot be read or holds no certificate.
    """
    if not node.endpoint.startswith("https://"):
        return None
    ca = node.ca
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except OSError as error:  # also what ssl raises for a file without a certificate
        raise SettingsError(f"neurons: the ca {ca} cannot be used: {error}") from error


async def _only_bytes(items: AsyncIterator[bytes | int]) -> AsyncIterator[bytes]:
    async for item in items:
        if isinstance(item, bytes):
            yield item
