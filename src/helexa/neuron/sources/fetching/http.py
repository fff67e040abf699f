"""One HTTP response, from a byte onwards.

The standard library's client, because it reads a body straight into a buffer of ours (a gigabyte
costs a fifth of a second) and knows the environment's proxies. Only http and https; a token goes
no further than the host it is for.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import IO, Protocol, cast

_CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+|\*)")
_SENT_TO_HOST_ONLY = ("authorization", "cookie")
LINKED_ETAG = "X-Linked-Etag"


class BrokenError(Exception):
    """The connection failed, or the server did; trying again may help."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(Exception):
    """The server says no."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Body(Protocol):
    """The part of a response that is read."""

    def readinto(self, buffer: memoryview, /) -> int: ...

    def close(self) -> None: ...


class Opened:
    """A response whose body is about to be read.

    Args:
        start: Offset of the body's first byte in the file; 0 when the server knows no ranges.
        total: Size of the whole file, if it said so.
        etag: Of the content, as the first server that was asked calls it; without quotes.
    """

    def __init__(self, body: Body, start: int, total: int | None, etag: str) -> None:
        self.body = body
        self.start = start
        self.total = total
        self.etag = etag


def open_from(url: str, headers: dict[str, str], start: int, timeout_s: float) -> Opened:
    """Ask for the file at ``url`` from byte ``start``.

    Raises:
        BrokenError: No connection, a 5xx, 408 or 429.
        RefusedError: Any other refusal.
    """
    ranged = {"Range": f"bytes={start}-"} if start else {}
    response, etag = _open(url, {**headers, **ranged}, timeout_s)
    if response.status != http.client.PARTIAL_CONTENT:
        return Opened(response, 0, response.length, etag)
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if found is None:
        response.close()
        raise BrokenError(f"{url} answered 206 without a Content-Range")
    total = None if found["total"] == "*" else int(found["total"])
    return Opened(response, int(found["start"]), total, etag)


def read_part(
    url: str, headers: dict[str, str], start: int, length: int, timeout_s: float
) -> bytes:
    """Bytes ``[start, start + length)`` of the file at ``url``; fewer at its end.

    Raises:
        BrokenError, RefusedError: As ``open_from``.
    """
    last = start + length - 1
    try:
        response, _ = _open(url, {**headers, "Range": f"bytes={start}-{last}"}, timeout_s)
    except RefusedError as refused:
        if refused.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return b""
        raise
    with response:
        try:
            if response.status != http.client.PARTIAL_CONTENT:
                response.read(start)
            return response.read(length)
        except (OSError, http.client.HTTPException) as error:
            raise BrokenError(f"{url} broke off: {_words(error)}") from error


def _open(
    url: str, headers: dict[str, str], timeout_s: float
) -> tuple[http.client.HTTPResponse, str]:
    request = urllib.request.Request(  # noqa: S310 - the opener knows http and https only
        url, headers={"Accept-Encoding": "identity", "User-Agent": "helexa", **headers}
    )
    redirects = _Redirects()
    try:
        opened = _opener(redirects).open(request, timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            message = f"{url} answered {error.code} {error.reason}"
            if error.code in (408, 429) or error.code >= 500:
                after = retry_after(error.headers.get("Retry-After"))
                raise BrokenError(message, after) from error
            raise RefusedError(error.code, message) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BrokenError(f"{_host(url)} cannot be reached: {_words(error)}") from error
    response = cast("http.client.HTTPResponse", opened)
    etag = redirects.linked_etag or response.headers.get(LINKED_ETAG, "")
    return response, plain_etag(etag or response.headers.get("ETag", ""))


def retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header (RFC 9110, 10.2.3)."""
    if not value:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def plain_etag(value: str) -> str:
    """An entity tag without quotes and weakness."""
    return value.removeprefix("W/").strip('"')


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; what is secret stays with the first host."""

    def __init__(self) -> None:
        self.linked_etag = ""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self.linked_etag = self.linked_etag or headers.get(LINKED_ETAG, "")
        onward = super().redirect_request(req, fp, code, msg, headers, newurl)
        if onward is not None and _origin(newurl) != _origin(req.full_url):
            for name in [n for n in onward.headers if n.lower() in _SENT_TO_HOST_ONLY]:
                onward.remove_header(name)
        return onward


def _opener(redirects: _Redirects) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        redirects,
    ):
        opener.add_handler(handler)
    return opener


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


def _host(url: str) -> str:
    scheme, host = _origin(url)
    return f"{scheme}://{host}"


def _words(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error) or type(error).__name__
