"""Streams of OpenAI-compatible engines made clean: counts, one shape, any grouping the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.engines.driving import as_json, text_of
from tests.neuron.engines.specimens import SMALL, served_by

from helexa.neuron.engines.base import Cleaner, Served
from helexa.neuron.engines.compatible.clean import Cleaning
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import CallId, Delta

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


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 1, 2)])
def test_choices_begin_in_their_order_whichever_the_engine_begins_with(
    served: Served, order: tuple[int, ...]
) -> None:
    """OpenAI's SDK numbers them as they appear, and breaks over another one first."""
    clean = make(served, n=3).feed(
        b"".join([event({"content": "a"}, counts(1, 1), index=i) for i in order])
    )
    told = [choice for chunk in as_json(clean) for choice in chunk["choices"]]
    begun = [choice["index"] for choice in told if "role" in choice["delta"]]
    assert begun == [0, 1, 2]
    assert [c["index"] for c in told if "content" in c["delta"]] == list(order)


def test_only_the_first_call_leaves_where_calls_may_not_be_parallel(served: Served) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    cleaner = make(served, stream=False, tools=[tool], parallel_tool_calls=False)
    for index in (0, 1):
        function = {"name": "f", "arguments": f"{index}"}
        delta = fragment(index, id=f"c{index}", type="function", function=function)
        cleaner.feed(event(delta, counts(3, 5)))
    cleaner.feed(event({}, counts(3, 6), finish="stop") + last(counts(3, 6)) + DONE)
    [choice] = json.loads(cleaner.whole())["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (call["id"], choice["finish_reason"]) == ("c0", "tool_calls")


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
