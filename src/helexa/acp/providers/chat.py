"""Chat Completions, spoken by a client: the same reader that the gateway's dialects use."""

from __future__ import annotations

from helexa.acp.providers.base import Reader
from helexa.core.chat import ChatRequest
from helexa.wire.chat_events import ChatEvents
from helexa.wire.chat_request import encode_chat


class ChatDialect:
    """See ``providers.base.Dialect``."""

    path = "/v1/chat/completions"

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def encode(self, request: ChatRequest) -> bytes:
        """As nodes read it, with ``max_tokens`` beside the newer name for older servers."""
        return encode_chat(request)

    def reader(self) -> Reader:
        """Reads chunks."""
        return ChatEvents()
