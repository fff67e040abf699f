"""Reasoning inside the text, where a client asks for it there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from tests.wire.dialects.answers import answers, chat_stream, meaning

from helexa.core.events import Event
from helexa.wire.chat_events import ChatEvents
from helexa.wire.inline import InlineThinking

MARKERS = ("<think>", "</think>")
DONE = b"data: [DONE]\n\n"


def event(index: int = 0, finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    chunk = {"id": "a", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def text(stream: bytes, kind: str = "content", index: int = 0) -> str:
    chunks = [json.loads(e[6:]) for e in stream.split(b"\n\n") if e.startswith(b"data: {")]
    choices = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(c["delta"].get(kind) or "" for c in choices)


def inlined(*events: bytes) -> bytes:
    made = InlineThinking(MARKERS)
    return b"".join(made.events(one) for one in events)


def test_thoughts_stand_before_the_text_between_the_models_own_markers() -> None:
    out = inlined(
        event(role="assistant"),
        event(reasoning_content="Let me"),
        event(reasoning_content=" see."),
        event(content="So"),
        event(content=" it is."),
        event(finish="stop"),
        DONE,
    )
    assert text(out) == "<think>\nLet me see.\n</think>\n\nSo it is."
    assert text(out, "reasoning_content") == "Let me see."
    assert out.endswith(event(content=" it is.") + event(finish="stop") + DONE)


@pytest.mark.parametrize(
    "after",
    [
        event(finish="length"),
        event(tool_calls=[{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]),
    ],
)
def test_thoughts_without_text_behind_them_are_closed_too(after: bytes) -> None:
    assert text(inlined(event(reasoning_content="hm"), after)) == "<think>\nhm\n</think>\n\n"


def test_every_choice_has_its_own_markers() -> None:
    out = inlined(
        event(0, reasoning_content="a"), event(1, content="x"), event(1, reasoning_content="b"),
        event(0, content="y"), event(1, finish="stop"),
    )  # fmt: skip
    assert text(out) == "<think>\na\n</think>\n\ny"
    assert text(out, index=1) == "x<think>\nb\n</think>\n\n"


def test_a_plain_answer_has_it_too() -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "hm"}
    body = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
    found = json.loads(InlineThinking(MARKERS).plain(body))["choices"][0]["message"]
    assert found["content"] == "<think>\nhm\n</think>\n\n"
    assert found["reasoning_content"] == "hm"


def test_what_has_no_thoughts_is_passed_as_it_is() -> None:
    stream = event(role="assistant") + b": keep-alive\n\n" + event(content="a") + DONE
    assert inlined(stream) is stream


@settings(max_examples=40, deadline=None)
@given(answers())
def test_any_answer_keeps_its_meaning_outside_the_markers(events: list[Event]) -> None:
    stream = chat_stream(events)
    out = InlineThinking(MARKERS).events(stream)
    said, shown = meaning(ChatEvents().feed(stream)), meaning(ChatEvents().feed(out))
    assert [i for i in shown if i[0] in ("call", "end")] == [
        i for i in said if i[0] in ("call", "end")
    ]
    thoughts = "".join(i[1] for i in said if i[0] == "reasoning")
    assert "".join(i[1] for i in shown if i[0] == "reasoning") == thoughts
    words = "".join(i[1] for i in shown if i[0] == "text")
    assert words.count("<think>\n") == words.count("\n</think>\n\n") >= bool(thoughts)
