"""A forward-only window over a file, for headers of unknown length."""

from __future__ import annotations

import struct
from typing import BinaryIO, Protocol

_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
WINDOW = 1 << 20


class Raw(Protocol):
    """The part of a file the cursor uses."""

    def read(self, size: int, /) -> bytes | None: ...

    def seek(self, offset: int, /) -> int: ...


class OutOfBytesError(Exception):
    """The file ends before what its header says; internal to the readers of this package."""

    def __init__(self, needs: int, has: int) -> None:
        super().__init__(f"needs {needs} bytes, has {has}")
        self.needs = needs
        self.has = has


class Cursor:
    """Reads ``file`` of ``size`` bytes forward, a window at a time.

    ``at`` is the absolute position. The window holds ``[start, start + len(window))``.

    Raises:
        OutOfBytesError: From every method, when the file ends too early.
    """

    def __init__(self, file: BinaryIO | Raw, size: int) -> None:
        self._file = file
        self._window = b""
        self._start = 0
        self.size = size
        self.at = 0

    def need(self, count: int) -> None:
        """Check that ``count`` bytes can follow, without reading them."""
        if self.at + count > self.size:
            raise OutOfBytesError(self.at + count, self.size)

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        index = self._fill(count)
        self.at += count
        return self._window[index : index + count]

    def u32(self) -> int:
        """The next unsigned 32-bit integer."""
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        """The next unsigned 64-bit integer."""
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def skip(self, count: int) -> None:
        """Move on without reading."""
        self.need(count)
        self.at += count

    def skip_strings(self, count: int) -> None:
        """Move over ``count`` length-prefixed strings (a vocabulary has hundreds of thousands)."""
        unpack = _U64.unpack_from
        while count:
            index = self._fill(8)
            window, last = self._window, len(self._window) - 8
            begin = index
            while count and index <= last:
                index += 8 + unpack(window, index)[0]
                count -= 1
            self.skip(index - begin)

    def _fill(self, count: int) -> int:
        """Make ``count`` bytes from ``at`` visible; their index in the window."""
        index = self.at - self._start
        if index >= 0 and index + count <= len(self._window):
            return index
        self.need(count)
        self._file.seek(self.at)
        data = b""
        while len(data) < count:  # a raw file may return less than was asked for
            piece = self._file.read(max(count, WINDOW) - len(data))
            if not piece:
                raise OutOfBytesError(self.at + count, self.at + len(data))
            data += piece
        self._window, self._start = data, self.at
        return 0
