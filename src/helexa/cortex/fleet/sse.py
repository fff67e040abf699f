"""A reader of server-sent events that is fed bytes as they arrive."""

from __future__ import annotations

import re
from typing import NamedTuple

LIMIT = 8 * 1024 * 1024
"""Bytes an unfinished event may have; a node's snapshot is far smaller."""

_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class ServerEvent(NamedTuple):
    """One event; ``data`` without the field name, ``id`` None when the event carries none."""

    id: str | None
    data: bytes


class EventReader:
    """Cuts a byte stream into events; any chunking of the same bytes gives the same events."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that ``data`` completes.

        Raises:
            ValueError: An event grew beyond ``LIMIT``.
        """
        *whole, self._buffer = _BLANK.split(self._buffer + data)
        if len(self._buffer) > LIMIT:
            raise ValueError(f"an event of more than {LIMIT} bytes")
        return [event for block in whole if (event := _parse(block)) is not None]


def _parse(block: bytes) -> ServerEvent | None:
    found: str | None = None
    data: list[bytes] = []
    for line in block.splitlines():
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"id":
            found = value.decode("latin-1")
    return ServerEvent(found, b"\n".join(data)) if data else None
