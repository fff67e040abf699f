"""A small HTTP client for management calls: off the relayed path, clear rather than clever.

``request_json`` opens a connection for its call and closes it; ``KeptClient`` is for whoever
calls the same origin twice a second for months, over the pool of the relayed path. Errors are
``UpstreamConnectionError`` and ``UpstreamTimeout`` of the common tree.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import msgspec

from helexa.core.errors import UpstreamConnectionError, UpstreamFailed, UpstreamTimeout
from helexa.relay.attempt import Attempt, Deadlines
from helexa.relay.http1 import header_block
from helexa.relay.names import Name
from helexa.relay.pool import Origin, UpstreamPool
from helexa.relay.tcp import connect_tcp
from helexa.relay.unix import connect_unix
from helexa.relay.unreached import Unreached, silent, unreached
from helexa.relay.upstream import Failure, Headers, Sink, UpstreamConnection
from helexa.relay.wheel import Wheel


class Response(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def parse_url(url: str) -> tuple[Origin, str]:
    """Origin and target of an ``http://`` or ``https://`` URL.

    Raises:
        ValueError: Another scheme, or no host.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"'{url}' is not an http:// or https:// URL")
    tls = parts.scheme == "https"
    target = parts.path or "/"
    if parts.query:
        target += "?" + parts.query
    return Origin(parts.hostname, parts.port or (443 if tls else 80), tls=tls), target


def _place(url: str) -> tuple[str, int]:
    origin, _ = parse_url(url)
    return origin.host, origin.port


def _not_reached(why: Unreached, *, timed_out: bool) -> UpstreamFailed:
    return (UpstreamTimeout if timed_out else UpstreamConnectionError)(why.whole)


def _no_connection(url: str, uds: str | None, error: OSError) -> UpstreamFailed:
    if uds is not None:
        return UpstreamConnectionError(f"no connection to {url} at {uds}: {error}")
    return _not_reached(unreached(error, *_place(url)), timed_out=False)


_WAITING = 1 << 20  # bytes of a stream that may wait for their reader; then nothing is read


class _Inbox(Sink):
    """Sink of one call: what has arrived, and who waits for more."""

    def __init__(self, connection: UpstreamConnection, max_body: int | None) -> None:
        self._connection = connection
        self._max_body = max_body
        self._size = 0
        self.status = 0
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.ended = False
        self.failure: Failure | None = None
        self.news = asyncio.Event()

    def on_response(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, headers
        self.news.set()

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._max_body is None:
            if self._size > _WAITING:
                self._connection.pause()
        elif self._size > self._max_body:
            self._connection.abandon()
            self.on_failure(Failure.TOO_LARGE)
            return
        self.parts.append(data)
        self.news.set()

    def take(self) -> bytes:
        """What waits; the connection is read again."""
        data = b"".join(self.parts)
        if self._size > _WAITING:
            self._connection.resume()
        self.parts, self._size = [], 0
        return data

    def on_complete(self) -> None:
        self.ended = True
        self.news.set()

    def on_failure(self, failure: Failure) -> None:
        self.ended, self.failure = True, failure
        self.news.set()

    def watch(self, now: float) -> float | None:  # noqa: ARG002
        return None  # callers wait with their own deadlines


def _head(
    method: str, origin: Origin, target: str, body: bytes | None, headers: Mapping[str, str]
) -> bytes:
    lines = [("host", origin.authority), *headers.items()]
    if body is not None:
        lines += [("content-type", "application/json"), ("content-length", str(len(body)))]
    block = header_block((name.encode("latin-1"), value.encode("latin-1")) for name, value in lines)
    return f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + block + b"\r\n"


def _encoded(body: object) -> bytes | None:
    return body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)


def _fresh() -> UpstreamConnection:
    return UpstreamConnection(lambda _c, _keep: None)


async def _open(
    method: str,
    url: str,
    body: bytes | None,
    headers: Mapping[str, str],
    tls: ssl.SSLContext | None,
    max_body: int | None,
    uds: str | None = None,
) -> tuple[UpstreamConnection, _Inbox]:
    origin, target = parse_url(url)
    head = _head(method, origin, target, body, {"connection": "close", **headers})
    loop = asyncio.get_running_loop()
    if uds is not None:
        _, connection = await connect_unix(loop, _fresh, uds)
    else:
        context = tls
        if origin.tls and tls is None:  # reads every root certificate: milliseconds
            context = await asyncio.to_thread(ssl.create_default_context)
        secured = context if origin.tls else None
        name = Name(loop, origin.host, origin.port)
        connection = await connect_tcp(loop, _fresh, name, secured)
    inbox = _Inbox(connection, max_body)
    connection.send(head, body or b"", inbox)
    return connection, inbox


async def request_json(
    method: str,
    url: str,
    body: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    timeout: float = 5.0,  # noqa: ASYNC109  # the callers' one knob
    tls: ssl.SSLContext | None = None,
    max_body: int = 64 * 1024 * 1024,
    uds: str | None = None,
) -> Response:
    """Call ``url`` and return the whole answer, whatever its status.

    Args:
        body: Encoded as JSON; bytes are sent as they are; None sends none.
        timeout: Seconds for everything together.
        max_body: Largest answer, bytes; a larger one is an ``UpstreamConnectionError``.
        uds: Path of a Unix socket to connect to, whatever host ``url`` names.

    Raises:
        UpstreamConnectionError: No connection, or it broke.
        UpstreamTimeout: ``timeout`` passed.
    """
    data = _encoded(body)
    connection = None
    try:
        async with asyncio.timeout(timeout):
            connection, inbox = await _open(method, url, data, headers or {}, tls, max_body, uds)
            while not inbox.ended:
                inbox.news.clear()
                await inbox.news.wait()
    except TimeoutError as error:
        if connection is None:
            raise _not_reached(silent(*_place(url), timeout), timed_out=True) from error
        raise UpstreamTimeout(f"{url} did not answer within {timeout:g} s") from error
    except OSError as error:
        raise _no_connection(url, uds, error) from error
    finally:
        if connection is not None:
            connection.abandon()
    if inbox.failure is not None:
        raise UpstreamConnectionError(f"{url}: {inbox.failure.value}")
    return Response(inbox.status, inbox.headers, b"".join(inbox.parts))


class KeptClient:
    """Calls to one origin over its pool's connections.

    Args:
        wheel, loop: As the pool's.
    """

    def __init__(self, pool: UpstreamPool, wheel: Wheel, loop: asyncio.AbstractEventLoop) -> None:
        self._pool = pool
        self._wheel = wheel
        self._loop = loop

    async def call(
        self, method: str, url: str, body: object, headers: Mapping[str, str], timeout_s: float
    ) -> Response:
        """As ``request_json``; ``url`` must be one of the pool's origin."""
        data = _encoded(body)
        head = _head(method, *parse_url(url), data, headers)
        deadlines = Deadlines(timeout_s, timeout_s, timeout_s)
        attempt = Attempt(self._pool, self._wheel, self._loop, deadlines)
        try:
            async with asyncio.timeout(timeout_s):
                await attempt.run(head, data or b"")
        except TimeoutError as error:
            if not attempt.connected_at:
                raise _not_reached(self._pool.silent(timeout_s), timed_out=True) from error
            raise UpstreamTimeout(f"{url} did not answer within {timeout_s:g} s") from error
        failure = attempt.failure
        if attempt.unreached is not None and failure is not None:
            raise _not_reached(attempt.unreached, timed_out=failure.timed_out)
        if failure is not None:
            kind = UpstreamTimeout if failure.timed_out else UpstreamConnectionError
            raise kind(f"{url}: {failure.value}")
        return Response(attempt.status, attempt.headers, attempt.body)


async def stream(
    url: str,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    connect_timeout: float = 5.0,
    idle_timeout: float = 60.0,
    tls: ssl.SSLContext | None = None,
    uds: str | None = None,
) -> AsyncIterator[bytes | int]:
    """A long answer as it comes: first its status (an int), then pieces of its body.

    Args:
        body: JSON that is posted; without it the route is only read.
        uds: As of ``request_json``.

    Raises:
        UpstreamConnectionError: No connection, or it broke.
        UpstreamTimeout: Nothing came for ``idle_timeout`` seconds.
    """
    connection = None
    try:
        async with asyncio.timeout(connect_timeout):
            connection, inbox = await _open(
                "GET" if body is None else "POST", url, body, headers or {}, tls, None, uds
            )
        told = False
        while True:
            if inbox.status and not told:
                told = True
                yield inbox.status
            while inbox.parts:
                yield inbox.take()
            if inbox.ended:
                break
            inbox.news.clear()
            async with asyncio.timeout(idle_timeout):
                await inbox.news.wait()
        if inbox.failure is not None:
            raise UpstreamConnectionError(f"{url}: {inbox.failure.value}")
    except TimeoutError as error:
        if connection is None:
            raise _not_reached(silent(*_place(url), connect_timeout), timed_out=True) from error
        raise UpstreamTimeout(f"{url} fell silent") from error
    except OSError as error:
        raise _no_connection(url, uds, error) from error
    finally:
        if connection is not None:
            connection.abandon()
