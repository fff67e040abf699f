"""Answers as event sequences: how to make any, what they mean, and how chat would write them."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

from helexa.core.errors import ContextLengthExceeded, HelexaError, ModelLoading
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
from helexa.core.usage import Timings, Usage
from helexa.wire import errors

Meaning = list[tuple[str, ...]]

FAILURES = (ModelLoading("Loading.", retry_after_s=3), ContextLengthExceeded(9, 5))

words = st.text(min_size=1, max_size=6) | st.sampled_from(
    ["\n\n", "data: x\n\n", '"', "\\", "\u2028", "[DONE]", "event: error", "é🦊", "\x00"]
)
_json = st.dictionaries(
    st.text(max_size=4), st.integers() | st.text(max_size=4) | st.none() | st.booleans(), max_size=3
)


@st.composite
def arguments(draw: st.DrawFn) -> list[str]:
    """The fragments of a JSON object with spaces where a model may put them."""
    text = json.dumps(draw(_json), separators=draw(st.sampled_from([(",", ":"), (", ", ": ")])))
    cuts = sorted(set(draw(st.lists(st.integers(1, max(1, len(text) - 1)), max_size=3))))
    return [text[a:b] for a, b in pairwise([0, *cuts, len(text)]) if text[a:b]]


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Any answer that is allowed by ``core.events``, ended well."""
    events: list[Event] = [Started("chatcmpl-abc", "m", 7, draw(st.none() | st.just(9)), 0)]
    calls = 0
    for kind in draw(st.lists(st.sampled_from("trc"), max_size=6)):
        if kind == "c":
            events.append(ToolCallBegun(calls, f"call_{calls}", f"f{calls}"))
            events += [ToolCallArguments(calls, piece) for piece in draw(arguments())]
            events.append(ToolCallEnded(calls))
            calls += 1
        else:
            make = TextDelta if kind == "t" else ReasoningDelta
            events += [make(word) for word in draw(st.lists(words, min_size=1, max_size=4))]
    usage = Usage(9, draw(st.integers(0, 99)), draw(st.integers(0, 9)), 0)
    reason = "tool_calls" if calls else draw(st.sampled_from(["stop", "length"]))
    cut = draw(st.none() | st.just("budget")) if reason == "length" else None
    events.append(Finished(reason, usage, Timings(), cut))  # type: ignore[arg-type]
    return events


@st.composite
def any_answers(draw: st.DrawFn) -> list[Event]:
    """Answers that end well, and such that fail anywhere, also first."""
    events = draw(answers())
    if draw(st.booleans()):
        return events
    errors_ = st.sampled_from(
        [ModelLoading("Loading.", retry_after_s=3), ContextLengthExceeded(9, 5)]
    )
    return [*events[: draw(st.integers(0, len(events) - 1))], Failed(draw(errors_))]


def meaning(events: list[Event]) -> Meaning:
    """What an answer says, however it was cut into deltas."""
    out: list[list[str]] = []
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta):
            kind = "text" if isinstance(event, TextDelta) else "reasoning"
            if out and out[-1][0] == kind:
                out[-1][1] += event.text
            else:
                out.append([kind, event.text])
        elif isinstance(event, ToolCallBegun):
            out.append(["call", event.id, event.name, ""])
        elif isinstance(event, ToolCallArguments):
            out[-1][3] += event.fragment
        elif isinstance(event, Finished):
            usage = event.usage
            counts = (usage.prompt, usage.completion, usage.cached)
            out.append(["end", event.reason, *map(str, counts), event.cut or ""])
        elif isinstance(event, Failed):
            out.append(["error", failure(event.error)])
    return [tuple(item) for item in out]


def flat(said: Meaning) -> Meaning:
    """As a plain chat answer keeps it: reasoning, text, calls, each joined."""
    reasoning = "".join(item[1] for item in said if item[0] == "reasoning")
    text = "".join(item[1] for item in said if item[0] == "text")
    rest = [item for item in said if item[0] not in ("reasoning", "text")]
    return [
        *([("reasoning", reasoning)] if reasoning else []),
        *([("text", text)] if text else []),
        *rest,
    ]


def failure(error: HelexaError) -> str:
    return str(error.code)


HEAD = {"id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 7, "model": "m"}


def chat_stream(events: list[Event]) -> bytes:
    """The clean chat that a node would have written."""
    return b"".join(_chat_event(event) for event in events)


def _chat_event(event: Event) -> bytes:
    if isinstance(event, Started):
        first = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
        told = {"timings": {"prompt_n": event.prompt}} if event.prompt is not None else {}
        return _data({**HEAD, **told, "choices": [first]})
    if isinstance(event, TextDelta):
        return _delta({"content": event.text})
    if isinstance(event, ReasoningDelta):
        return _delta({"reasoning_content": event.text})
    if isinstance(event, ToolCallBegun):
        function = {"name": event.name, "arguments": ""}
        call = {"index": event.call, "id": event.id, "type": "function", "function": function}
        return _delta({"tool_calls": [call]})
    if isinstance(event, ToolCallArguments):
        call = {"index": event.call, "function": {"arguments": event.fragment}}
        return _delta({"tool_calls": [call]})
    if isinstance(event, ToolCallEnded):
        return b""
    if isinstance(event, Failed):
        return errors.event(event.error, "openai")
    return _chat_end(event)


def _chat_end(event: Finished) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": event.reason}
    ours = {"helexa": {"finish": event.cut}} if event.cut is not None else {}
    return (
        _data({**HEAD, **ours, "choices": [choice]})
        + _data({**HEAD, "choices": [], "usage": chat_usage(event.usage), "timings": {}})
        + b"data: [DONE]\n\n"
    )


def chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.total,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def _delta(members: dict[str, Any]) -> bytes:
    return _data({**HEAD, "choices": [{"index": 0, "delta": members, "finish_reason": None}]})


def _data(chunk: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
