"""The inference routes: what each is called, how it streams, and what it is translated from.

Nodes speak chat. A route of another dialect has ``translate``: it makes a chat body of the
client's, once, before anything else reads it, and a ``Translation`` that renders what comes back.
Errors and keep-alives are rendered by ``dialect`` and ``keep_alive``, before and after the status
alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from helexa.wire.errors import Dialect


def _comment() -> bytes:
    return b": keep-alive\n\n"


class Translation(Protocol):
    """Renders the chat answer of one request in the dialect of its client."""

    def events(self, data: bytes) -> bytes:
        """Whole chat events, the usage chunk among them, as the dialect's; may be empty.

        The terminator and error events never come here. What the first events become must not
        be empty: until bytes have left, another node may be tried, and starts again.
        """

    def finish(self, comment: bytes) -> bytes:
        """The end of a complete stream: what is left to say, ``comment``, the terminator."""

    def plain(self, body: bytes) -> bytes:
        """A whole chat answer as the dialect's."""


Translate = Callable[[bytes], tuple[bytes, Translation]]
"""The client's body as a chat body, and what renders the answer. Runs in a thread for a long
body; raises ``HelexaError`` for what the dialect or we cannot do."""


class Route(NamedTuple):
    """One inference route.

    Args:
        name: For metrics and logs.
        upstream: The node's route.
        dialect: Whose error envelope the client reads.
        streams: Whether ``stream: true`` means anything.
        keep_alive: Makes one keep-alive in the dialect's form.
        translate: For dialects that nodes do not speak; None forwards the client's bytes.
    """

    name: str
    upstream: bytes
    dialect: Dialect = "openai"
    streams: bool = True
    keep_alive: Callable[[], bytes] = _comment
    translate: Translate | None = None


_ROUTES = (
    Route("chat", b"/v1/chat/completions"),
    Route("completions", b"/v1/completions"),
    Route("embeddings", b"/v1/embeddings", streams=False),
    Route("rerank", b"/v1/rerank", streams=False),
)


def inference_routes() -> dict[bytes, Route]:
    """By path, with and without the ``/v1`` prefix."""
    return {path: route for route in _ROUTES for path in (route.upstream, route.upstream[3:])}
