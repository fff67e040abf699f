"""Server-sent events out of bytes in any pieces."""

from __future__ import annotations


class Sse:
    """Splits a stream into the data of its events; comments are kept aside."""

    __slots__ = ("_rest", "comments")

    def __init__(self) -> None:
        self._rest = b""
        self.comments: list[str] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that is now complete."""
        if self._rest:
            data = self._rest + data
        *events, self._rest = data.replace(b"\r\n", b"\n").split(b"\n\n")
        return [found for event in events if (found := self._data(event))]

    def _data(self, event: bytes) -> bytes:
        lines = event.split(b"\n")
        self.comments += [
            line[1:].strip().decode("utf-8", "replace") for line in lines if line[:1] == b":"
        ]
        return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line[:5] == b"data:")
