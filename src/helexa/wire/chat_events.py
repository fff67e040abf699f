"""Clean chat, streamed in any pieces or plain, as the events of ``core.events``.

::

    bytes ─▶ whole SSE events ─▶ chunks ─▶ deltas ─▶ ordered events
                                                     (calls one after the other)

Only the first choice is read: the dialects that are rendered from events have one answer. An
engine that writes two tool calls at once has the second held back until the first is complete.
"""

from __future__ import annotations

import msgspec

from helexa.core.errors import HelexaError, UpstreamConnectionError
from helexa.core.events import (
    Cut,
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
    ToolCallEnded,
)
from helexa.core.usage import Timings, Usage
from helexa.wire.bodies import UNREADABLE
from helexa.wire.chat_wire import Answer, Choice, Chunk, Fragment, WireUsage
from helexa.wire.errors import from_wire

_chunk = msgspec.json.Decoder(Chunk).decode
_answer = msgspec.json.Decoder(Answer).decode
_ERROR = (b'{"error"', b'{ "error"')
_STATUS_OF_ERRORS = 502
"""An error event has a code; without one that is known it is the node's failure."""

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_CUTS: dict[str, Cut] = {
    "budget": "budget",
    "kv_exhausted": "kv_exhausted",
    "node_lost": "node_lost",
    "drain": "drain",
}
_WHITESPACE = " \t\r\n"


class Calls:
    """Puts tool calls one after the other, whatever order their fragments come in.

    A call is complete when its arguments are JSON. What comes while one is incomplete and is not
    part of it waits behind it.
    """

    __slots__ = ("_arguments", "_ended", "_held", "_id", "_index", "begun", "open")

    def __init__(self) -> None:
        self.begun = 0
        self.open = False
        self._index = -1  # the wire's, of the open call
        self._id: str | None = None
        self._ended: set[int] = set()
        self._arguments: list[str] = []
        self._held: list[Fragment | Event] = []

    def take(self, fragment: Fragment, out: list[Event]) -> None:
        """One fragment of a call."""
        if self.open and fragment.index == self._index and not self._is_another(fragment):
            self._write(fragment, out)
            if self._held and self._complete():
                self._release(out)
        elif self.open and not self._complete():
            self._held.append(fragment)
        elif fragment.index not in self._ended or _names(fragment):
            self._begin(fragment, out)  # what is left is white space behind complete JSON

    def behind(self, event: Event, out: list[Event]) -> None:
        """Something that is no call, while one is open."""
        if self._complete():
            self._end(out)
            out.append(event)
        else:
            self._held.append(event)

    def close(self, out: list[Event]) -> None:
        """The answer is over: let out what waited, in order."""
        while self._held:
            self._release(out)
        self._end(out)

    def _is_another(self, fragment: Fragment) -> bool:
        """Some engines give every call the same index."""
        return fragment.id is not None and fragment.id != self._id and _names(fragment)

    def _begin(self, fragment: Fragment, out: list[Event]) -> None:
        self._end(out)
        call, self.begun = self.begun, self.begun + 1
        self.open = True
        self._index, self._id = fragment.index, fragment.id
        name = fragment.function.name if fragment.function is not None else None
        out.append(ToolCallBegun(call, fragment.id or f"call_{call}", name or ""))
        self._write(fragment, out)

    def _write(self, fragment: Fragment, out: list[Event]) -> None:
        text = fragment.function.arguments if fragment.function is not None else None
        if text:
            self._arguments.append(text)
            out.append(ToolCallArguments(self.begun - 1, text))

    def _end(self, out: list[Event]) -> None:
        if self.open:
            out.append(ToolCallEnded(self.begun - 1))
            self._ended.add(self._index)
            self.open = False
            self._arguments.clear()

    def _release(self, out: list[Event]) -> None:
        """The open call is as complete as it will get: what waited behind it has its turn."""
        self._end(out)
        held, self._held = self._held, []
        for thing in held:
            if isinstance(thing, Fragment):
                self.take(thing, out)
            elif self.open:
                self.behind(thing, out)
            else:
                out.append(thing)

    def _complete(self) -> bool:
        text = "".join(self._arguments).rstrip(_WHITESPACE)
        if not text.endswith("}"):
            return False
        try:
            msgspec.json.decode(text)
        except UNREADABLE:
            return False
        return True


def _names(fragment: Fragment) -> bool:
    return fragment.function is not None and bool(fragment.function.name)


class ChatEvents:
    """Reads one streamed answer.

    ``feed`` takes bytes in any pieces. ``Finished`` comes with the terminator, or with
    ``finish``; a stream that ends without either is ``lost``.

    Attributes:
        over: The last event has been given.
    """

    __slots__ = ("_calls", "_finish", "_rest", "_started", "_usage", "over")

    def __init__(self) -> None:
        self._rest = b""
        self._started = False
        self._calls = Calls()
        self._finish: Finished | None = None
        self._usage: tuple[Usage, Timings | None] | None = None
        self.over = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes; never raises on garbage: that is ``Failed``."""
        if self._rest:
            data = self._rest + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        out: list[Event] = []
        if end < 2:
            self._rest = data
            return out
        self._rest = data[end:]
        start = 0
        while start < end and not self.over:
            stop = data.index(b"\n\n", start)
            if data.startswith(b"data: ", start) and data.find(b"\n", start, stop) < 0:
                self._data(data[start + 6 : stop], out)
            else:
                self._slow(data[start:stop], out)
            start = stop + 2
        return out

    def finish(self) -> list[Event]:
        """The stream's terminator was seen (by somebody else)."""
        out: list[Event] = []
        self._done(out)
        return out

    def lost(self) -> list[Event]:
        """The stream ended without its terminator."""
        if self.over:
            return []
        out: list[Event] = []
        self._fail(UpstreamConnectionError("The answer broke off before it was complete."), out)
        return out

    def _slow(self, event: bytes, out: list[Event]) -> None:
        """An event of several lines, or a comment."""
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line[:5] == b"data:"]
        if lines:
            self._data(b"\n".join(lines), out)

    def _data(self, data: bytes, out: list[Event]) -> None:
        if data == b"[DONE]":
            self._done(out)
            return
        if data.startswith(_ERROR):
            self._fail(from_wire(_STATUS_OF_ERRORS, data), out)
            return
        try:
            chunk = _chunk(data)
        except UNREADABLE:
            self._fail(UpstreamConnectionError("The node sent something that is not a chunk."), out)
            return
        if not self._started:
            self._start(chunk, out)
        for choice in chunk.choices:
            if choice.index == 0:
                self._choice(choice, chunk, out)
        if chunk.usage is not None:
            self._usage = (usage_of(chunk.usage), chunk.timings)

    def _start(self, chunk: Chunk, out: list[Event]) -> None:
        self._started = True
        prompt, cached = None, 0
        if chunk.timings is not None:
            cached = chunk.timings.cache_n
            prompt = chunk.timings.prompt_n + cached
        out.append(Started(chunk.id, chunk.model, chunk.created, prompt, cached))

    def _choice(self, choice: Choice, chunk: Chunk, out: list[Event]) -> None:
        delta = choice.delta
        if delta is not None:
            if delta.reasoning_content:
                self._say(ReasoningDelta(delta.reasoning_content), out)
            if delta.content:
                logprobs = choice.logprobs.tokens if choice.logprobs is not None else None
                self._say(TextDelta(delta.content, logprobs), out)
            elif delta.refusal:
                self._say(TextDelta(delta.refusal), out)
            for fragment in delta.tool_calls or ():
                self._calls.take(fragment, out)
        if choice.finish_reason is not None:
            self._calls.close(out)
            cut = chunk.helexa.finish if chunk.helexa is not None else None
            self._finish = finished(choice, cut, called=self._calls.begun > 0)

    def _say(self, event: Event, out: list[Event]) -> None:
        if self._calls.open:
            self._calls.behind(event, out)
        else:
            out.append(event)

    def _done(self, out: list[Event]) -> None:
        if self.over:
            return
        if self._finish is None:
            self._fail(UpstreamConnectionError("The answer ended without a reason."), out)
            return
        self.over = True
        usage, timings = self._usage or (Usage(), None)
        out.append(msgspec.structs.replace(self._finish, usage=usage, timings=timings))

    def _fail(self, error: HelexaError, out: list[Event]) -> None:
        self.over = True
        out.append(Failed(error))


def plain_events(body: bytes) -> list[Event]:
    """The events of a whole ``chat.completion``, as if it had been streamed in large pieces."""
    try:
        answer = _answer(body)
    except UNREADABLE:
        return [Failed(UpstreamConnectionError("The node sent something that is not an answer."))]
    choice = next((choice for choice in answer.choices if choice.index == 0), None)
    if choice is None or choice.finish_reason is None:
        return [Failed(from_wire(_STATUS_OF_ERRORS, body))]
    usage = usage_of(answer.usage) if answer.usage is not None else Usage()
    out: list[Event] = [
        Started(answer.id, answer.model, answer.created, usage.prompt, usage.cached)
    ]
    message = choice.message
    if message.reasoning_content:
        out.append(ReasoningDelta(message.reasoning_content))
    text = message.content or message.refusal
    if text:
        out.append(TextDelta(text, choice.logprobs.tokens if choice.logprobs else None))
    for call, made in enumerate(message.tool_calls or ()):
        name = made.function.name if made.function is not None else None
        out.append(ToolCallBegun(call, made.id or f"call_{call}", name or ""))
        if made.function is not None and made.function.arguments:
            out.append(ToolCallArguments(call, made.function.arguments))
        out.append(ToolCallEnded(call))
    cut = answer.helexa.finish if answer.helexa is not None else None
    end = finished(choice, cut, called=bool(message.tool_calls))
    out.append(msgspec.structs.replace(end, usage=usage, timings=answer.timings))
    return out


def finished(choice: Choice, cut: str | None, *, called: bool) -> Finished:
    """The end that a choice names, without its counts; calls always end as ``tool_calls``."""
    stop = choice.stop_reason
    reason = _REASONS.get(choice.finish_reason or "", "stop")
    return Finished(
        "tool_calls" if called and reason == "stop" else reason,
        cut=_CUTS.get(cut) if cut is not None else None,
        stop=stop if isinstance(stop, str) else None,
    )


def usage_of(wire: WireUsage) -> Usage:
    """Counts as core knows them."""
    prompt, output = wire.prompt_tokens_details, wire.completion_tokens_details
    return Usage(
        prompt=wire.prompt_tokens,
        completion=wire.completion_tokens or 0,
        cached=(prompt.cached_tokens or 0) if prompt is not None else 0,
        reasoning=(output.reasoning_tokens or 0) if output is not None else 0,
    )
