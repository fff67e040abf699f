"""The Messages dialect as a whole: a request in, what renders its answer out."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.events import Event
from helexa.wire import errors
from helexa.wire.chat_request import encode_chat
from helexa.wire.messages.decode import Asked, decode_messages
from helexa.wire.messages.plain import plain_message
from helexa.wire.messages.stream import PING, MessagesStream
from helexa.wire.translation import Translation
from helexa.wire.warming import unsaid


def translate_messages(body: bytes, request_id: str) -> Translation:
    """The body of ``POST /v1/messages`` as chat, and what renders the answer.

    Args:
        request_id: Letters; names the message.

    Raises:
        HelexaError: What is wrong with it, or cannot be done.
    """
    asked = decode_messages(body)
    renderer = MessagesRenderer(asked, request_id)
    return Translation(encode_chat(asked.request), renderer, asked.names, asked.left_out)


def token_count(tokens: int) -> bytes:
    """The answer of ``count_tokens``."""
    return msgspec.json.encode({"input_tokens": tokens})


class MessagesRenderer:
    """Streams, or makes one body; see ``translation.Renderer``."""

    __slots__ = ("_asked", "_model", "_request_id", "_stream")

    def __init__(self, asked: Asked, request_id: str) -> None:
        self._asked = asked
        self._request_id = request_id
        self._model = asked.request.model
        self._stream: MessagesStream | None = None

    def begin(self, model: str) -> None:
        self._model = model
        self._stream = None

    def render(self, events: Iterable[Event]) -> bytes:
        return self._open().render(events)

    def keep_alive(self) -> bytes:
        """A ping, behind ``message_start``: from the moment the status is fixed the client is
        told of a message, whose counts are exact at its end."""
        stream = self._open()
        return stream.open() + PING

    def error(self, error: HelexaError, request_id: str) -> bytes:
        return errors.event(error, "anthropic", request_id)

    def plain(self, events: Iterable[Event]) -> bytes | HelexaError:
        if self._asked.warms:
            events = unsaid(events, "length")
        hide = self._asked.hide_thinking
        return plain_message(events, self._request_id, self._model, hide_thinking=hide)

    def _open(self) -> MessagesStream:
        if self._stream is None:
            hide = self._asked.hide_thinking
            self._stream = MessagesStream(self._request_id, self._model, hide_thinking=hide)
        return self._stream
