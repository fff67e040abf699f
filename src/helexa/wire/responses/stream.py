"""Events as a stream of the Responses dialect.

::

    created in_progress  ( item.added  part.added delta* done part.done  item.done )*  completed
                                                               └ incomplete │ error failed

Every payload has its ``type`` and the next ``sequence_number``. One item is open at a time; its
index counts them. Keep-alives repeat ``in_progress``. A plain body is the last event's response.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from helexa.wire.responses import answer
from helexa.wire.responses.answer import Asked, Json
from helexa.wire.responses.custom import input_of
from helexa.wire.responses.turns import seal

_encode = msgspec.json.Encoder().encode
_NO_LOGPROBS = b',"logprobs":[]}\n\n'


class _Open:
    """The item that is being written."""

    __slots__ = ("call", "head", "index", "item_id", "kind", "logprobs", "texts")

    def __init__(self, kind: str, item_id: str, index: int) -> None:
        self.kind = kind
        self.item_id = item_id
        self.index = index
        self.texts: list[str] = []
        self.logprobs: list[Any] = []
        self.call: ToolCallBegun | None = None
        self.head = b""  # of a delta event, between its number and its text

    @property
    def text(self) -> str:
        return "".join(self.texts)


class ResponsesStream:
    """Renders one answer.

    Args:
        asked: What the answer has to know of its request.
        model: The served id.
        item_id: Makes ids of items, from their prefix (``msg_``, ``rs_``, ``fc_``).
        now: Unix seconds, for ``completed_at``.

    Attributes:
        final: The response as it ended; None before, and after a failure.
    """

    __slots__ = (
        "_asked", "_item", "_item_id", "_model", "_now", "_opened", "_output", "_sequence",
        "final",
    )  # fmt: skip

    def __init__(
        self, asked: Asked, model: str, item_id: Callable[[str], str], now: Callable[[], float]
    ) -> None:
        self._asked = asked
        self._model = model
        self._item_id = item_id
        self._now = now
        self._opened = False
        self._sequence = 0
        self._item: _Open | None = None
        self._output: list[Json] = []
        self.final: Json | None = None

    def render(self, events: Iterable[Event]) -> bytes:
        """The bytes of ``events``: whole SSE events, or none."""
        out: list[bytes] = []
        for event in events:
            kind = type(event)
            if kind is TextDelta:
                self._say(event, out)  # type: ignore[arg-type]  # what the line above says
            elif kind is ToolCallArguments:
                self._argue(event.fragment, out)  # type: ignore[union-attr]
            elif kind is ReasoningDelta:
                self._think(event.text, out)  # type: ignore[union-attr]
            else:
                self._other(event, out)
        return b"".join(out)

    def open(self) -> bytes:
        """``response.created`` and ``response.in_progress``, unless they are out."""
        if self._opened:
            return b""
        self._opened = True
        return self._whole("response.created", "in_progress") + self.progress()

    def keep_alive(self) -> bytes:
        """A sign of life that resets every client's timer."""
        return self.progress() if self._opened else self.open()

    def progress(self) -> bytes:
        """``response.in_progress``."""
        return self._whole("response.in_progress", "in_progress")

    def error(self, error: HelexaError) -> bytes:
        """The failure: an ``error`` event, then ``response.failed``; nothing follows."""
        out = [self.open()]
        members = answer.error_members(error)
        flat = {name: members.get(name) for name in ("code", "message", "param")}
        # Flat, as published, and nested, as the SDKs look for it.
        out.append(self._event("error", {**flat, "error": members}))
        said = {"code": members["code"], "message": members["message"]}
        self._abandon()
        return b"".join(out) + self._whole("response.failed", "failed", error=said)

    # ── events ──────────────────────────────────────────────────────────────────────────────

    def _say(self, event: TextDelta, out: list[bytes]) -> None:
        item = self._item
        if item is None or item.kind != "message":
            item = self._begin_message(out)
        if event.logprobs is None:
            self._delta(event.text, _NO_LOGPROBS, out)
        else:
            found = msgspec.json.decode(event.logprobs)
            item.logprobs += found
            self._delta(event.text, b',"logprobs":' + _encode(found) + b"}\n\n", out)

    def _think(self, text: str, out: list[bytes]) -> None:
        if self._item is None or self._item.kind != "reasoning":
            self._begin_reasoning(out)
        self._delta(text, b"}\n\n", out)

    def _argue(self, fragment: str, out: list[bytes]) -> None:
        if self._item is not None and self._item.kind == "custom_tool_call":
            self._item.texts.append(fragment)  # its input is known when it is whole
        else:
            self._delta(fragment, b"}\n\n", out)

    def _delta(self, text: str, tail: bytes, out: list[bytes]) -> None:
        item = self._item
        assert item is not None  # noqa: S101 - the order of events holds it
        item.texts.append(text)
        out.append(item.head % self._sequence + _encode(text) + tail)
        self._sequence += 1

    def _other(self, event: Event, out: list[bytes]) -> None:
        if isinstance(event, Started):
            self._model = event.model or self._model
            out.append(self.open())
        elif isinstance(event, ToolCallBegun):
            self._begin_call(event, out)
        elif isinstance(event, ToolCallEnded):
            self._end(out)
        elif isinstance(event, Finished):
            self._finish(event, out)
        elif isinstance(event, Failed):
            out.append(self.error(event.error))

    def _begin(self, kind: str, prefix: str, out: list[bytes]) -> _Open:
        out.append(self.open())
        self._end(out)
        self._item = _Open(kind, self._item_id(prefix), len(self._output))
        return self._item

    def _begin_message(self, out: list[bytes]) -> _Open:
        item = self._begin("message", "msg_", out)
        self._added(item, answer.message_item(item.item_id, "in_progress", []), out)
        part = answer.text_part("", [])
        out.append(self._event("response.content_part.added", self._at(item, part=part)))
        item.head = self._head("response.output_text.delta", item, b'"content_index":0,')
        return item

    def _begin_reasoning(self, out: list[bytes]) -> None:
        item = self._begin("reasoning", "rs_", out)
        self._added(item, answer.reasoning_item(item.item_id, "in_progress", "", self._asked), out)
        if self._asked.summary:
            part = {"type": "summary_text", "text": ""}
            out.append(self._event("response.reasoning_summary_part.added",
                                   self._at(item, "summary_index", part=part)))  # fmt: skip
            item.head = self._head(
                "response.reasoning_summary_text.delta", item, b'"summary_index":0,'
            )
            return
        part = {"type": "reasoning_text", "text": ""}
        out.append(self._event("response.content_part.added", self._at(item, part=part)))
        item.head = self._head("response.reasoning_text.delta", item, b'"content_index":0,')

    def _begin_call(self, event: ToolCallBegun, out: list[bytes]) -> None:
        if event.name in self._asked.names.custom:
            item = self._begin("custom_tool_call", "ctc_", out)
            item.call = event
            self._added(item, self._custom_item(item, "in_progress", ""), out)
            return
        item = self._begin("function_call", "fc_", out)
        item.call = event
        self._added(item, self._call_item(item, "in_progress"), out)
        item.head = self._head("response.function_call_arguments.delta", item, b"")

    # ── the end of an item ──────────────────────────────────────────────────────────────────

    def _end(self, out: list[bytes], status: str = "completed") -> None:
        """Close the open item."""
        item, self._item = self._item, None
        if item is None:
            return
        done = {
            "message": self._message_done,
            "reasoning": self._reasoning_done,
            "function_call": self._call_done,
            "custom_tool_call": self._custom_done,
        }[item.kind](item, status, out)
        self._output.append(done)
        out.append(
            self._event("response.output_item.done", {"output_index": item.index, "item": done})
        )

    def _message_done(self, item: _Open, status: str, out: list[bytes]) -> Json:
        text = item.text
        where = self._at(item, text=text, logprobs=item.logprobs)
        out.append(self._event("response.output_text.done", where))
        part = answer.text_part(text, item.logprobs)
        out.append(self._event("response.content_part.done", self._at(item, part=part)))
        return answer.message_item(item.item_id, status, [part])

    def _reasoning_done(self, item: _Open, status: str, out: list[bytes]) -> Json:
        text = item.text
        if self._asked.summary:
            where = self._at(item, "summary_index", text=text)
            out.append(self._event("response.reasoning_summary_text.done", where))
            part = {"type": "summary_text", "text": text}
            where = self._at(item, "summary_index", part=part)
            out.append(self._event("response.reasoning_summary_part.done", where))
        else:
            out.append(self._event("response.reasoning_text.done", self._at(item, text=text)))
            part = {"type": "reasoning_text", "text": text}
            out.append(self._event("response.content_part.done", self._at(item, part=part)))
        sealed = seal(text) if self._asked.sealed else None
        return answer.reasoning_item(item.item_id, status, text, self._asked, sealed)

    def _call_done(self, item: _Open, status: str, out: list[bytes]) -> Json:
        done = self._call_item(item, status)
        members = {
            "item_id": item.item_id,
            "output_index": item.index,
            "name": done["name"],
            "arguments": done["arguments"],
        }
        out.append(self._event("response.function_call_arguments.done", members))
        return done

    def _custom_done(self, item: _Open, status: str, out: list[bytes]) -> Json:
        text = input_of(item.text)
        where = {"item_id": item.item_id, "output_index": item.index}
        if text:
            members = {**where, "delta": text}
            out.append(self._event("response.custom_tool_call_input.delta", members))
        members = {**where, "input": text}
        out.append(self._event("response.custom_tool_call_input.done", members))
        return self._custom_item(item, status, text)

    def _custom_item(self, item: _Open, status: str, text: str) -> Json:
        call = item.call
        assert call is not None  # noqa: S101 - set with the item
        name = self._asked.names.shown(call.name)
        return answer.custom_item(item.item_id, status, call.id, name, text)

    def _call_item(self, item: _Open, status: str) -> Json:
        call = item.call
        assert call is not None  # noqa: S101 - set with the item
        name = self._asked.names.shown(call.name)
        return answer.call_item(item.item_id, status, call.id, name, item.text)

    def _abandon(self) -> None:
        """What was open when it failed is shown in the response as far as it got, and not ended by
        events: what ends by them is complete."""
        number = self._sequence
        self._end([], "incomplete")
        self._sequence = number

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def _finish(self, end: Finished, out: list[bytes]) -> None:
        status, members = answer.ending(end)
        out.append(self.open())
        self._end(out, status)
        if status == "incomplete" and self._output:
            # The last item is what was cut, also when it had been closed before.
            self._output[-1] = {**self._output[-1], "status": status}
        if status == "completed":
            members["completed_at"] = int(self._now())
        members["usage"] = answer.usage(end.usage)
        self.final = answer.response(self._asked, self._model, status, self._output, **members)
        out.append(self._event(f"response.{status}", {"response": self.final}))

    # ── bytes ───────────────────────────────────────────────────────────────────────────────

    def _added(self, item: _Open, shown: Json, out: list[bytes]) -> None:
        members = {"output_index": item.index, "item": shown}
        out.append(self._event("response.output_item.added", members))

    def _at(self, item: _Open, index: str = "content_index", **members: Any) -> Json:
        return {"item_id": item.item_id, "output_index": item.index, index: 0, **members}

    def _head(self, kind: str, item: _Open, index: bytes) -> bytes:
        """A delta event's bytes up to its text, with a place for its number; an id has letters."""
        name = kind.encode()
        found = b'event: %b\ndata: {"type":"%b","item_id":"%b","output_index":%d,%b' % (
            name,
            name,
            item.item_id.encode(),
            item.index,
            index,
        )
        return found + b'"sequence_number":%d,"delta":'

    def _whole(self, kind: str, status: str, **members: Any) -> bytes:
        shown = answer.response(self._asked, self._model, status, list(self._output), **members)
        return self._event(kind, {"response": shown})

    def _event(self, kind: str, members: Json) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        data = _encode({"type": kind, "sequence_number": number, **members})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def plain_response(
    events: Iterable[Event],
    asked: Asked,
    model: str,
    item_id: Callable[[str], str],
    now: Callable[[], float],
) -> Json:
    """The plain body for the events of a whole answer.

    Raises:
        HelexaError: What the answer failed with.
    """
    stream = ResponsesStream(asked, model, item_id, now)
    for event in events:
        if isinstance(event, Failed):
            raise event.error
        stream.render((event,))
    if stream.final is None:
        raise ValueError("events without an end")
    return stream.final
