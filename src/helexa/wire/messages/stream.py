"""Events as a stream of the Messages dialect.

::

    message_start ping? (content_block_start delta* content_block_stop)* message_delta message_stop
                                                                        └ or: error, and no more

One block is open at a time and its index counts them. ``message_start`` waits for the prompt's
count; who cannot wait longer says so with ``open``. Counts in ``message_delta`` are exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
    ToolCallEnded,
)
from helexa.wire import errors
from helexa.wire.messages import answer

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

_encode = msgspec.json.Encoder().encode


class MessagesStream:
    """Renders one answer.

    Args:
        request_id: Letters; names the message.
        model: The served id.
        hide_thinking: Thinking blocks stay empty but for their signature.
    """

    __slots__ = ("_block", "_delta", "_hide", "_index", "_model", "_opened", "_request_id")

    def __init__(self, request_id: str, model: str, *, hide_thinking: bool = False) -> None:
        self._request_id = request_id
        self._model = model
        self._hide = hide_thinking
        self._opened = False
        self._block: str | None = None  # the open block's type
        self._index = -1  # the open or last block's
        self._delta = b""  # everything of a delta event before its text

    def render(self, events: Iterable[Event]) -> bytes:
        """The bytes of ``events``: whole SSE events, or none."""
        out: list[bytes] = []
        for event in events:
            if type(event) is TextDelta:
                if self._block != "text":
                    self._begin("text", {"type": "text", "text": ""}, out)
                out.append(self._delta + _encode(event.text) + b"}}\n\n")
            elif type(event) is ToolCallArguments:
                out.append(self._delta + _encode(event.fragment) + b"}}\n\n")
            elif type(event) is ReasoningDelta:
                self._think(event.text, out)
            else:
                self._other(event, out)
        return b"".join(out)

    def open(self, prompt: int = 0, cached: int = 0) -> bytes:
        """``message_start``, unless it is out; with the counts as far as they are known."""
        if self._opened:
            return b""
        self._opened = True
        usage = answer.start_usage(prompt, cached)
        message = answer.empty_message(self._request_id, self._model, usage)
        return _event("message_start", {"message": message})

    def error(self, error: HelexaError) -> bytes:
        """The failure, as the last event; no terminator follows it."""
        return errors.event(error, "anthropic", self._request_id)

    def _other(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, Started):
            if event.prompt is not None:
                out.append(self.open(event.prompt, event.cached))
        elif isinstance(event, ToolCallBegun):
            block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
            self._begin("tool_use", block, out)
        elif isinstance(event, ToolCallEnded):
            self._end(out)
        elif isinstance(event, Finished):
            self._finish(event, out)
        elif isinstance(event, Failed):
            out.append(self.error(event.error))

    def _think(self, text: str, out: list[bytes]) -> None:
        if self._block != "thinking":
            self._begin("thinking", {"type": "thinking", "thinking": "", "signature": ""}, out)
        if not self._hide:
            out.append(self._delta + _encode(text) + b"}}\n\n")

    def _begin(self, kind: str, block: dict[str, Any], out: list[bytes]) -> None:
        if not self._opened:
            out.append(self.open())
        self._end(out)
        self._index += 1
        self._block = kind
        self._delta = _DELTAS[kind] % self._index
        out.append(_event("content_block_start", {"index": self._index, "content_block": block}))

    def _end(self, out: list[bytes]) -> None:
        """Close the open block; a thought is signed first."""
        if self._block is None:
            return
        if self._block == "thinking":
            signed = _encode(answer.signature(self._request_id))
            out.append(_SIGNATURE % self._index + signed + b"}}\n\n")
        self._block = None
        out.append(_event("content_block_stop", {"index": self._index}))

    def _finish(self, end: Finished, out: list[bytes]) -> None:
        if not self._opened:
            out.append(self.open(end.usage.prompt, end.usage.cached))
        self._end(out)
        members: dict[str, Any] = {"delta": answer.stop_of(end)}
        members["usage"] = answer.end_usage(end.usage)
        if end.cut is not None:
            members["helexa"] = {"finish": end.cut}
        out.append(_event("message_delta", members))
        out.append(_STOP)


def _delta(kind: bytes, member: bytes) -> bytes:
    return (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
        b'"delta":{"type":"' + kind + b'","' + member + b'":'
    )


_DELTAS = {
    "text": _delta(b"text_delta", b"text"),
    "thinking": _delta(b"thinking_delta", b"thinking"),
    "tool_use": _delta(b"input_json_delta", b"partial_json"),
}
_SIGNATURE = _delta(b"signature_delta", b"signature")


def _event(kind: str, members: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, **members}))
