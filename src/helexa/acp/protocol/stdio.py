"""stdin and stdout as the protocol's lines; everything else that prints goes to stderr."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import stat
import sys

_LIMIT = 64 * 1024 * 1024
"""Bytes of one line: a prompt may carry pictures."""


class Stdout:
    """Whole lines on a pipe, written by the loop, so that a slow editor never stops us reading."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    def write(self, line: bytes) -> None:
        """Queue one line."""
        if not self._writer.is_closing():
            self._writer.write(line)

    async def drain(self) -> None:
        """Wait until the editor keeps up; one that has gone is noticed by the reader."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()


class PlainFile:
    """Whole lines to what is no pipe: a file, when somebody looks at the protocol by hand."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: bytes) -> None:
        """Write one line."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line)

    async def drain(self) -> None:
        """Nothing waits."""


def _can_be_waited_for(descriptor: int) -> bool:
    """Not so a file or /dev/null, which always have all that they will ever have."""
    with select.epoll() as probe:
        try:
            probe.register(descriptor, select.EPOLLIN)
        except PermissionError:
            return False
    return True


async def open_stdio() -> tuple[asyncio.StreamReader, Stdout | PlainFile]:
    """Take both over; ``print`` and stray libraries write to stderr from now on."""
    loop = asyncio.get_running_loop()
    real = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    reader = asyncio.StreamReader(limit=_LIMIT)
    if _can_be_waited_for(sys.stdin.fileno()):
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    else:
        reader.feed_data(await asyncio.to_thread(sys.stdin.buffer.read))
        reader.feed_eof()
    if stat.S_ISREG(os.fstat(real).st_mode):
        return reader, PlainFile(real)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(real, "wb", 0)
    )
    return reader, Stdout(asyncio.StreamWriter(transport, protocol, None, loop))
