"""Reasoning inside the text, between the model's own markers, for clients that ask for it there.

It stays in ``reasoning_content`` too. Clean chat in, clean chat out; everything that is neither
reasoning nor the first thing behind it passes unchanged.
"""

from __future__ import annotations

from typing import Any

import msgspec

_DATA = b"data: {"
_THINKS = b'"reasoning_content":'
_decode = msgspec.json.decode
_encode = msgspec.json.Encoder().encode


class InlineThinking:
    """One answer's.

    Args:
        markers: Opening and closing, as the model's template has them.
    """

    __slots__ = ("_close", "_inside", "_open")

    def __init__(self, markers: tuple[str, str]) -> None:
        self._open, self._close = f"{markers[0]}\n", f"\n{markers[1]}\n\n"
        self._inside: set[int] = set()  # choices that are thinking

    def events(self, data: bytes) -> bytes:
        """Whole events of a stream."""
        if not self._inside and _THINKS not in data:
            return data
        events = data.split(b"\n\n")
        return b"".join(self._event(event) + b"\n\n" for event in events if event)

    def plain(self, body: bytes) -> bytes:
        """A whole answer."""
        answer: dict[str, Any] = _decode(body)
        for choice in answer.get("choices", ()):
            message = choice.get("message") or {}
            thought = message.get("reasoning_content")
            if thought:
                said = message.get("content") or ""
                message["content"] = f"{self._open}{thought}{self._close}{said}"
        return _encode(answer)

    def _event(self, event: bytes) -> bytes:
        if not event.startswith(_DATA):
            return event
        chunk: dict[str, Any] = _decode(event[6:])
        changed = [self._choice(choice) for choice in chunk.get("choices", ())]
        return b"data: " + _encode(chunk) if any(changed) else event

    def _choice(self, choice: dict[str, Any]) -> bool:
        """Put into a delta's content what belongs there; whether anything did."""
        delta, index = choice.get("delta") or {}, choice.get("index", 0)
        thought, said = delta.get("reasoning_content"), delta.get("content") or ""
        if thought:
            start = "" if index in self._inside else self._open
            self._inside.add(index)
            delta["content"] = start + thought + (self._close + said if said else "")
            if said:
                self._inside.discard(index)
            return True
        over = said or delta.get("tool_calls") or choice.get("finish_reason") is not None
        if index not in self._inside or not over:
            return False
        self._inside.discard(index)
        delta["content"] = self._close + said
        choice["delta"] = delta
        return True
