"""``GET /metrics`` on a port of its own, so that scraping needs no key and no client's port.

One request per connection. A thousand keys are more text than the loop should stop for, so it is
rendered in slices; a thread would not help, it holds the interpreter for 5 ms at a time.
"""

from __future__ import annotations

import asyncio

from helexa.core.metrics import CONTENT_TYPE, Registry
from helexa.relay.listener import address_of

HEAD_LIMIT = 16_384
HEAD_TIMEOUT_S = 5.0
SLICE_LINES = 100
"""About a quarter of a millisecond."""


class MetricsServer:
    """A running exporter; ``port`` is the one it got."""

    __slots__ = ("_server", "port")

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()


async def serve_metrics(registry: Registry, host: str, port: int) -> MetricsServer:
    """Start the exporter.

    Raises:
        OSError: The address cannot be used.
    """

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
            writer.write(await _answer(registry, head))
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a scraper that left or sends no request gets no answer
        finally:
            writer.close()

    return MetricsServer(
        await asyncio.start_server(handle, **address_of(host, port), limit=HEAD_LIMIT)
    )


async def _answer(registry: Registry, head: bytes) -> bytes:
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD") or path not in (b"/metrics", b"/"):
        return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    body = await _render(registry)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        % (CONTENT_TYPE, len(body))
    ) + (body if method == b"GET" else b"")


async def _render(registry: Registry) -> bytes:
    registry.update()
    lines: list[str] = []
    for line in registry.lines():
        lines.append(line)
        if len(lines) % SLICE_LINES == 0:
            await asyncio.sleep(0)
    return "".join(lines).encode()
