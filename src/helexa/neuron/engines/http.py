"""A small HTTP/1.1 client for an engine's own routes: one request, one connection, one answer.

For probes, counts and figures; what relays tokens is ``helexa.relay``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import msgspec

from helexa.core.errors import UpstreamConnectionError, UpstreamTimeout
from helexa.neuron.engines.base import Address

_MAX_HEAD = 65_536


class Answer(msgspec.Struct, frozen=True):
    """Status and whole body."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The decoded body.

        Raises:
            UpstreamConnectionError: It is not JSON.
        """
        try:
            return msgspec.json.decode(self.body)
        except msgspec.DecodeError:
            raise UpstreamConnectionError("The engine's answer is not JSON.") from None


async def connect(address: Address) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to an engine.

    Raises:
        OSError: Nobody listens there.
    """
    if address.uds:
        return await asyncio.open_unix_connection(address.uds, limit=1 << 20)
    return await asyncio.open_connection(address.host, address.port, limit=1 << 20)


def head(address: Address, method: str, path: str, length: int) -> bytes:
    """The request head; the engine is asked to close afterwards."""
    lines = (
        f"{method} {path} HTTP/1.1",
        "Host: engine",
        f"Authorization: Bearer {address.api_key}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def ask(
    address: Address, method: str, path: str, body: Any = None, *, timeout_s: float = 10.0
) -> Answer:
    """Send ``body`` (bytes, or anything JSON) and return the whole answer.

    Raises:
        UpstreamTimeout: Not answered within ``timeout_s``.
        UpstreamConnectionError: Nobody listens, or the answer broke off.
    """
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(address, method, path, raw)
    except TimeoutError as error:
        raise UpstreamTimeout(f"The engine did not answer within {timeout_s:g} s.") from error
    except (OSError, EOFError, ValueError) as error:
        raise UpstreamConnectionError("The engine cannot be reached.") from error


async def _exchange(address: Address, method: str, path: str, raw: bytes) -> Answer:
    reader, writer = await connect(address)
    try:
        writer.write(head(address, method, path, len(raw)) + raw)
        status, length = await _answer_head(reader)
        body = await (reader.read() if length is None else reader.readexactly(length))
        return Answer(status, body)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer_head(reader: asyncio.StreamReader) -> tuple[int, int | None]:
    """Status, and the length if the answer has one (else it ends with the connection)."""
    lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    fields = dict(line.lower().split(b":", 1) for line in lines[1:] if b":" in line)
    length = fields.get(b"content-length")
    return int(lines[0].split()[1]), None if length is None else int(length)
