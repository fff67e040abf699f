"""Answers and refusals of the management routes, in the caller's dialect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from helexa.core.errors import HelexaError, InvalidRequestBody
from helexa.wire import errors as wire
from helexa.wire.bodies import decode_as

T = TypeVar("T")

SLICE = 20
"""Entries of a list that are made in one go, at most a millisecond's worth."""
_encode = msgspec.json.Encoder(enc_hook=repr).encode


def reply(value: object, status: int = 200) -> Response:
    """``value`` as JSON."""
    return Response(_encode(value), status, media_type="application/json")


async def reply_list(name: str, entries: Iterable[object]) -> Response:
    """``{name: entries}`` as JSON. Made in slices: thousands are more than the loop should stop
    for.

    Args:
        entries: Read while others may run in between.
    """
    parts: list[bytes] = []
    for entry in entries:
        parts.append(_encode(entry))
        if len(parts) % SLICE == 0:
            await asyncio.sleep(0)
    body = b'{"%b":[%b]}' % (name.encode(), b",".join(parts))
    return Response(body, media_type="application/json")


def dialect_of(request: Request) -> wire.Dialect:
    """Whose envelope the caller reads."""
    names = {name for name, _ in request.headers.raw}
    return wire.dialect_of(request.url.path.encode(), names)


def refusal(request: Request, error: HelexaError) -> Response:
    """An error of the tree."""
    return rendered(wire.render(error, dialect_of(request), request.state.request_id))


def no_route(request: Request, status: int, allow: str | None = None) -> Response:
    """404 or 405 with the caller's envelope."""
    method, path = request.method, request.url.path
    if status == 405:
        instead = f"; use {allow}" if allow else ""
        code, words = "method_not_allowed", f"{method} is not possible on {path}{instead}."
    else:
        code, words = "not_found", f"There is no {method} {path} here. {_elsewhere(path)}"
    response = _nowhere(request, status, code, words)
    if allow:
        response.headers["allow"] = allow
    return response


def _elsewhere(path: str) -> str:
    """Where whoever asks for ``path`` finds what they look for."""
    if path == "/metrics":
        return (
            "Metrics have an address of their own, `gateway.metrics_listen`: port 31314 unless set."
        )
    if path.startswith("/api/"):
        return "Ollama's own API is not spoken; use OpenAI's, whose base URL ends in /v1."
    return "The API of OpenAI and of Anthropic is under /v1."


def missing(request: Request, words: str) -> Response:
    """404 on a path that there is, for what it should name."""
    return _nowhere(request, 404, "not_found", words)


def _nowhere(request: Request, status: int, code: str, words: str) -> Response:
    dialect, shown = dialect_of(request), request.state.request_id
    return rendered(wire.route_error(status, code, words, dialect, shown))


def no_request(request: Request) -> Response:
    """404 for a request that is not remembered, or not the caller's."""
    name = request.path_params["request_id"]
    return missing(
        request, f"No request {name[:80]!r} of yours is remembered; only the last ones are."
    )


def rendered(answer: wire.Rendered) -> Response:
    """What ``wire.errors`` made, as a response."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)


async def body_as(request: Request, kind: type[T]) -> T:
    """The request's body, as ``decode_as`` reads it."""
    return decode_as(await request.body(), kind)


def only(request: Request, *known: str) -> None:
    """Refuse a query that asks for more than these: a filter that is passed over would show what
    was not asked for.

    Raises:
        InvalidRequestBody: It does.
    """
    for name in request.query_params:
        if name not in known:
            raise InvalidRequestBody(
                f"There is no parameter {name[:80]!r}; there are {', '.join(sorted(known))}.",
                param=name[:80],
            )


def number(request: Request, name: str, default: int, most: int) -> int:
    """A whole number from the query, from 1 to ``most``.

    Raises:
        InvalidRequestBody: It is none.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not digits or not 1 <= int(text) <= most:
        raise InvalidRequestBody(f"{name} must be a number from 1 to {most}.", param=name)
    return int(text)
