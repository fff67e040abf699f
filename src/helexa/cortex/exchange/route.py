"""The inference routes: what each is called, and how it streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from helexa.wire.errors import Dialect


def _comment() -> bytes:
    return b": keep-alive\n\n"


class Route(NamedTuple):
    """One inference route.

    Args:
        name: For metrics and logs.
        upstream: The node's route.
        dialect: Whose error envelope the client reads.
        streams: Whether ``stream: true`` means anything.
        keep_alive: Makes one keep-alive in the dialect's form.
    """

    name: str
    upstream: bytes
    dialect: Dialect = "openai"
    streams: bool = True
    keep_alive: Callable[[], bytes] = _comment


_ROUTES = (
    Route("chat", b"/v1/chat/completions"),
    Route("completions", b"/v1/completions"),
    Route("embeddings", b"/v1/embeddings", streams=False),
    Route("rerank", b"/v1/rerank", streams=False),
)


def inference_routes() -> dict[bytes, Route]:
    """By path, with and without the ``/v1`` prefix."""
    return {path: route for route in _ROUTES for path in (route.upstream, route.upstream[3:])}
