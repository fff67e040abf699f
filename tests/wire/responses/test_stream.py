"""Responses answers: their order, their items, their bytes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.responses_schema import check_published, check_response, need_document
from tests.wire.dialects.answers import any_answers, chat_stream, meaning
from tests.wire.responses.reading import check_order, said, sse, validate

from helexa.core.errors import ContextLengthExceeded, InsufficientQuota, InternalError, ModelLoading
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
from helexa.wire.responses.answer import asked
from helexa.wire.responses.decode import read_body, to_request
from helexa.wire.responses.stream import ResponsesStream, plain_response

few = settings(max_examples=40, deadline=None)
GOLDEN = Path(__file__).parent / "golden"
START = Started("chatcmpl-abc", "m", 7, 9, 3)
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
    ToolCallBegun(1, "call_b", "files__read"),
    ToolCallArguments(1, "{}"),
    ToolCallEnded(1),
    Finished("tool_calls", Usage(9, 24, 3, 2)),
]
FUNCTION = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
SPACE = {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read"}]}
BODY = {"model": "m", "input": "hi", "tools": [FUNCTION, SPACE]}


def counter() -> Callable[[str], str]:
    letters = itertools.count()
    return lambda prefix: f"{prefix}{chr(ord('a') + next(letters))}"


def stream(**members: Any) -> ResponsesStream:
    body = read_body(json.dumps({**BODY, **members}).encode())
    names = to_request(body).names
    echo = asked(body, names, "resp_abc", 7, stored=True)
    return ResponsesStream(echo, "m", counter(), lambda: 9.5)


def render(events: list[Event], **members: Any) -> list[dict[str, Any]]:
    return sse(stream(**members).render(events))


def kinds(payloads: list[dict[str, Any]]) -> list[str]:
    return [payload["type"].removeprefix("response.") for payload in payloads]


def test_a_stream_has_the_full_order_of_events() -> None:
    payloads = render(FULL)
    check_order(payloads)
    assert kinds(payloads) == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.delta",
        "reasoning_text.done", "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip


@pytest.mark.parametrize("summary", [None, "auto"])
def test_every_event_validates_against_both_published_schemas(summary: str | None) -> None:
    need_document()
    more = {"reasoning": {"effort": "low", "summary": summary}, "text": {"verbosity": "low"}}
    validate(render(FULL, **more, include=["reasoning.encrypted_content"]))
    validate(render([START, TextDelta("a"), Finished("length", Usage(9, 1), cut="budget")]))
    validate(render([START, TextDelta("a"), Failed(ModelLoading("No.", retry_after_s=3))]))


@pytest.mark.parametrize(
    "members",
    [
        {"instructions": [{"role": "developer", "content": [{"type": "input_text", "text": "x"}]}]},
        {"instructions": [{"type": "message", "role": "user", "content": "x"}]},
        {"tools": [{"type": "function", "name": "f"}]},
    ],
)
def test_what_a_request_left_out_leaves_its_echo_whole(members: dict[str, Any]) -> None:
    payloads = render(FULL[:1] + FULL[-1:], **members)
    validate(payloads)
    if "instructions" in members:
        assert payloads[0]["response"]["instructions"] == "x"


def test_golden_bytes() -> None:
    """What clients have been tested with; changed on purpose only."""
    assert stream().render(FULL) == (GOLDEN / "full.sse").read_bytes()


def test_a_namespaced_call_goes_back_by_its_two_names() -> None:
    payloads = render(FULL)
    calls = [p["item"] for p in payloads if p["type"] == "response.output_item.done"][2:]
    assert [(c.get("namespace"), c["name"]) for c in calls] == [
        (None, "get_weather"),
        ("files", "read"),
    ]
    assert b"files__read" not in stream().render(FULL)


PATCH = {
    "type": "custom", "name": "apply_patch", "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"},
}  # fmt: skip
CUSTOM: list[Event] = [
    START,
    ToolCallBegun(0, "call_a", "apply_patch"),
    ToolCallArguments(0, '{"input": "a\\n'),
    ToolCallArguments(0, '\\"b\\""}'),
    ToolCallEnded(0),
    Finished("tool_calls", Usage(9, 24)),
]


def test_a_custom_tool_is_called_with_a_text() -> None:
    payloads = render(CUSTOM, tools=[FUNCTION, PATCH])
    assert kinds(payloads)[2:-1] == [
        "output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done",
        "output_item.done",
    ]  # fmt: skip
    empty = {"type": "custom_tool_call", "id": "ctc_a", "status": "in_progress",
             "call_id": "call_a", "name": "apply_patch", "input": ""}  # fmt: skip
    assert payloads[2]["item"] == empty
    delta, done, item = payloads[3:6]
    assert delta["output_index"] == done["output_index"] == 0
    assert delta["delta"] == done["input"] == item["item"]["input"] == 'a\n"b"'
    assert {p["item_id"] for p in (delta, done)} == {item["item"]["id"]}
    final = payloads[-1]["response"]
    assert final["output"] == [
        {"type": "custom_tool_call", "id": "ctc_a", "status": "completed", "call_id": "call_a",
         "name": "apply_patch", "input": 'a\n"b"'},
    ]  # fmt: skip
    assert final["tools"][1] == PATCH


def test_what_a_model_writes_for_a_custom_tool_beside_its_form_stays_as_it_is() -> None:
    cut = [*CUSTOM[:3], ToolCallEnded(0), Finished("length")]
    item = render(cut, tools=[PATCH])[-1]["response"]["output"][0]
    assert (item["input"], item["status"]) == ('{"input": "a\\n', "incomplete")
    nested = '{"a":' + "[" * 5000
    deep = [*CUSTOM[:2], ToolCallArguments(0, nested), *CUSTOM[4:]]
    assert render(deep, tools=[PATCH])[-1]["response"]["output"][0]["input"] == nested


def test_a_custom_tools_events_validate_against_the_published_schema() -> None:
    need_document()
    payloads = render(CUSTOM, tools=[FUNCTION, PATCH])
    check_order(payloads)
    for payload in payloads:
        check_published(payload)


def test_thoughts_come_as_a_summary_where_one_was_asked_for() -> None:
    payloads = render(FULL, reasoning={"effort": "low", "summary": "auto"})
    check_order(payloads)
    assert kinds(payloads)[2:8] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done",
        "reasoning_summary_part.done",
    ]  # fmt: skip
    place = {"item_id": "rs_a", "output_index": 0, "summary_index": 0}
    part = {"type": "summary_text", "text": "Let me see."}
    told = [{k: v for k, v in p.items() if k not in ("type", "sequence_number")} for p in payloads]
    assert told[3:8] == [
        {**place, "part": {**part, "text": ""}},
        {**place, "delta": "Let me"},
        {**place, "delta": " see."},
        {**place, "text": "Let me see."},
        {**place, "part": part},
    ]
    item = payloads[-1]["response"]["output"][0]
    assert item["summary"] == [{"type": "summary_text", "text": "Let me see."}]
    assert item["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert "encrypted_content" not in item


def test_what_is_sealed_comes_back_as_a_thought() -> None:
    payloads = render(FULL, include=["reasoning.encrypted_content"])
    item = payloads[-1]["response"]["output"][0]
    replayed = {"type": "reasoning", "summary": [], "encrypted_content": item["encrypted_content"]}
    again = {"model": "m", "input": [replayed, {"role": "assistant", "content": "Yes."}]}
    request = to_request(read_body(json.dumps(again).encode())).request
    assert request.messages[0].reasoning == "Let me see."


def test_usage_has_every_count_that_strict_readers_want() -> None:
    assert render(FULL)[-1]["response"]["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 24,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 33,
    }


@pytest.mark.parametrize("cut", ["budget", "kv_exhausted", "node_lost", "drain"])
def test_a_cut_answer_is_incomplete_and_says_why(cut: Any) -> None:
    payloads = render([START, TextDelta("a"), Finished("length", Usage(9, 1), cut=cut)])
    check_order(payloads)
    response = payloads[-1]["response"]
    assert payloads[-1]["type"] == "response.incomplete"
    assert response["incomplete_details"] == {
        "reason": "max_output_tokens",
        "helexa": {"finish": cut},
    }
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None
    nothing = render([START, Finished("length", Usage(9, 0), cut=cut)])[-1]
    assert (nothing["type"], nothing["response"]["output"]) == ("response.incomplete", [])


def test_a_response_is_told_of_when_its_answer_begins_under_the_model_that_makes_it() -> None:
    for event, model in ((Started("c", "other", 7), "other"), (Started("c", "", 7), "m")):
        payloads = render([event])
        assert kinds(payloads) == ["created", "in_progress"]
        assert {payload["response"]["model"] for payload in payloads} == {model}
    assert kinds(render([TextDelta("a")]))[:3] == ["created", "in_progress", "output_item.added"]
    ended = kinds(render([Finished("stop", Usage(9, 0))]))
    assert ended == ["created", "in_progress", "completed"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ContextLengthExceeded(9, 5), "context_length_exceeded"),
        (InsufficientQuota("Spent."), "insufficient_quota"),
        (InternalError("Ours."), "server_error"),
    ],
)
def test_a_failure_is_an_error_and_a_failed_response(error: Any, code: str) -> None:
    payloads = render([START, TextDelta("half"), Failed(error)])
    assert kinds(payloads)[-2:] == ["error", "failed"]
    flat = {name: payloads[-2][name] for name in ("code", "message", "param")}
    assert flat == {"code": code, "message": error.message, "param": error.param}
    assert flat.items() <= payloads[-2]["error"].items()
    failed = payloads[-1]["response"]
    assert failed["error"] == {"code": code, "message": error.message}
    assert (failed["status"], failed["completed_at"]) == ("failed", None)
    assert [item["status"] for item in failed["output"]] == ["incomplete"]
    assert "response.completed" not in {payload["type"] for payload in payloads}


def test_keep_alives_open_the_response_and_repeat_its_progress() -> None:
    writer = stream()
    written = writer.keep_alive() + writer.keep_alive() + writer.render(FULL)
    payloads = sse(written)
    check_order(payloads)
    assert kinds(payloads)[:3] == ["created", "in_progress", "in_progress"]


def test_log_probabilities_go_along_with_their_text() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    event = TextDelta("a", msgspec.Raw(json.dumps([token]).encode()))
    payloads = render([START, event, Finished("stop", Usage(9, 1))], top_logprobs=1)
    assert next(p for p in payloads if p["type"].endswith("text.delta"))["logprobs"] == [token]
    assert payloads[-1]["response"]["output"][0]["content"][0]["logprobs"] == [token]


def test_a_plain_body_is_the_last_events_response() -> None:
    body = read_body(json.dumps(BODY).encode())
    names = to_request(body).names
    echo = asked(body, names, "resp_abc", 7, stored=True)
    plain = plain_response(FULL, echo, "m", counter(), lambda: 9.5)
    whole = json.loads(json.dumps(render(FULL)[-1]["response"]))
    assert msgspec.json.decode(msgspec.json.encode(plain)) == whole
    check_response(whole)
    with pytest.raises(ValueError, match="without an end"):
        plain_response([START], echo, "m", counter(), lambda: 1)
    with pytest.raises(ContextLengthExceeded):
        plain_response([Failed(ContextLengthExceeded(9, 5))], echo, "m", counter(), lambda: 1)


@few
@given(any_answers(), st.lists(st.integers(0, 4000), max_size=6))
def test_any_answer_renders_the_same_under_any_rechunking(
    events: list[Event], cuts: list[int]
) -> None:
    whole = chat_stream(events)
    edges = sorted({0, len(whole), *(min(cut, len(whole)) for cut in cuts)})
    decoder, writer, written = ChatEvents(), stream(), b""
    for a, b in pairwise(edges):
        written += writer.render(decoder.feed(whole[a:b]))
    payloads = sse(written)
    check_order(payloads)
    assert said(payloads[-1]["response"]) == meaning(events)
    once = sse(stream().render(ChatEvents().feed(whole)))
    assert payloads == once


@few
@given(any_answers())
def test_arguments_and_texts_survive_byte_by_byte(events: list[Event]) -> None:
    payloads = render(events)
    check_order(payloads)
    assert said(payloads[-1]["response"]) == meaning(events)
