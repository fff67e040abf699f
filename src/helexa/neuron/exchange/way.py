"""The inference routes of a node: what the engine is asked, and in whose words.

A gateway asks in chat and renders every other dialect itself. Whoever talks to a node directly
gets the same dialects from the same code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from helexa.wire.errors import Dialect
from helexa.wire.messages.dialect import translate_messages
from helexa.wire.responses.dialect import translate_unkept
from helexa.wire.translation import Translation

Translate = Callable[[bytes, str], Translation]
"""From a client's body and a request id (letters) to chat, and what renders the answer."""


class Way(NamedTuple):
    """One inference route.

    Args:
        route: What the engine knows it as: ``chat``, ``completions``, ``embeddings``, ``rerank``.
        dialect: Whose error envelope the caller reads.
        translate: None where the caller speaks what engines do.
        counts: Whether the prompt is only counted, and nothing is computed.
        names: The caller's paths by those of chat, which refusals name.
    """

    route: str
    dialect: Dialect = "openai"
    translate: Translate | None = None
    counts: bool = False
    names: Mapping[str, str] = MappingProxyType({})


def _responses(body: bytes, request_id: str) -> Translation:
    return translate_unkept(body, request_id, time.time)


WAYS = {
    b"/chat/completions": Way("chat"),
    b"/completions": Way("completions", names={"messages": "prompt"}),
    b"/embeddings": Way("embeddings"),
    b"/rerank": Way("rerank"),
    b"/messages": Way("chat", "anthropic", translate_messages),
    b"/responses": Way("chat", translate=_responses),
    b"/chat/completions/input_tokens": Way("chat", counts=True),
    b"/messages/count_tokens": Way("chat", "anthropic", translate_messages, counts=True),
    b"/responses/input_tokens": Way("chat", translate=_responses, counts=True),
}
