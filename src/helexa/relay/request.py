"""One parsed HTTP request: its head, which requests of a connection may share, and its body."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

import msgspec


class Head:
    """Request line and headers. Never changed: requests with the same bytes share one.

    Attributes:
        method: Upper-case ASCII, for example ``b"POST"``.
        target: The raw request target.
        path: Raw path of the target, also of an absolute one; query removed, not decoded.
        query: Raw query without the question mark.
        headers: Lower-case names; repeated fields joined with ", ".
        keep_alive: The connection stays open after the answer.
        head_only: The answer is to have no body, as ``HEAD`` asks.
        chunked: The client reads chunked answers; an older one gets what ends with the connection.
        memo: For the application: what it has worked out from this head. Lives as long as the
            connection and the requests that share it.
    """

    __slots__ = (
        "chunked",
        "head_only",
        "headers",
        "keep_alive",
        "memo",
        "method",
        "path",
        "query",
        "target",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        version: str = "1.1",
        keep_alive: bool = True,
    ) -> None:
        self.method = method
        self.target = target
        path, _, query = target.partition(b"?")
        self.path = path if path[:1] == b"/" else _absolute_path(path)
        self.query = query
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.head_only = method == b"HEAD"
        self.chunked = version == "1.1"
        self.memo: Any = None

    def with_length(self, length: bytes) -> Head:
        """The same head with another ``content-length``."""
        other = Head(self.method, self.target, self.headers, self.version, self.keep_alive)
        other.headers = {**self.headers, b"content-length": length}
        other.memo = self.memo
        return other


class Request(msgspec.Struct, gc=False, eq=False):
    """What a client sent.

    Args:
        body: The whole body.
        received: Loop time (seconds) when the head was complete.
        peer: Remote address, for example ``127.0.0.1``; empty for Unix sockets.
    """

    head: Head
    body: bytes
    received: float
    peer: str
    secure: bool

    @property
    def headers(self) -> dict[bytes, bytes]:
        """See ``Head``."""
        return self.head.headers

    @property
    def method(self) -> bytes:
        """See ``Head``."""
        return self.head.method

    @property
    def path(self) -> bytes:
        """See ``Head``."""
        return self.head.path

    @property
    def query(self) -> bytes:
        """See ``Head``."""
        return self.head.query

    @property
    def target(self) -> bytes:
        """See ``Head``."""
        return self.head.target

    @property
    def version(self) -> str:
        """``1.0`` or ``1.1``."""
        return self.head.version

    @property
    def keep_alive(self) -> bool:
        """See ``Head``."""
        return self.head.keep_alive

    def header(self, name: bytes, default: bytes = b"") -> bytes:
        """Value of a header by lower-case name."""
        return self.head.headers.get(name, default)

    @property
    def decoded_path(self) -> str:
        """The path with percent-escapes resolved."""
        return unquote(self.path.decode("latin-1"))

    def __repr__(self) -> str:
        # Bodies hold prompts and headers hold secrets: neither belongs in a log.
        return f"Request({self.method.decode()} {self.path.decode('latin-1')}, {len(self.body)} B)"


def _absolute_path(target: bytes) -> bytes:
    """The path of ``http://host/path`` (RFC 9112, 3.2.2); ``*`` stays."""
    _, scheme, rest = target.partition(b"://")
    if not scheme:
        return target
    _, slash, path = rest.partition(b"/")
    return slash + path or b"/"
