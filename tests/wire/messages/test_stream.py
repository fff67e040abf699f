"""Messages answers: their order, their counts, their bytes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.dialects.answers import answers, any_answers, chat_stream, meaning
from tests.wire.messages.reading import check_order, said, said_plain, sse, validate

from helexa.core.errors import ContextLengthExceeded, HelexaError, InternalError, ModelLoading
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
from helexa.core.usage import Usage
from helexa.wire.chat_events import ChatEvents
from helexa.wire.messages.plain import plain_message
from helexa.wire.messages.stream import PING, MessagesStream

few = settings(max_examples=40, deadline=None)
GOLDEN = Path(__file__).parent / "golden"
START = Started("chatcmpl-abc", "m", 7, 9, 3)
END = Finished("stop", Usage(9, 4, 3, 2))
FULL: list[Event] = [
    START,
    ReasoningDelta("Let me"),
    ReasoningDelta(" see."),
    TextDelta("I look"),
    TextDelta(" it up."),
    ToolCallBegun(0, "call_a", "get_weather"),
    ToolCallArguments(0, '{"city": '),
    ToolCallArguments(0, '"paris" }'),
    ToolCallEnded(0),
    ToolCallBegun(1, "call_b", "get_time"),
    ToolCallArguments(1, "{}"),
    ToolCallEnded(1),
    Finished("tool_calls", Usage(9, 24, 3, 2)),
]


def render(events: list[Event], **options: bool) -> bytes:
    return MessagesStream("abc", "m", **options).render(events)


def body(events: list[Event], **options: bool) -> bytes:
    found = plain_message(events, "abc", "m", **options)
    assert isinstance(found, bytes)
    return found


@pytest.mark.parametrize("form", ["stream.sse", "plain.json"])
def test_an_answer_with_everything_is_what_the_golden_file_says(form: str) -> None:
    found = render(FULL) if form == "stream.sse" else body(FULL) + b"\n"
    assert found == (GOLDEN / form).read_bytes()


def test_message_start_waits_for_the_prompts_count() -> None:
    stream = MessagesStream("abc", "m")
    assert stream.render([Started("x", "m", 7)]) == b""
    found = sse(stream.render([TextDelta("a"), END]))
    assert found[0]["message"]["usage"]["input_tokens"] == 0
    assert found[-2]["usage"]["input_tokens"] == 6
    told = sse(MessagesStream("abc", "m").render([START]))
    usage = told[0]["message"]["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (6, 3)
    late = sse(MessagesStream("abc", "m").render([Started("x", "m", 7), END]))
    assert late[0]["message"]["usage"] == usage


def test_who_cannot_wait_opens_the_message_once() -> None:
    stream = MessagesStream("abc", "m")
    opened = stream.open() + PING
    assert stream.open() == b""
    found = sse(opened + PING + stream.render(FULL))
    check_order(found)
    assert [data["type"] for data in found[:3]] == ["message_start", "ping", "ping"]


def test_thinking_is_signed_before_its_block_stops() -> None:
    kinds = [
        data["delta"]["type"] if data["type"] == "content_block_delta" else data["type"]
        for data in sse(render([START, ReasoningDelta("hm"), TextDelta("so"), END]))
    ]
    assert kinds[1:6] == [
        "content_block_start",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
    ]


def test_omitted_thinking_leaves_a_signed_empty_block() -> None:
    events: list[Event] = [START, ReasoningDelta("hm"), TextDelta("so"), END]
    assert said(sse(render(events, hide_thinking=True)))[0] == ("reasoning", "")
    block = json.loads(body(events, hide_thinking=True))["content"][0]
    assert block == {"type": "thinking", "thinking": "", "signature": "helexa-abc"}


@pytest.mark.parametrize(
    ("end", "reason", "sequence"),
    [
        (Finished("stop"), "end_turn", None),
        (Finished("stop", stop="END"), "stop_sequence", "END"),
        (Finished("length"), "max_tokens", None),
        (Finished("tool_calls"), "tool_use", None),
        (Finished("content_filter"), "refusal", None),
    ],
)
def test_each_end_has_its_stop_reason(end: Finished, reason: str, sequence: str | None) -> None:
    delta = sse(render([START, end]))[-2]["delta"]
    assert (delta["stop_reason"], delta["stop_sequence"]) == (reason, sequence)
    whole = json.loads(body([START, end]))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)


def test_a_cut_says_why_in_message_delta_and_in_the_body() -> None:
    end = Finished("length", cut="kv_exhausted")
    assert sse(render([START, end]))[-2]["helexa"] == {"finish": "kv_exhausted"}
    assert json.loads(body([START, end]))["helexa"] == {"finish": "kv_exhausted"}


def test_a_failure_is_the_last_event_and_no_success_terminator_follows() -> None:
    error = ModelLoading("Loading.", retry_after_s=3)
    found = sse(render([START, TextDelta("a"), Failed(error)]))
    check_order(found)
    assert found[-1]["error"]["type"] == "overloaded_error"
    assert found[-1]["error"]["code"] == "model_loading"
    assert found[-1]["error"]["retry_after_s"] == 3
    assert "message_stop" not in [data["type"] for data in found]


def test_context_overflow_says_it_in_the_words_that_make_agents_compact() -> None:
    (found,) = sse(render([Failed(ContextLengthExceeded(70_000, 65_536))]))
    assert found["error"]["message"].startswith("prompt is too long: 70000 tokens > 65536 maximum")
    error = plain_message([Failed(ContextLengthExceeded(9, 5))], "abc", "m")
    assert isinstance(error, ContextLengthExceeded)


def test_a_plain_answer_that_broke_off_is_an_error() -> None:
    assert isinstance(plain_message([START, TextDelta("a")], "abc", "m"), HelexaError)
    assert isinstance(plain_message([Failed(InternalError("x"))], "abc", "m"), InternalError)


@pytest.mark.parametrize("written", ['{"x":', '{"x":' + "[" * 5000])
def test_arguments_that_nobody_can_read_are_shown_as_they_are(written: str) -> None:
    events: list[Event] = [START, ToolCallBegun(0, "a", "f"), ToolCallArguments(0, written),
                           ToolCallEnded(0), Finished("length")]  # fmt: skip
    assert json.loads(body(events))["content"][0]["input"] == {"unparsed": written}
    empty: list[Event] = [START, ToolCallBegun(0, "a", "f"), ToolCallEnded(0), END]
    assert json.loads(body(empty))["content"][0]["input"] == {}


@few
@given(any_answers(), st.lists(st.integers(0, 20), max_size=6))
def test_any_sequence_of_events_renders_the_same_under_any_chunking(
    events: list[Event], cuts: list[int]
) -> None:
    stream = MessagesStream("abc", "m")
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    pieces = b"".join(stream.render(events[a:b]) for a, b in pairwise(edges))
    assert pieces == render(events)


@few
@given(answers(), st.lists(st.integers(0, 5000), max_size=6))
def test_a_chat_stream_in_any_pieces_becomes_the_same_messages_stream(
    events: list[Event], cuts: list[int]
) -> None:
    chat = chat_stream(events)
    decoder, stream = ChatEvents(), MessagesStream("abc", "m")
    edges = [0, *sorted(cut % (len(chat) + 1) for cut in cuts), len(chat)]
    pieces = b"".join(stream.render(decoder.feed(chat[a:b])) for a, b in pairwise(edges))
    assert pieces == render(events)


@few
@given(any_answers())
def test_no_event_order_is_written_that_the_dialect_forbids(events: list[Event]) -> None:
    found = sse(render(events))
    check_order(found)
    validate(found)


@few
@given(any_answers())
def test_a_rendered_stream_keeps_the_meaning(events: list[Event]) -> None:
    assert said(sse(render(events))) == meaning(events)


@few
@given(answers())
def test_a_rendered_body_keeps_the_meaning(events: list[Event]) -> None:
    assert said_plain(body(events)) == _parsed(meaning(events))


@few
@given(answers())
def test_tool_arguments_are_byte_identical_in_bodies(events: list[Event]) -> None:
    raw = body(events)
    for item in meaning(events):
        if item[0] == "call":
            assert b'"input":' + item[3].encode() + b"}" in raw


def _parsed(found: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [
        (*item[:3], json.dumps(json.loads(item[3]), sort_keys=True)) if item[0] == "call" else item
        for item in found
    ]
