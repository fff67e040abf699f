"""Errors on the wire: status, headers and the caller's envelope, and the way back.

The table below is the whole mapping; ``render`` is the only place that knows a status code.
Well-known clients retry on *any* body that contains ``429``, a ``5xx`` number, ``overloaded``,
``server_error`` or ``try again``; a refusal that will not pass must not look like that, so
``render`` takes those out of every such body, whoever wrote the message.
``context_length_exceeded`` is exempt: clients recognise its code first and need its figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Container
from typing import Literal, NamedTuple

import msgspec

from helexa.core import errors as tree
from helexa.core.errors import HelexaError
from helexa.wire.bodies import UNREADABLE

Dialect = Literal["openai", "anthropic"]
Header = tuple[bytes, bytes]

MAX_RETRY_AFTER_S = 59
"""Above 60 the AI SDK ignores the header; above 120 openai-python stops retrying."""

UNKNOWN_RETRY_AFTER_S = 5.0
"""Said by a refusal that will pass, when nobody knows when."""


class Rendered(NamedTuple):
    """An error as it leaves; ``headers`` are lower case, without content-length."""

    status: int
    headers: tuple[Header, ...]
    body: bytes

    @property
    def lines(self) -> bytes:
        """The headers as complete lines, for a server that writes its own head."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers)


class _Row(NamedTuple):
    status: int
    openai: str
    anthropic: str


_REFUSED = _Row(400, "invalid_request_error", "invalid_request_error")
_LATER = _Row(503, "server_error", "overloaded_error")

_TABLE: dict[type[HelexaError], _Row] = {
    tree.RequestRefused: _REFUSED,
    tree.InvalidJson: _REFUSED,
    tree.MissingModelField: _REFUSED,
    tree.InvalidRequestBody: _REFUSED,
    tree.PreviousResponseNotFound: _REFUSED,
    tree.UnsupportedParameter: _REFUSED,
    tree.UnsupportedOperation: _REFUSED,
    tree.VisionUnsupported: _REFUSED,
    tree.ContextLengthExceeded: _REFUSED,
    tree.PayloadTooLarge: _Row(413, "invalid_request_error", "request_too_large"),
    tree.HeadersTooLarge: _Row(431, "invalid_request_error", "invalid_request_error"),
    tree.RequestTimeout: _Row(408, "invalid_request_error", "invalid_request_error"),
    tree.TemplateRenderFailed: _Row(422, "invalid_request_error", "invalid_request_error"),
    tree.InvalidApiKey: _Row(401, "invalid_request_error", "authentication_error"),
    tree.Forbidden: _Row(403, "invalid_request_error", "permission_error"),
    tree.ModelNotFound: _Row(404, "invalid_request_error", "not_found_error"),
    tree.InsufficientQuota: _Row(429, "insufficient_quota", "billing_error"),
    tree.RateLimitExceeded: _Row(429, "tokens", "rate_limit_error"),
    tree.TryLater: _LATER,
    tree.ServiceUnavailable: _LATER,
    tree.ModelLoading: _LATER,
    tree.ModelRecovering: _LATER,
    tree.Overloaded: _LATER,
    tree.InsufficientVram: _LATER,
    tree.UpstreamFailed: _Row(502, "server_error", "api_error"),
    tree.UpstreamConnectionError: _Row(502, "server_error", "api_error"),
    tree.UpstreamTimeout: _Row(504, "server_error", "timeout_error"),
    tree.InternalError: _Row(500, "server_error", "api_error"),
    HelexaError: _Row(500, "server_error", "api_error"),
}

_BY_CODE: dict[str, type[HelexaError]] = {c.code: c for c in _TABLE if c.code is not None}

_BY_STATUS: dict[int, type[HelexaError]] = {
    401: tree.InvalidApiKey,
    403: tree.Forbidden,
    404: tree.ModelNotFound,
    408: tree.RequestTimeout,
    413: tree.PayloadTooLarge,
    422: tree.TemplateRenderFailed,
    429: tree.RateLimitExceeded,
    431: tree.HeadersTooLarge,
    500: tree.InternalError,
    503: tree.ServiceUnavailable,
    504: tree.UpstreamTimeout,
}

_ROUTE_TYPES: dict[int, tuple[str, str]] = {
    404: ("invalid_request_error", "not_found_error"),
    405: ("invalid_request_error", "invalid_request_error"),
}

_ALARMING = re.compile(
    r"server[_ ]error|internal[_ ]error|overloaded|try again|rate[_ ]limit", re.IGNORECASE
)
_ALARMING_DIGITS = re.compile(r"429|5\d\d")
_DIGITS = re.compile(r"\d+")
_LONGEST_NUMBER = 18
"""Digits; longer ones are no figures of ours, and Python refuses to read some."""
_LETTERS_ONLY = re.compile(r"[A-Za-z_]+")
_JSON: Header = (b"content-type", b"application/json")
_encode = msgspec.json.Encoder().encode


def dialect_of(path: bytes, headers: Container[bytes]) -> Dialect:
    """Whose envelope a caller reads: clients of the Messages API ask there, or name its version.

    Args:
        path: With or without its ``/v1``, and whatever follows.
        headers: Names, lower case.
    """
    asks_there = path.removeprefix(b"/v1").startswith(b"/messages")
    return "anthropic" if asks_there or b"anthropic-version" in headers else "openai"


def status_of(error: HelexaError) -> int:
    """The HTTP status of an error."""
    return _row(error).status


def internal_error(request_id: str) -> tree.InternalError:
    """A bug of ours, in the only words a client gets about it."""
    return tree.InternalError(f"Internal error. Tell the operator the request id: {request_id}")


def retry_after_s(error: HelexaError) -> int | None:
    """Seconds for the Retry-After header, 1 to 59; None when asking again will not help."""
    if not isinstance(error, tree.TryLater):
        return None
    truth = error.retry_after_s if error.retry_after_s is not None else UNKNOWN_RETRY_AFTER_S
    return max(1, min(MAX_RETRY_AFTER_S, math.ceil(truth)))


def render(error: HelexaError, dialect: Dialect, request_id: str | None = None) -> Rendered:
    """Status, headers and body for one error.

    Args:
        error: What happened.
        dialect: The caller's: ``openai`` (Chat, Responses, ...) or ``anthropic`` (Messages).
        request_id: For the Anthropic envelope; left out when it is not letters only.
    """
    body = _encode(_envelope(error, dialect, request_id))
    return Rendered(_row(error).status, _headers(error), body)


def event(error: HelexaError, dialect: Dialect, request_id: str | None = None) -> bytes:
    """The error as an event of a stream whose 200 is already out; no terminator follows it."""
    data = _encode(_envelope(error, dialect, request_id))
    if dialect == "anthropic":
        return b"event: error\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


def route_error(
    status: int, code: str, message: str, dialect: Dialect, request_id: str | None = None
) -> Rendered:
    """The envelope for a path or method that does not exist (404, 405)."""
    openai, anthropic = _ROUTE_TYPES.get(status, ("invalid_request_error",) * 2)
    inner: dict[str, object] = {"message": _calm(message), "code": code}
    if dialect == "anthropic":
        error = {"type": anthropic, **inner}
        body = _encode({"type": "error", "error": error, "request_id": _calm_id(request_id)})
    else:
        body = _encode({"error": {"type": openai, "param": None, **inner}})
    return Rendered(status, (_JSON,), body)


def from_wire(status: int, body: bytes) -> HelexaError:
    """The error a node answered with, so that it can be rendered in the caller's dialect.

    The code decides; without one that we know, the status does. Message, ``param``,
    ``retry_after_s`` and extras survive. Never raises: a body that is no envelope becomes an
    error with a message of our own.
    """
    inner = _inner(body)
    code = inner.pop("code", None)
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    if kind is None:
        fallback = tree.InvalidRequestBody if 400 <= status < 500 else tree.UpstreamConnectionError
        kind = _BY_STATUS.get(status, fallback)
    message, param = inner.pop("message", None), inner.pop("param", None)
    after = inner.pop("retry_after_s", None)
    inner.pop("type", None)
    error = kind.__new__(kind)
    HelexaError.__init__(
        error,
        message if isinstance(message, str) else f"The node answered with status {status}.",
        param=param if isinstance(param, str) else None,
        retry_after_s=after if isinstance(after, int | float) else None,
        **inner,
    )
    return error


def _row(error: HelexaError) -> _Row:
    for kind in type(error).__mro__:
        row = _TABLE.get(kind)
        if row is not None:
            return row
    raise TypeError(f"{type(error).__name__} is not part of the error tree")


def _envelope(error: HelexaError, dialect: Dialect, request_id: str | None) -> dict[str, object]:
    inner = _anthropic(error) if dialect == "anthropic" else _openai(error)
    inner |= _extras(error)
    if dialect == "openai":
        return {"error": inner}
    return {"type": "error", "error": inner, "request_id": _calm_id(request_id)}


def _calm_id(request_id: str | None) -> str | None:
    """An id that a body may carry; one with digits is in the header only."""
    return request_id if request_id and _LETTERS_ONLY.fullmatch(request_id) else None


def _openai(error: HelexaError) -> dict[str, object]:
    word = _words(error)
    kind = _row(error).openai
    if isinstance(error, tree.RateLimitExceeded) and error.extras.get("limited") == "requests":
        kind = "requests"
    param = None if error.param is None else word(error.param)
    return {"message": word(error.message), "type": kind, "code": error.code, "param": param}


def _anthropic(error: HelexaError) -> dict[str, object]:
    message = _words(error)(error.message)
    prompt, maximum = error.extras.get("prompt_len"), error.extras.get("max")
    if isinstance(error, tree.ContextLengthExceeded) and prompt is not None:
        message = f"prompt is too long: {prompt} tokens > {maximum} maximum. {message}"
    inner: dict[str, object] = {"type": _row(error).anthropic, "message": message}
    if error.code is not None:
        inner["code"] = error.code
    return inner


def _extras(error: HelexaError) -> dict[str, object]:
    extras = {k: v for k, v in error.extras.items() if v is not None}
    if isinstance(error, tree.TryLater):
        extras["retry_after_s"] = (
            error.retry_after_s if error.retry_after_s is not None else UNKNOWN_RETRY_AFTER_S
        )
    if _must_be_calm(error):
        extras = {k: v for k, v in extras.items() if not _is_alarming(_encode(v).decode())}
    return extras


def _headers(error: HelexaError) -> tuple[Header, ...]:
    headers = [_JSON]
    after = retry_after_s(error)
    if after is not None:
        headers.append((b"retry-after", b"%d" % after))
    if isinstance(error, tree.RateLimitExceeded) and error.extras.get("limited") != "requests":
        truth = error.retry_after_s or UNKNOWN_RETRY_AFTER_S
        headers.append((b"x-ratelimit-reset-tokens", b"%ds" % max(1, math.ceil(truth))))
    if isinstance(error, tree.InsufficientQuota):
        headers.append((b"x-should-retry", b"false"))
    return tuple(headers)


def _must_be_calm(error: HelexaError) -> bool:
    """Whether a client that retries on words must find none of them in the body."""
    return isinstance(error, tree.RequestRefused) and not isinstance(
        error, tree.ContextLengthExceeded
    )


def _words(error: HelexaError) -> Callable[[str], str]:
    return _calm if _must_be_calm(error) else str


def _is_alarming(text: str) -> bool:
    return bool(_ALARMING.search(text) or _ALARMING_DIGITS.search(text))


def _calm(text: str) -> str:
    """``text`` without what makes clients retry; numbers are grouped, or left out as ``…``."""
    if not _is_alarming(text):
        return text
    return _ALARMING.sub("…", _DIGITS.sub(_calm_number, text))


def _calm_number(match: re.Match[str]) -> str:
    digits = match.group()
    if not _ALARMING_DIGITS.search(digits):
        return digits
    if len(digits) > _LONGEST_NUMBER:
        return "…"
    grouped = f"{int(digits):,}"
    return "…" if _ALARMING_DIGITS.search(grouped) else grouped


def _inner(body: bytes) -> dict[str, object]:
    try:
        decoded = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    inner = decoded.get("error") if isinstance(decoded, dict) else None
    return {str(k): v for k, v in inner.items()} if isinstance(inner, dict) else {}
