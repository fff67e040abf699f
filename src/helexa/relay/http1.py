"""HTTP/1.1 by the book: limits, the checks that stop request smuggling, and answer heads.

llhttp (through httptools) refuses most ambiguous framing by itself; ``check_head`` adds what it
lets through. Rules: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from http import HTTPStatus

import msgspec

from helexa.relay.vanished import LOST_SECS


class Limits(msgspec.Struct, frozen=True):
    """Bounds of the server side; sizes in bytes, times in seconds.

    ``stall_secs`` is for a client that is there and takes nothing, ``lost_secs`` for one whose
    machine or network has gone without a word.
    """

    head_bytes: int = 65_536
    body_bytes: int = 64 * 1024 * 1024
    head_secs: float = 15.0
    body_secs: float = 30.0
    keep_alive_secs: float = 75.0
    stall_secs: float = 300.0
    lost_secs: float = LOST_SECS
    write_high_water: int = 65_536
    pipeline: int = 16


class BadRequest(Exception):
    """The bytes on the connection are no acceptable request; it is answered and closed.

    Attributes:
        url, headers: Of the request, as far as they had been read; for whoever words the answer.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.url = b""
        self.headers: dict[bytes, bytes] = {}
        self.status = status
        self.code = code
        self.message = message


_REASONS = {int(s): s.phrase for s in HTTPStatus}
STATUS_LINES = {
    status: f"HTTP/1.1 {status} {phrase}\r\n".encode() for status, phrase in _REASONS.items()
}

# A repeated one of these lets two parsers disagree about the request.
SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type", b"expect"))


def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` with its line end."""
    line = STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d -\r\n" % status


def header_block(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Header lines as bytes, each with its line end.

    Raises:
        ValueError: A name or a value contains a line break (response splitting).
    """
    lines = [b"%b: %b\r\n" % (name, value) for name, value in headers]
    block = b"".join(lines)
    if block.count(b"\n") != len(lines) or block.count(b"\r") != len(lines) or b"\0" in block:
        raise ValueError("line break inside a header")
    return block


def check_head(version: str, headers: dict[bytes, bytes]) -> None:
    """Refuse heads whose framing two parsers could read differently.

    Raises:
        BadRequest: With the status to answer before closing.
    """
    if version not in ("1.1", "1.0"):
        raise BadRequest(505, "invalid_request", f"HTTP/{version} is not served; use HTTP/1.1.")
    coding = headers.get(b"transfer-encoding")
    if coding is not None:
        if b"content-length" in headers:
            raise BadRequest(
                400, "invalid_request", "Content-Length and Transfer-Encoding exclude each other."
            )
        if version == "1.0" or coding.strip().lower() != b"chunked":
            raise BadRequest(
                400, "invalid_request", "The only Transfer-Encoding served is 'chunked'."
            )
    if version == "1.1" and b"host" not in headers:
        raise BadRequest(400, "invalid_request", "HTTP/1.1 requests need a Host header.")


class DateHeader:
    """Status line and ``date`` header, formatted once a second."""

    __slots__ = ("_lines", "_second", "_stamp")

    def __init__(self) -> None:
        self._second = 0
        self._stamp = b""
        self._lines: dict[int, bytes] = {}

    def lines(self, status: int) -> bytes:
        """``HTTP/1.1 200 OK`` and ``date: …``, each with its line end."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
            self._stamp = f"date: {stamp}\r\n".encode()
            self._lines.clear()
        lines = self._lines.get(status)
        if lines is None:
            lines = self._lines[status] = status_line(status) + self._stamp
        return lines
