"""One parsed HTTP request, body included."""

from __future__ import annotations

from urllib.parse import unquote


class Request:
    """What a client sent.

    Attributes:
        method: Upper-case ASCII, for example ``b"POST"``.
        target: The raw request target.
        path: Raw path of the target, also of an absolute one; query removed, not decoded.
        query: Raw query without the question mark.
        headers: Lower-case names; repeated fields joined with ", ".
        body: The whole body.
        received: Loop time (seconds) when the head was complete.
        peer: Remote address, for example ``127.0.0.1``; empty for Unix sockets.
    """

    __slots__ = (
        "body",
        "headers",
        "keep_alive",
        "method",
        "path",
        "peer",
        "query",
        "received",
        "secure",
        "target",
        "version",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        headers: dict[bytes, bytes],
        *,
        version: str = "1.1",
        keep_alive: bool = True,
        received: float = 0.0,
        peer: str = "",
        secure: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        path, _, query = target.partition(b"?")
        self.path = path if path[:1] == b"/" else _absolute_path(path)
        self.query = query
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.received = received
        self.peer = peer
        self.secure = secure
        self.body = b""

    def header(self, name: bytes, default: bytes = b"") -> bytes:
        """Value of a header by lower-case name."""
        return self.headers.get(name, default)

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
