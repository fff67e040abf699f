"""Streams of OpenAI-compatible engines made clean: counts, one shape, any grouping the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.engines.driving import as_json, text_of
from tests.neuron.engines.specimens import SMALL, served_by

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    InvalidRequestBody,
    UpstreamConnectionError,
)
from helexa.neuron.engines.base import Cleaner, Served
from helexa.neuron.engines.compatible.clean import Cleaning
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import CallId, Delta
from helexa.neuron.engines.compatible.stream import StreamCleaner

TELLING = Habits(continuous=True)
SILENT = Habits()
DONE = b"data: [DONE]\n\n"


def counts(prompt: int, output: int, thought: int | None = 0, **more: Any) -> dict[str, Any]:
    found = {"prompt_tokens": prompt, "total_tokens": prompt + output, "completion_tokens": output}
    details = {"completion_tokens_details": {"reasoning_tokens": thought}}
    return {**found, **({} if thought is None else details), **more}


def event(delta: dict[str, Any] | None, usage: dict[str, Any] | None = None, **more: Any) -> bytes:
    """One chunk in vLLM's form; ``more`` are members of its choice."""
    finish = more.pop("finish", None)
    choice = {"index": 0, "delta": delta or {}, "logprobs": None, "finish_reason": finish, **more}
    chunk: dict[str, Any] = {"id": "chatcmpl-x", "choices": [choice], "model": "/models/m"}
    if usage is not None:
        chunk["usage"] = usage
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def last(usage: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [], "usage": usage, **more}).encode() + b"\n\n"


CACHED = {"prompt_tokens_details": {"cached_tokens": 2, "created_cache_tokens": 0}}
METRICS = {"metrics": {"time_to_first_token_ms": 3.5, "generation_time_ms": 8.25}}
ROLE = event({"role": "assistant", "content": ""}, counts(9, 0))
STREAM = [
    b": keep-alive\n\n",
    ROLE,
    event({"reasoning": "hm"}, counts(9, 3, 3)),
    event({}, counts(9, 4, 3)),
    event({"content": "a"}, counts(9, 5, 3)),
    event({"content": "é\n"}, counts(9, 7, 3), finish="stop", stop_reason="END"),
    last(counts(9, 8, 3, **CACHED), **METRICS),
    DONE,
]


def cleaning(habits: Habits = TELLING, shape: Any = lambda _body, _served: None) -> Cleaning:
    return Cleaning(habits, shape, lambda: 7)


def make(
    served: Served, habits: Habits = TELLING, *, route: str = "chat", shape: Any = None, **more: Any
) -> Cleaner:
    content = {"prompt": "x"} if route == "completions" else {}
    messages = {"messages": [{"role": "user", "content": "hi"}], **content}
    raw = json.dumps({"model": "m", "stream": True, **messages, **more}).encode()
    found = cleaning(habits, shape or (lambda _body, _served: None))
    return found.request(route, raw, served, "abc").cleaner


def deltas(clean: bytes) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in as_json(clean) for choice in chunk["choices"]]


def test_a_stream_becomes_clean_chat(served: Served) -> None:
    cleaner = make(served)
    clean = cleaner.feed(b"".join(STREAM))
    chunks = as_json(clean)
    assert deltas(clean) == [
        {"role": "assistant"},
        {"reasoning_content": "hm"},
        {"content": "a"},
        {"content": "é\n"},
        {},
    ]
    assert {chunk["model"] for chunk in chunks} == {"org/model"}
    assert chunks[0]["timings"]["prompt_n"] == 9
    assert chunks[-2]["choices"][0]["stop_reason"] == "END"
    assert chunks[-1]["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 8,
        "total_tokens": 17,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    assert chunks[-1]["timings"] == {
        "prompt_n": 7,
        "cache_n": 2,
        "prompt_ms": 3.5,
        "predicted_n": 8,
        "predicted_ms": 8.25,
    }
    assert (cleaner.done, cleaner.finish_reason, cleaner.failed) == (True, "stop", None)


@given(st.lists(st.integers(1, len(STREAM)), max_size=6), st.booleans())
def test_any_grouping_of_events_gives_the_same_bytes_and_counts(
    cuts: list[int], telling: bool
) -> None:
    habits = TELLING if telling else SILENT
    whole, parts = make(served_by(SMALL), habits), make(served_by(SMALL), habits)
    expected = whole.feed(b"".join(STREAM))
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    found = b"".join(
        parts.feed(b"".join(STREAM[start:end])) for start, end in itertools.pairwise(edges)
    )
    assert found == expected
    assert parts.meter.usage() == whole.meter.usage()


def test_continuous_usage_is_the_meter_after_every_event(served: Served) -> None:
    cleaner = make(served)
    seen = []
    for one in STREAM:
        cleaner.feed(one)
        seen.append((cleaner.meter.prompt, cleaner.meter.output, cleaner.meter.reasoning))
    assert seen[:7] == [(0, 0, 0), (9, 0, 0), (9, 3, 3), (9, 4, 3), (9, 5, 3), (9, 7, 3), (9, 8, 3)]
    assert cleaner.meter.cached == 2


def test_without_it_a_delta_is_a_token_until_the_usage_corrects_that(served: Served) -> None:
    cleaner = make(served, SILENT)
    for text in ("a", "b", "", "c"):
        cleaner.feed(event({"content": text}))
    assert (cleaner.meter.output, cleaner.meter.prompt_known) == (3, True)
    assert cleaner.meter.prompt > 0
    cleaner.feed(event({}, finish="length") + last(counts(11, 6, None)) + DONE)
    assert (cleaner.meter.prompt, cleaner.meter.output) == (11, 6)
    assert cleaner.finish_reason == "length"


def test_usage_in_the_finish_chunk_is_the_last_word_of_an_engine_that_says_it_once(
    served: Served,
) -> None:
    cleaner = make(served, SILENT)
    cleaner.feed(event({"content": "a"}) + event({}, counts(5, 4, None), finish="stop") + DONE)
    assert (cleaner.meter.prompt, cleaner.meter.output, cleaner.done) == (5, 4, True)


def test_choices_are_counted_apart_and_summed(served: Served) -> None:
    cleaner = make(served, n=2)
    cleaner.feed(event({"content": "a"}, counts(5, 2)))
    cleaner.feed(event({"content": "b"}, counts(5, 3), index=1))
    cleaner.feed(event({"content": "c"}, counts(5, 4), finish="stop"))
    assert cleaner.meter.output == 7
    closing = cleaner.close("length", "budget")
    ends = [c for chunk in as_json(closing) for c in chunk["choices"]]
    assert [(c["index"], c["finish_reason"]) for c in ends] == [(1, "length")]
    assert as_json(closing)[-1]["usage"]["completion_tokens"] == 7


def test_reasoning_has_one_name_whatever_the_engine_calls_it(served: Served) -> None:
    for name in ("reasoning", "reasoning_content"):
        clean = make(served).feed(event({name: "hm", "content": None}, counts(1, 1, 1)))
        assert text_of(as_json(clean), "reasoning_content") == "hm"


def test_reasoning_is_counted_here_where_the_engine_does_not(served: Served) -> None:
    cleaner = make(served, SILENT)
    cleaner.feed(event({"reasoning_content": "a"}) + event({"reasoning_content": "b"}))
    cleaner.feed(event({"content": "c"}))
    assert (cleaner.meter.output, cleaner.meter.reasoning) == (3, 2)


def fragment(index: int | None, **more: Any) -> dict[str, Any]:
    call = {} if index is None else {"index": index}
    return {"content": None, "tool_calls": [{**call, **more}]}


@pytest.mark.parametrize(
    "fragments",
    [
        [
            fragment(0, id="c1", type="function", function={"name": "f"}),
            fragment(0, function={"arguments": '{"a"'}),
            fragment(0, function={"arguments": ": 1}"}),
        ],
        [fragment(None, id="c1", function={"name": "f", "arguments": '{"a": 1}'})],
        [
            fragment(0, id="c1", type="function", function={"name": "f", "arguments": '{"a"'}),
            fragment(0, id="c1", type="function", function={"name": "f", "arguments": ": 1}"}),
        ],
        [fragment(0, id="c1", type="function", function={"name": "f", "arguments": {"a": 1}})],
    ],
    ids=["in pieces", "whole, without index", "head repeated", "as an object"],
)
def test_tool_calls_have_one_shape(served: Served, fragments: list[dict[str, Any]]) -> None:
    cleaner = make(served, stream=False)
    clean = b"".join(cleaner.feed(event(delta, counts(3, 5))) for delta in fragments)
    clean += cleaner.feed(event({}, counts(3, 6), finish="stop") + last(counts(3, 6)) + DONE)
    calls = [call for delta in deltas(clean) for call in delta.get("tool_calls", ())]
    assert {"id": "c1", "type": "function"}.items() <= calls[0].items()
    assert all("id" not in call and "name" not in call["function"] for call in calls[1:])
    choice = json.loads(cleaner.whole())["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    call = choice["message"]["tool_calls"][0]
    assert call["function"]["name"] == "f"
    assert json.loads(call["function"]["arguments"]) == {"a": 1}


def test_calls_without_ids_are_named(served: Served) -> None:
    clean = make(served).feed(event(fragment(0, function={"name": "f"}), counts(1, 1)))
    assert deltas(clean)[-1]["tool_calls"][0]["id"] == "call_abcaa"


class Shouts:
    """A reader that knows one marker: what follows ``!`` is a thought."""

    def __init__(self, name: CallId) -> None:
        self.name = name
        self.held = ""

    def feed(self, text: str) -> list[Delta]:
        if text.endswith("?"):
            self.held += text
            return []
        whole, self.held = self.held + text, ""
        kind = "reasoning_content" if whole.startswith("!") else "content"
        return [{kind: whole}]

    def thought(self, text: str) -> list[Delta]:
        return [{"reasoning_content": text.strip()}] if text.strip() else []

    def end(self) -> list[Delta]:
        function = {"name": "f", "arguments": self.held}
        return [{"tool_calls": [{"index": 0, "id": self.name(0), "function": function}]}]


def test_a_reader_makes_thoughts_and_calls_of_text(served: Served) -> None:
    cleaner = make(served, SILENT, shape=lambda _body, _served: Shouts)
    clean = b"".join(
        cleaner.feed(event({"content": text})) for text in ("!?", "!hm", "well", "{}?")
    )
    clean += cleaner.feed(event({}, finish="stop") + DONE)
    assert text_of(as_json(clean), "reasoning_content") == "!?!hm"
    assert text_of(as_json(clean)) == "well"
    assert deltas(clean)[-2]["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}?"}
    assert cleaner.finish_reason == "tool_calls"
    assert (cleaner.meter.output, cleaner.meter.reasoning) == (4, 2)


def test_what_a_reader_holds_is_told_when_we_cut_the_answer(served: Served) -> None:
    cleaner = make(served, SILENT, shape=lambda _body, _served: Shouts)
    cleaner.feed(event({"content": "{}?"}))
    closing = as_json(cleaner.close("length", "budget"))
    assert closing[0]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == "{}?"
    assert closing[1]["choices"][0]["finish_reason"] == "length"


def test_a_reader_also_gets_what_the_engine_calls_reasoning(served: Served) -> None:
    cleaner = make(served, SILENT, shape=lambda _body, _served: Shouts)
    clean = cleaner.feed(event({"reasoning_content": "\n"}) + event({"content": "well"}))
    assert deltas(clean) == [{"role": "assistant"}, {"content": "well"}]
    assert cleaner.meter.reasoning == 0


def test_a_stream_without_terminator_ends_with_its_usage(served: Served) -> None:
    plain = cleaning(Habits(done=False))
    raw = b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream":true}'
    ends = event({}, counts(9, 4), finish="stop"), event({}, finish="stop") + last(counts(9, 4))
    for end in ends:
        cleaner = plain.request("chat", raw, served, "abc").cleaner
        clean = cleaner.feed(event({"content": "a"})) + cleaner.feed(end)
        assert cleaner.done
        assert clean.endswith(DONE)
        assert as_json(clean)[-1]["usage"]["completion_tokens"] == 4


def stopping(served: Served, route: str, *stops: str) -> Cleaner:
    body: dict[str, Any] = {"model": "m", "stream": True, "stop": list(stops)}
    chat = {"messages": [{"role": "user", "content": "a"}]}
    body |= chat if route == "chat" else {"prompt": "a"}
    plain = cleaning(Habits(stops=False, done=False))
    return plain.request(route, json.dumps(body).encode(), served, "abc").cleaner


def test_a_stop_string_that_the_engine_leaves_in_the_text_is_taken_out(served: Served) -> None:
    cleaner = stopping(served, "chat", "tree")
    clean = b"".join(cleaner.feed(event({"content": text})) for text in ("house t", "ree"))
    clean += cleaner.feed(event({}, counts(9, 4), finish="stop"))
    chunks = as_json(clean)
    assert text_of(chunks) == "house "
    assert chunks[-2]["choices"][0]["stop_reason"] == "tree"
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    text = stopping(served, "completions", "b")
    said = text.feed(event(None, text="ab") + event(None, text="", finish="length"))
    assert [c["choices"][0]["text"] for c in as_json(said)] == ["a", ""]
    assert text.finish_reason is None  # its usage is still to come


def test_an_engine_that_writes_on_behind_a_stop_string_is_not_waited_for(served: Served) -> None:
    cleaner = stopping(served, "chat", "tree")
    clean = b"".join(cleaner.feed(event({"content": text})) for text in ("a tr", "ee b", " c", "d"))
    chunks = as_json(clean)
    assert text_of(chunks) == "a "
    assert (cleaner.done, cleaner.finish_reason) == (True, "stop")
    assert chunks[-1]["usage"]["estimated"] is True


def test_what_may_begin_a_stop_string_is_told_at_the_end(served: Served) -> None:
    cleaner = stopping(served, "chat", "tree", "")
    clean = cleaner.feed(event({"content": "a tr"}) + event({}, counts(9, 2), finish="stop"))
    assert text_of(as_json(clean)) == "a tr"
    assert "stop_reason" not in as_json(clean)[-2]["choices"][0]


def test_counts_that_the_engine_never_gave_are_called_estimated(served: Served) -> None:
    cleaner = make(served, SILENT)
    clean = cleaner.feed(event({"content": "a"}) + event({}, finish="stop") + DONE)
    found = as_json(clean)[-1]["usage"]
    assert (found["estimated"], found["completion_tokens"]) == (True, 1)
    assert found["prompt_tokens"] > 0
    exact = make(served, SILENT)
    exact.feed(event({"content": "a"}) + event({}, finish="stop") + last(counts(9, 1)))
    assert "estimated" not in as_json(exact.feed(DONE))[-1]["usage"]


def test_log_probabilities_have_the_members_of_the_schema(served: Served) -> None:
    told = {"content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]}
    cleaner = make(served, stream=False)
    clean = cleaner.feed(event({"content": "a"}, counts(1, 1), logprobs=told))
    assert as_json(clean)[-1]["choices"][0]["logprobs"] == {"refusal": None, **told}
    assert json.loads(cleaner.whole())["choices"][0]["logprobs"] == {"refusal": None, **told}


def test_text_completions_keep_their_columns(served: Served) -> None:
    cleaner = make(served, route="completions", stream=False)
    for at, text in enumerate(("a", "b")):
        told = {
            "tokens": [text], "token_logprobs": [-1.0], "top_logprobs": [{}], "text_offset": [at],
        }  # fmt: skip
        choice = {"index": 0, "text": text, "logprobs": told}
        choice["finish_reason"] = "length" if text == "b" else None
        chunk = {"choices": [choice], "usage": counts(4, at + 1, None)}
        cleaner.feed(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    cleaner.feed(last(counts(4, 2, None)) + DONE)
    answer = json.loads(cleaner.whole())
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "ab"
    assert answer["choices"][0]["logprobs"]["text_offset"] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {nonsense\n\n",
        b"nonsense\n\n",
        b'data: {"choices": 5}\n\n',
        event({"content": "a"}) + DONE,
        event({}, finish="abort"),
        (
            b'data: {"choices": [{"index": 0, "delta": {"content": "a"},'
            b' "logprobs": {"content": [], "\x80": 1}}]}\n\n'
        ),
        event({"content": "a"}, logprobs=[-0.5]),
        event({"content": "a"}, logprobs={"content": "a"}),
        event({"tool_calls": [{"index": 0, "function": "f"}]}),
        event({"tool_calls": [{"index": 0, "function": {"name": 5}}]}),
        event({"content": "a"}, index=-1),
        last(counts(-5, 3)),
        last(counts(5, 2**70)),
    ],
    ids=[
        "no JSON", "no event", "no chunk", "no end", "given up", "no text",
        "odd log probabilities", "no list of them", "odd call", "odd name",
        "odd index", "less than nothing", "more than there is",
    ],
)  # fmt: skip
def test_what_is_no_answer_fails_and_does_not_raise(served: Served, garbage: bytes) -> None:
    cleaner = make(served)
    clean = cleaner.feed(ROLE + garbage)
    assert isinstance(cleaner.failed, UpstreamConnectionError)
    assert b"[DONE]" not in clean


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"message": "boom", "type": "InternalServerError", "code": 500}, UpstreamConnectionError),
        ({"message": "top_p must be in (0, 1]", "code": 400}, InvalidRequestBody),
        (
            {"message": "maximum context length is 4096 tokens. However, your prompt contains at "
             "least 5000 input tokens", "code": 400}, ContextLengthExceeded,
        ),
        ("it fell over", UpstreamConnectionError),
    ],
)  # fmt: skip
def test_an_error_in_the_stream_is_one_of_ours(
    served: Served, said: Any, kind: type[HelexaError]
) -> None:
    cleaner = make(served)
    head = b"event: error\n" if isinstance(said, str) else b""
    cleaner.feed(ROLE + head + b"data: " + json.dumps({"error": said}).encode() + b"\n\n" + DONE)
    assert isinstance(cleaner.failed, kind)
    assert cleaner.done


def test_a_closed_answer_takes_nothing_more(served: Served) -> None:
    cleaner = make(served)
    assert isinstance(cleaner, StreamCleaner)
    cleaner.feed(b"".join(STREAM[:5]))
    assert cleaner.close("length", "budget").endswith(DONE)
    assert cleaner.feed(STREAM[5]) == cleaner.close("stop", None) == b""
    assert msgspec.json.decode(cleaner.whole())["helexa"] == {"finish": "budget"}
