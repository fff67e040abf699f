"""Clean chat as events: any chunking, any order of tool call fragments, any way to end."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.core.errors import ContextLengthExceeded, ModelLoading, UpstreamConnectionError
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
from helexa.wire.chat_events import ChatEvents, plain_events

HEAD = {"id": "chatcmpl-a", "object": "chat.completion.chunk", "created": 7, "model": "m"}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TIMINGS = {"prompt_n": 6, "cache_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 8.0}
KNOWN = Usage(9, 4, 3, 2)
DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, **members: Any) -> bytes:
    return event({**HEAD, "choices": [{"index": 0, "delta": members, "finish_reason": finish}]})


def call(index: int, arguments: str = "", **named: Any) -> bytes:
    function = {"arguments": arguments}
    if "name" in named:
        function["name"] = named.pop("name")
    return delta(tool_calls=[{"index": index, **named, "function": function}])


def end(finish: str = "stop") -> bytes:
    return delta(finish) + event({**HEAD, "choices": [], "usage": USAGE, "timings": TIMINGS}) + DONE


def read(stream: bytes, *cuts: int) -> list[Event]:
    decoder = ChatEvents()
    edges = [0, *sorted(cuts), len(stream)]
    out = [e for a, b in pairwise(edges) for e in decoder.feed(stream[a:b])]
    return out + decoder.lost()


def comparable(events: list[Event]) -> list[object]:
    """Errors compare by identity; these by what they say."""
    return [(type(e.error), e.error.message) if isinstance(e, Failed) else e for e in events]


def test_a_stream_becomes_started_deltas_and_finished_with_exact_usage() -> None:
    stream = (
        delta(role="assistant")
        + b": keep-alive\n\n"
        + delta(reasoning_content="hm")
        + delta(content="so")
        + end()
    )
    assert read(stream) == [
        Started("chatcmpl-a", "m", 7),
        ReasoningDelta("hm"),
        TextDelta("so"),
        Finished("stop", KNOWN, Timings(6, 3, 1.5, 4, 8.0)),
    ]


def test_started_knows_the_prompt_when_the_first_chunk_tells_it() -> None:
    first = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}
    told = event({**HEAD, "timings": {"prompt_n": 6, "cache_n": 3}, "choices": [first]})
    assert read(told + end())[0] == Started("chatcmpl-a", "m", 7, 9, 3)


def test_parallel_calls_come_one_after_the_other_with_their_bytes() -> None:
    stream = (
        delta(content="I look. ")
        + call(0, id="a", name="one", type="function")
        + call(0, '{"x": ')
        + call(0, "1 }")
        + call(1, '{"y":2}', id="b", name="two", type="function")
        + end("tool_calls")
    )
    assert read(stream)[1:-1] == [
        TextDelta("I look. "),
        ToolCallBegun(0, "a", "one"),
        ToolCallArguments(0, '{"x": '),
        ToolCallArguments(0, "1 }"),
        ToolCallEnded(0),
        ToolCallBegun(1, "b", "two"),
        ToolCallArguments(1, '{"y":2}'),
        ToolCallEnded(1),
    ]


def test_calls_written_at_once_are_put_one_after_the_other() -> None:
    stream = (
        call(0, '{"x":', id="a", name="one")
        + call(1, '{"y":', id="b", name="two")
        + delta(content="and")
        + call(0, "1}")
        + call(1, "2}")
        + end("tool_calls")
    )
    assert read(stream)[1:-1] == [
        ToolCallBegun(0, "a", "one"),
        ToolCallArguments(0, '{"x":'),
        ToolCallArguments(0, "1}"),
        ToolCallEnded(0),
        ToolCallBegun(1, "b", "two"),
        ToolCallArguments(1, '{"y":'),
        ToolCallArguments(1, "2}"),
        ToolCallEnded(1),
        TextDelta("and"),
    ]


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    stream = (
        call(0, '{"x":1}', id="a", name="f") + call(0, "{}", id="b", name="f") + end("tool_calls")
    )
    begun = [e for e in read(stream) if isinstance(e, ToolCallBegun)]
    assert begun == [ToolCallBegun(0, "a", "f"), ToolCallBegun(1, "b", "f")]


def test_a_call_cut_in_its_arguments_is_ended_as_it_is() -> None:
    stream = call(0, '{"x":', id="a", name="f") + call(1, "{", id="b", name="g") + end("length")
    found = read(stream)
    assert found[-2] == ToolCallEnded(1)
    assert found.index(ToolCallEnded(0)) < found.index(ToolCallBegun(1, "b", "g"))
    assert isinstance(found[-1], Finished)
    assert found[-1].reason == "length"


def test_a_call_nested_beyond_all_reason_keeps_its_bytes_and_what_follows_it() -> None:
    deep = '{"a":' + "[" * 5000 + "]" * 5000 + "}"
    stream = call(0, deep, id="a", name="f") + call(1, "{}", id="b", name="g") + end("tool_calls")
    assert read(stream)[1:-1] == [
        ToolCallBegun(0, "a", "f"),
        ToolCallArguments(0, deep),
        ToolCallEnded(0),
        ToolCallBegun(1, "b", "g"),
        ToolCallArguments(1, "{}"),
        ToolCallEnded(1),
    ]


def test_an_answer_of_calls_ends_as_tool_calls_whatever_the_engine_says() -> None:
    found = read(call(0, "{}", id="a", name="f") + end("stop"))[-1]
    assert isinstance(found, Finished)
    assert found.reason == "tool_calls"


def test_why_we_cut_an_answer_and_which_stop_sequence_ended_it_are_kept() -> None:
    choice = {"index": 0, "delta": {}, "finish_reason": "length"}
    cut = read(event({**HEAD, "choices": [choice], "helexa": {"finish": "budget"}}) + DONE)[-1]
    assert isinstance(cut, Finished)
    assert (cut.reason, cut.cut) == ("length", "budget")
    choice = {"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}
    stopped = read(event({**HEAD, "choices": [choice]}) + DONE)[-1]
    assert isinstance(stopped, Finished)
    assert stopped.stop == "END"


def test_an_error_event_is_the_last_event_with_its_code_and_extras() -> None:
    error = ModelLoading("Loading.", retry_after_s=9, eta_s=9)
    found = read(delta(content="a") + errors.event(error, "openai") + end())
    assert isinstance(found[-1], Failed)
    assert isinstance(found[-1].error, ModelLoading)
    assert found[-1].error.retry_after_s == 9
    assert found[-1].error.extras["eta_s"] == 9
    first = read(errors.event(ContextLengthExceeded(9, 5), "openai"))
    assert [type(e) for e in first] == [Failed]


@pytest.mark.parametrize("stream", [delta(content="a"), delta(content="a") + delta("stop"), b""])
def test_a_stream_without_its_terminator_is_a_failure(stream: bytes) -> None:
    last = read(stream)[-1]
    assert isinstance(last, Failed)
    assert isinstance(last.error, UpstreamConnectionError)


@pytest.mark.parametrize("garbage", [b"data: {\n\n", b"data: \xff\n\n", b"data: [1]\n\n", DONE])
def test_garbage_is_a_failure_and_nothing_follows_it(garbage: bytes) -> None:
    found = read(garbage + delta(content="late") + end())
    assert isinstance(found[-1], Failed)
    assert TextDelta("late") not in found


def test_log_probabilities_stay_json() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None,
              "logprobs": {"refusal": None, "content": [token]}}  # fmt: skip
    found = read(event({**HEAD, "choices": [choice]}) + end())[1]
    assert isinstance(found, TextDelta)
    assert found.logprobs is not None
    assert json.loads(bytes(found.logprobs)) == [token]


def test_a_plain_answer_has_the_events_of_its_stream() -> None:
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1 }'}}]
    message = {"role": "assistant", "content": "so", "reasoning_content": "hm", "tool_calls": calls}
    body = {**HEAD, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
            "usage": USAGE, "timings": TIMINGS, "helexa": {"finish": "drain"}}  # fmt: skip
    assert plain_events(json.dumps(body).encode()) == [
        Started("chatcmpl-a", "m", 7, 9, 3),
        ReasoningDelta("hm"),
        TextDelta("so"),
        ToolCallBegun(0, "a", "f"),
        ToolCallArguments(0, '{"x": 1 }'),
        ToolCallEnded(0),
        Finished("tool_calls", KNOWN, Timings(6, 3, 1.5, 4, 8.0), "drain"),
    ]


@pytest.mark.parametrize("body", [b"", b"nope", b"{}", b'{"error":{"code":"x","message":"y"}}'])
def test_a_plain_answer_that_is_none_is_a_failure(body: bytes) -> None:
    assert [type(e) for e in plain_events(body)] == [Failed]


texts = st.text(min_size=1, max_size=8)
pieces = st.one_of(
    texts.map(lambda t: delta(content=t)),
    texts.map(lambda t: delta(reasoning_content=t)),
    st.tuples(st.integers(0, 2), texts).map(lambda x: call(x[0], x[1], id=f"c{x[0]}", name="f")),
    st.integers(0, 2).map(lambda i: call(i, "{}")),
    st.just(b": keep-alive\n\n"),
    st.just(b"event: message\ndata: {}\n\n"),
)


def ordered(events: list[Event]) -> bool:
    """The grammar of ``core.events``."""
    open_call: int | None = None
    begun = 0
    for at, found in enumerate(events):
        last = at == len(events) - 1
        if isinstance(found, Started) != (at == 0) and not isinstance(found, Failed):
            return False
        if isinstance(found, Finished | Failed) != last:
            return False
        if isinstance(found, ToolCallBegun):
            if open_call is not None or found.call != begun:
                return False
            open_call, begun = found.call, begun + 1
        elif isinstance(found, ToolCallArguments | ToolCallEnded):
            if found.call != open_call:
                return False
            if isinstance(found, ToolCallEnded):
                open_call = None
        elif isinstance(found, TextDelta | ReasoningDelta | Finished) and open_call is not None:
            return False
    return True


@given(st.lists(pieces, max_size=12), st.booleans(), st.lists(st.integers(0, 2000), max_size=8))
def test_any_sequence_of_chunks_gives_ordered_events_under_any_chunking(
    body: list[bytes], whole: bool, cuts: list[int]
) -> None:
    stream = b"".join(body) + (end() if whole else b"")
    once = read(stream)
    assert comparable(read(stream, *(cut % (len(stream) + 1) for cut in cuts))) == comparable(once)
    lines = stream.replace(b"\n", b"\r\n")
    assert comparable(read(lines, *range(len(lines)))) == comparable(once)
    assert ordered(once)


@given(st.lists(st.tuples(st.integers(0, 2), st.text('{}ab:," ', max_size=6)), max_size=10))
def test_no_byte_of_any_calls_arguments_is_lost_or_moved_to_another(
    fragments: list[tuple[int, str]],
) -> None:
    """Whatever the interleaving; white space behind complete JSON aside."""
    seen: set[int] = set()
    stream = b""
    expected: dict[str, str] = {}
    for index, text in fragments:
        named = {} if index in seen else {"id": f"c{index}", "name": "f"}
        seen.add(index)
        stream += call(index, text, **named)
        expected[f"c{index}"] = expected.get(f"c{index}", "") + text
    got: dict[str, str] = {}
    names: dict[int, str] = {}
    for found in read(stream + end("tool_calls")):
        if isinstance(found, ToolCallBegun):
            names[found.call] = found.id
            got[found.id] = ""
        elif isinstance(found, ToolCallArguments):
            got[names[found.call]] += found.fragment
    for name, text in expected.items():
        if not _has_complete_prefix(text):
            assert got[name] == text
    assert set(got) == set(expected)


def _has_complete_prefix(text: str) -> bool:
    for at in range(1, len(text)):
        if text[at - 1] == "}":
            try:
                msgspec.json.decode(text[:at].encode())
            except msgspec.DecodeError:
                continue
            return True
    return False
