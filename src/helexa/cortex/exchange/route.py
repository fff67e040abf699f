"""The inference routes: what each is called, how it streams, and what it is translated from.

Nodes speak chat. A route of another dialect has ``translate``: it makes a ``Translation`` of the
client's request, once, before anything else reads it. From then on the request is a chat request,
and what comes back, keep-alives and late errors included, is rendered by the translation.
Refusals before the status are rendered by ``dialect``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from helexa.core.principal import Principal
from helexa.wire.errors import Dialect
from helexa.wire.messages.dialect import translate_messages
from helexa.wire.paths import COHERE_RERANK
from helexa.wire.translation import Translation

EXPOSED = (
    "x-request-id",
    "request-id",
    "x-helexa-node",
    "x-helexa-queue-ms",
    "x-helexa-cold-start",
    "x-helexa-left-out",
    "server-timing",
    "retry-after",
    "x-should-retry",
    *(
        f"x-ratelimit-{what}-{of}"
        for of in ("requests", "tokens")
        for what in ("limit", "remaining", "reset")
    ),
)
"""Headers of ours that a web page may read."""


def _comment() -> bytes:
    return b": keep-alive\n\n"


class Asked(NamedTuple):
    """What a dialect is told of a request.

    Args:
        request_id: Ours; letters.
        body: The client's.
    """

    request_id: str
    principal: Principal
    body: bytes


Translate = Callable[[Asked], Translation | Awaitable[Translation]]
"""Makes a chat request of the client's, and what renders its answer; or, where something must be
fetched for that, an awaitable of it. Runs in a thread for a long body; raises ``HelexaError`` for
what the dialect or we cannot do."""


@dataclass(frozen=True, slots=True)
class Route:
    """One inference route. No ``NamedTuple``: to read a member of one takes ten times as long.

    Args:
        name: For metrics and logs.
        upstream: The node's route.
        dialect: Whose error envelope the client reads.
        streams: Whether ``stream: true`` means anything.
        keep_alive: Makes one keep-alive in the dialect's form.
        translate: For dialects that nodes do not speak; None forwards the client's bytes.
        free: Costs nothing: neither granted nor settled.
        need: What a model must be able to do; see ``routing.able``.
    """

    name: str
    upstream: bytes
    dialect: Dialect = "openai"
    streams: bool = True
    keep_alive: Callable[[], bytes] = _comment
    translate: Translate | None = None
    free: bool = False
    need: str = "text"


def _messages(asked: Asked) -> Translation:
    return translate_messages(asked.body, asked.request_id.removeprefix("req_"))


CHAT = b"/v1/chat/completions"
CHAT_COUNT = b"/v1/chat/completions/input_tokens"

_ROUTES = (
    Route("chat", CHAT),
    Route("completions", b"/v1/completions"),
    Route("embeddings", b"/v1/embeddings", streams=False, need="embeddings"),
    Route("rerank", b"/v1/rerank", streams=False, need="rerank"),
    Route("count", b"/v1/messages/count_tokens", "anthropic", streams=False, free=True),
    Route("count", CHAT_COUNT, streams=False, free=True),
)

_TRANSLATED = {b"/v1/messages": Route("messages", CHAT, "anthropic", translate=_messages)}


def inference_routes(more: Mapping[bytes, Route] | None = None) -> dict[bytes, Route]:
    """By path, with and without the ``/v1`` prefix.

    Args:
        more: Further routes by their path with the prefix.
    """
    routes = {route.upstream: route for route in _ROUTES} | _TRANSLATED | dict(more or {})
    paths = {path: route for full, route in routes.items() for path in (full, full[3:])}
    return paths | {COHERE_RERANK: routes[b"/v1/rerank"]}
