"""A relay without features: the floor under any gateway on this loop and this interpreter.

uvloop and httptools, one upstream connection per client, bytes passed on as they come. It looks
for the end of each message and at nothing else: no keys, no routing, no metering, no deadlines,
no error handling. What a gateway costs beyond it is what its features cost; what it costs beyond
nginx is what Python costs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import click
import httptools
import uvloop
from kit.process import raise_descriptor_limit


class Upstream(asyncio.Protocol):
    """One connection to a node."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.transport: Any = None
        self.client: Client | None = None
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        client = self.client
        if client is None or client.transport is None:
            self.transport.close()
            return
        client.transport.write(data)
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """The answer has ended: the connection is free."""
        self.client = None
        IDLE[self.port].append(self)


class Client(asyncio.Protocol):
    """One connection of a client."""

    def __init__(self) -> None:
        self.transport: Any = None
        self._parser = httptools.HttpRequestParser(self)
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.transport = None

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """The request is whole: send it on."""
        request, self._parts = b"".join(self._parts), []
        port = next(PORTS)
        idle = IDLE[port]
        if idle:
            upstream = idle.pop()
            upstream.client = self
            upstream.transport.write(request)
        else:
            task = asyncio.get_running_loop().create_task(self._connect(port, request))
            CONNECTING.add(task)
            task.add_done_callback(CONNECTING.discard)

    async def _connect(self, port: int, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(port), "127.0.0.1", port)
        upstream.client = self
        upstream.transport.write(request)


IDLE: dict[int, list[Upstream]] = {}
PORTS: itertools.cycle[int] = itertools.cycle(())
CONNECTING: set[asyncio.Task[None]] = set()


async def serve(nodes: list[int]) -> None:
    """Relay to ``nodes`` in turns until killed."""
    global PORTS  # noqa: PLW0603  # a process with one purpose
    IDLE.update({port: [] for port in nodes})
    PORTS = itertools.cycle(nodes)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Client, "127.0.0.1", 0, backlog=4096)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"ready": True, "url": f"http://127.0.0.1:{port}"}), flush=True)
    await asyncio.Event().wait()


@click.command(help=__doc__)
@click.argument("nodes", type=int, nargs=-1)
def main(nodes: tuple[int, ...]) -> None:
    raise_descriptor_limit()
    uvloop.run(serve(list(nodes)))


if __name__ == "__main__":
    main()
