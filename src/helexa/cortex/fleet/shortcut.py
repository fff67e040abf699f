"""The short way to a node on this machine: its Unix socket, which costs less than the loopback.

::

    the node's /discovery, over the network ──▶ socket {path, id, port}
      the same question over that socket    ──▶ the same id: taken
                                            ──▶ anything else: the network it stays

Who may not open the socket, or is somewhere else in truth (a container, a proxy in between), finds
out here. Once taken it is left at the first connection that nobody answers; that request takes the
network, and the socket is asked for again when the node has a new life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import Discovery, LocalSocket
from helexa.relay.client import parse_url, request_json
from helexa.relay.pool import UpstreamPool
from helexa.wire.bodies import UNREADABLE

_ANSWER_S = 3.0


class Shortcut:
    """Whether one node is asked over its socket; the pool of its connections is told.

    Args:
        endpoint: The node's base URL.
        headers: What every request to it carries.
        said: Told of every change, in words.
    """

    def __init__(
        self,
        pool: UpstreamPool,
        endpoint: str,
        headers: Mapping[str, str],
        said: Callable[[str], object],
    ) -> None:
        self._pool = pool
        self._endpoint = endpoint.rstrip("/")
        self._headers = headers
        self._said = said
        self._refused: LocalSocket | None = None

    @property
    def path(self) -> str | None:
        """The socket in use; None is the network."""
        return self._pool.shortcut

    async def offered(self, socket: LocalSocket | None) -> None:
        """The node has said where it listens: try it there."""
        origin, _ = parse_url(self._endpoint)
        if socket is None or origin.tls or origin.port != socket.port:
            if self.path is not None:
                self._pool.take_shortcut(None)
                self._said("asked over the network again")
            return
        why = await self._refusal(socket)
        if why is None:
            if self.path != socket.path:
                self._pool.take_shortcut(socket.path, self._lost)
                self._said(f"asked over {socket.path}")
        elif self._refused != socket:
            self._refused = socket
            self._pool.take_shortcut(None)
            self._said(f"asked over the network, {socket.path} cannot be used: {why}")

    async def _refusal(self, socket: LocalSocket) -> str | None:
        """Why this is not the way to the node that has named it; None if it is."""
        try:
            answer = await request_json(
                "GET",
                f"{self._endpoint}/discovery",
                headers=self._headers,
                timeout=_ANSWER_S,
                uds=socket.path,
            )
            known = msgspec.json.decode(answer.body, type=Discovery).socket
        except (HelexaError, *UNREADABLE) as error:
            return str(error)
        return None if known == socket else "another node answers there"

    def _lost(self, error: OSError) -> None:
        self._said(f"asked over the network again: {error}")
