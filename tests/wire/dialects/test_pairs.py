"""One meaning, three dialects: whatever is asked or answered says the same in each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.dialects.answers import answers, chat_stream, chat_usage, flat, meaning
from tests.wire.messages import reading as messages
from tests.wire.responses import reading as responses

from helexa.core.chat import ChatRequest, Text
from helexa.core.events import Event, Finished, Started
from helexa.wire.chat_events import ChatEvents
from helexa.wire.messages.decode import decode_messages
from helexa.wire.messages.dialect import translate_messages
from helexa.wire.responses.decode import read_body, to_request
from helexa.wire.responses.dialect import translate_unkept
from helexa.wire.translation import Translation

few = settings(max_examples=40, deadline=None)
Translate = Callable[[], Translation]


def as_messages() -> Translation:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    made = translate_messages(json.dumps(body).encode(), "abc")
    made.begin("m")
    return made


def as_responses() -> Translation:
    body = {"model": "m", "input": "hi", "stream": True}
    made = translate_unkept(json.dumps(body).encode(), "abc", itertools.count(7).__next__)
    made.begin("m")
    return made


def streamed(made: Translation, chat: bytes, cuts: list[int]) -> bytes:
    """Through the gateway's hands: whole events, the terminator kept back."""
    events = chat.removesuffix(b"data: [DONE]\n\n").split(b"\n\n")
    whole = [event + b"\n\n" for event in events if event]
    edges = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    out = b"".join(made.events(b"".join(whole[a:b])) for a, b in pairwise(edges))
    return out + made.finish(b": helexa {}\n\n")


def plain_chat(events: list[Event]) -> bytes:
    """The plain answer that a node would have put together."""
    said = meaning(events)
    message = {
        "role": "assistant",
        "content": "".join(i[1] for i in said if i[0] == "text") or None,
    }
    message["reasoning_content"] = "".join(i[1] for i in said if i[0] == "reasoning")
    calls: Any = [
        {"id": i[1], "type": "function", "function": {"name": i[2], "arguments": i[3]}}
        for i in said
        if i[0] == "call"
    ]
    end = events[-1]
    assert isinstance(end, Finished)
    body: dict[str, Any] = {
        "id": "chatcmpl-abc", "object": "chat.completion", "created": 7, "model": "m",
        "choices": [{"index": 0, "message": {**message, **({"tool_calls": calls} if calls else {})},
                     "finish_reason": end.reason}],
        "usage": chat_usage(end.usage),
    }  # fmt: skip
    if end.cut is not None:
        body["helexa"] = {"finish": end.cut}
    return json.dumps(body).encode()


@few
@given(answers(), st.lists(st.integers(0, 60), max_size=5))
def test_a_streamed_answer_means_the_same_in_every_dialect_under_any_chunking(
    events: list[Event], cuts: list[int]
) -> None:
    chat = chat_stream(events)
    decoded = ChatEvents().feed(chat)
    ours = messages.sse(streamed(as_messages(), chat, cuts))
    theirs = responses.sse(streamed(as_responses(), chat, cuts))
    messages.check_order(ours)
    responses.check_order(theirs)
    expected = meaning(events)
    assert meaning(decoded) == expected
    assert messages.said(ours) == expected
    assert responses.said(theirs[-1]["response"]) == expected


@few
@given(answers())
def test_a_plain_answer_means_the_same_in_every_dialect(events: list[Event]) -> None:
    chat = plain_chat(events)
    ours = messages.said_plain(as_messages().plain(chat))
    theirs = responses.said(json.loads(as_responses().plain(chat)))
    expected = flat(meaning(events))
    assert theirs == expected
    assert ours == [_parsed(item) for item in expected]


@few
@given(answers())
def test_tool_arguments_have_the_same_bytes_in_the_three_dialects(events: list[Event]) -> None:
    chat = chat_stream(events)
    wanted = [item[3] for item in meaning(events) if item[0] == "call"]
    decoded = [item[3] for item in meaning(ChatEvents().feed(chat)) if item[0] == "call"]
    ours = messages.said(messages.sse(streamed(as_messages(), chat, [])))
    last = responses.sse(streamed(as_responses(), chat, []))[-1]["response"]
    assert decoded == wanted
    assert [item[3] for item in ours if item[0] == "call"] == wanted
    assert [item[3] for item in responses.said(last) if item[0] == "call"] == wanted
    plain = as_messages().plain(plain_chat(events))
    assert all(b'"input":' + text.encode() + b"}" in plain for text in wanted)


def _parsed(item: tuple[str, ...]) -> tuple[str, ...]:
    if item[0] != "call":
        return item
    return (*item[:3], json.dumps(json.loads(item[3]), sort_keys=True))


# ── requests ────────────────────────────────────────────────────────────────────────────────

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
inputs = st.dictionaries(words, st.integers() | words, max_size=2)
Turn = tuple[str, Any]


@st.composite
def conversations(draw: st.DrawFn) -> list[Turn]:
    """User and assistant in turns; every call has its result right behind it."""
    turns: list[Turn] = []
    for number in range(draw(st.integers(1, 3))):
        turns.append(("user", draw(words)))
        calls = [
            (f"call_{number}_{index}", "f", json.dumps(draw(inputs), ensure_ascii=False))
            for index in range(draw(st.integers(0, 2)))
        ]
        turns.append(("assistant", (draw(words), calls)))
        turns += [("result", (call[0], draw(words))) for call in calls]
    return [*turns, ("user", draw(words))]


def in_messages(turns: list[Turn]) -> bytes:
    out: list[dict[str, Any]] = []
    for kind, said in turns:
        if kind == "user":
            out.append({"role": "user", "content": said})
        elif kind == "result":
            result = {"type": "tool_result", "tool_use_id": said[0], "content": said[1]}
            out.append({"role": "user", "content": [result]})
        else:
            calls = [
                {"type": "tool_use", "id": i, "name": n, "input": msgspec.Raw(a.encode())}
                for i, n, a in said[1]
            ]
            out.append(
                {"role": "assistant", "content": [{"type": "text", "text": said[0]}, *calls]}
            )
    return msgspec.json.encode({"model": "m", "system": "Be.", "messages": out, "max_tokens": 9})


def in_responses(turns: list[Turn]) -> bytes:
    out: list[dict[str, Any]] = []
    for kind, said in turns:
        if kind == "user":
            out.append({"role": "user", "content": said})
        elif kind == "result":
            out.append({"type": "function_call_output", "call_id": said[0], "output": said[1]})
        else:
            text = {"type": "output_text", "text": said[0], "annotations": []}
            out.append({"type": "message", "role": "assistant", "content": [text]})
            out += [
                {"type": "function_call", "call_id": i, "name": n, "arguments": a}
                for i, n, a in said[1]
            ]
    body = {"model": "m", "instructions": "Be.", "input": out, "max_output_tokens": 9}
    return msgspec.json.encode(body)


def asked(request: ChatRequest) -> list[tuple[str, ...]]:
    """What a request says, however its turns are grouped."""
    out: list[tuple[str, ...]] = []
    for message in request.messages:
        text = "".join(part.text for part in message.content if isinstance(part, Text))
        if message.role == "tool":
            out.append(("result", str(message.tool_call_id), text))
        elif text:
            out.append((message.role, text))
        out += [("call", call.id, call.name, call.arguments) for call in message.tool_calls]
    return out


@few
@given(conversations())
def test_a_conversation_is_the_same_request_in_both_dialects(turns: list[Turn]) -> None:
    ours = decode_messages(in_messages(turns)).request
    theirs = to_request(read_body(in_responses(turns))).request
    assert asked(ours) == asked(theirs)
    assert (ours.max_output, ours.model) == (theirs.max_output, theirs.model)


def test_an_answer_begins_with_what_is_known_of_it() -> None:
    """Which is what lets Messages open with the prompt's count."""
    assert ChatEvents().feed(chat_stream([Started("chatcmpl-abc", "m", 7, 9, 0)]))[0] == Started(
        "chatcmpl-abc", "m", 7, 9, 0
    )
