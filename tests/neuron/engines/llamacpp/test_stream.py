"""llama.cpp's events made clean: counts, shapes, and any re-chunking gives the same."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.engines.driving import as_json, text_of
from tests.neuron.engines.specimens import GGUF, served_by

from helexa.core.errors import UpstreamConnectionError
from helexa.neuron.engines.base import Cleaner, Served
from helexa.neuron.engines.llamacpp.clean import engine_request


def event(delta: dict[str, Any] | None, n: int | None = None, **more: Any) -> bytes:
    """One chunk in llama.cpp's form."""
    choice = {"finish_reason": more.pop("finish", None), "index": more.pop("index", 0)}
    choice |= {"delta": delta or {}, **more.pop("choice", {})}
    chunk: dict[str, Any] = {"choices": [choice], "model": "/models/m.gguf", **more}
    if n is not None:
        chunk["timings"] = {"cache_n": 2, "prompt_n": 7, "predicted_n": n, "predicted_ms": 1.0}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def usage(completion: int, prompt: int = 9, cached: int = 2) -> bytes:
    counts = {"completion_tokens": completion, "prompt_tokens": prompt}
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    timings = {"prompt_ms": 3.5, "predicted_n": completion, "predicted_ms": 8.25}
    chunk = {"choices": [], "usage": {**counts, **details}, "timings": timings}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def progress(processed: int, total: int = 9, cached: int = 2) -> bytes:
    said = {"total": total, "cache": cached, "processed": processed, "time_ms": 4}
    return event({"role": "assistant", "content": None}, 0, prompt_progress=said)


DONE = b"data: [DONE]\n\n"
ROLE = event({"role": "assistant", "content": None})
STREAM = [
    b": ping\n\n",
    progress(2),
    progress(9),
    ROLE,
    event({"reasoning_content": "hm"}, 3),
    event({"content": "a"}, 4),
    event({"content": ""}, 5),
    event({"content": "é\n"}, 7),
    event({}, finish="stop"),
    usage(8),
    DONE,
]


@pytest.fixture
def cleaner(served: Served) -> Cleaner:
    return make(served)


def make(served: Served, stream: bool = True, route: str = "chat", **more: Any) -> Cleaner:
    content = {"prompt": "x"} if route == "completions" else {}
    messages = {"messages": [{"role": "user", "content": "hi"}], **content, **more}
    raw = json.dumps({"model": "m", "stream": stream, **messages}).encode()
    return engine_request(route, raw, served, "abc", created=7).cleaner


def test_a_stream_becomes_clean_chat(cleaner: Cleaner) -> None:
    clean = cleaner.feed(b"".join(STREAM))
    chunks = as_json(clean)
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert deltas == [
        {"role": "assistant"},
        {"reasoning_content": "hm"},
        {"content": "a"},
        {"content": "é\n"},
        {},
    ]
    assert chunks[0]["timings"] == {"prompt_n": 7, "cache_n": 2, "prompt_ms": 4.0}
    assert all("timings" not in chunk for chunk in chunks[1:-1])
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


@given(st.lists(st.integers(1, len(STREAM)), max_size=6))
def test_any_grouping_of_events_gives_the_same_bytes_and_counts(cuts: list[int]) -> None:
    served = served_by(GGUF)
    whole, parts = make(served), make(served)
    expected = whole.feed(b"".join(STREAM))
    edges = [0, *sorted(set(cuts)), len(STREAM)]
    found = b"".join(
        parts.feed(b"".join(STREAM[start:end])) for start, end in itertools.pairwise(edges)
    )
    assert found == expected
    assert parts.meter == whole.meter


def test_progress_is_metered_and_not_forwarded(cleaner: Cleaner) -> None:
    assert cleaner.feed(progress(4)) == b""
    meter = cleaner.meter
    assert (meter.prompt, meter.prompt_processed, meter.cached) == (9, 4, 2)
    assert meter.prompt_known
    assert meter.output == 0


def test_tokens_whose_text_is_held_back_are_counted_when_it_comes(cleaner: Cleaner) -> None:
    cleaner.feed(ROLE + event({"role": "assistant", "content": None}, 1))
    assert cleaner.meter.output == 1
    cleaner.feed(event({"reasoning_content": "a"}, 4))
    assert (cleaner.meter.output, cleaner.meter.reasoning) == (4, 4)
    cleaner.feed(event({"content": "b"}, 6))
    assert (cleaner.meter.output, cleaner.meter.reasoning) == (6, 4)


def test_choices_are_counted_apart_and_summed(served: Served) -> None:
    cleaner = make(served, n=2)
    cleaner.feed(ROLE + event({"content": "a"}, 1) + event({"content": "x"}, 1, index=1))
    cleaner.feed(event({"content": "b"}, 2) + event({}, finish="length", index=1) + usage(3))
    assert cleaner.meter.output == 2 + 3
    clean = cleaner.feed(event({}, finish="stop") + usage(4) + DONE)
    assert cleaner.meter.output == 4 + 3
    assert as_json(clean)[-1]["usage"]["completion_tokens"] == 7
    assert cleaner.meter.prompt == 9


def test_tool_calls_are_spliced_and_always_end_as_such(cleaner: Cleaner) -> None:
    head = {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}}
    tail = {"index": 0, "function": {"arguments": "{}"}}
    clean = cleaner.feed(
        ROLE
        + event({"tool_calls": [head]}, 3)
        + event({"tool_calls": [tail]}, 4)
        + event({}, finish="stop")
        + usage(5)
        + DONE
    )
    chunks = as_json(clean)
    assert chunks[1]["choices"][0]["delta"] == {"tool_calls": [head]}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert cleaner.finish_reason == "tool_calls"


def test_log_probabilities_are_kept_with_the_member_the_schema_wants(cleaner: Cleaner) -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
    clean = cleaner.feed(event({"content": "a"}, 1, choice={"logprobs": {"content": [token]}}))
    assert as_json(clean)[-1]["choices"][0]["logprobs"] == {"content": [token], "refusal": None}


def test_deltas_in_forms_never_met_before_lose_only_their_nulls(cleaner: Cleaner) -> None:
    strange = {"content": "a", "tool_calls": None, "refusal": None}
    spaced = b'data: {"choices": [{"index": 0, "delta": {"reasoning_content": "b"}}]}\n\n'
    chunks = as_json(cleaner.feed(event({"refusal": None, **strange}, 1) + spaced))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant"}, {"content": "a"}, {"reasoning_content": "b"}]


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {not json\n\n",
        b"data: \xff\xfe\n\n",
        b'data: {"choices": 5}\n\n',
        b"<html>\n\n",
        b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}]}\n\n',
        b"data: [DONE]\n\n",
        b'data: {"choices":[{"index":0,"delta":5}]}\n\n',
    ],
)
def test_garbage_is_a_failure_not_an_exception(cleaner: Cleaner, garbage: bytes) -> None:
    cleaner.feed(ROLE + event({"content": "a"}, 1))
    cleaner.feed(garbage)
    assert isinstance(cleaner.failed, UpstreamConnectionError)
    assert cleaner.done
    assert cleaner.feed(event({"content": "b"}, 2)) == b""
    assert cleaner.meter.output == 1


def test_an_error_event_midway_is_a_failure_without_a_terminator(cleaner: Cleaner) -> None:
    error = b'data: {"error":{"code":500,"message":"/x/y.gguf broke","type":"server_error"}}\n\n'
    out = cleaner.feed(event({"content": "a"}, 1) + error + DONE)
    assert b"[DONE]" not in out
    assert cleaner.failed is not None
    assert "/x/y" not in cleaner.failed.message


def test_closing_before_anything_came_is_still_a_whole_answer(cleaner: Cleaner) -> None:
    chunks = as_json(cleaner.close("length", "drain"))
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}
    assert chunks[1]["choices"][0]["finish_reason"] == "length"
    assert chunks[1]["helexa"] == {"finish": "drain"}
    assert cleaner.close("length", "drain") == b""


def test_a_plain_answer_says_why_it_was_cut(served: Served) -> None:
    cleaner = make(served, stream=False)
    cleaner.feed(ROLE + event({"content": "a"}, 1) + event({"content": "b"}, 2))
    cleaner.close("length", "kv_exhausted")
    answer = json.loads(cleaner.whole())
    assert answer["helexa"] == {"finish": "kv_exhausted"}
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "ab"
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["created"] == 7


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (0, 1, 2)])
def test_choices_begin_in_their_order_whichever_the_engine_begins_with(
    served: Served, order: tuple[int, ...]
) -> None:
    """OpenAI's SDK numbers them as they appear, and breaks over another one first."""
    clean = make(served, n=3).feed(b"".join([event({"content": "a"}, 1, index=i) for i in order]))
    told = [choice for chunk in as_json(clean) for choice in chunk["choices"]]
    begun = [choice["index"] for choice in told if "role" in choice["delta"]]
    assert begun == [0, 1, 2]
    assert [c["index"] for c in told if "content" in c["delta"]] == list(order)


@pytest.mark.parametrize("stream", [False, True])
def test_only_the_first_call_leaves_where_calls_may_not_be_parallel(
    served: Served, stream: bool
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    cleaner = make(served, stream, tools=[tool], parallel_tool_calls=False)
    clean = cleaner.feed(ROLE)
    for index, arguments in enumerate(('{"a":1}', '{"a":2}')):
        head = {"id": f"c{index}", "type": "function", "function": {"name": "add"}}
        rest = {"function": {"arguments": arguments}}
        for piece in (head, rest):
            clean += cleaner.feed(event({"tool_calls": [{"index": index, **piece}]}, 3))
    clean += cleaner.feed(event({}, finish="stop") + usage(9) + DONE)
    assert b'\\"a\\":1' in clean
    assert b'"index":1' not in clean
    assert cleaner.finish_reason == "tool_calls"
    [choice] = json.loads(cleaner.whole())["choices"]
    if not stream:
        [call] = choice["message"]["tool_calls"]
        assert call["function"]["arguments"] == '{"a":1}'


@pytest.mark.parametrize(
    ("given", "told"),
    [({"response_format": {"type": "json_object"}}, '{"name": "ad'),
     ({"tool_choice": "required"}, "")],
    ids=["text or a call", "a call"],
)  # fmt: skip
@pytest.mark.parametrize("cut", ["by us", "by its cap"])
def test_what_was_held_for_a_call_is_told_at_a_cut_only_where_it_may_be_text(
    served: Served, given: dict[str, Any], told: str, cut: str
) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    cleaner = make(served, stream=False, tools=[tool], **given)
    cleaner.feed(ROLE + event({"content": '{"name": "ad'}, 4))
    if cut == "by us":
        cleaner.close("length", "budget")
    else:
        cleaner.feed(event({}, finish="length") + usage(4) + DONE)
    [choice] = json.loads(cleaner.whole())["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (told, "length")
    assert "tool_calls" not in choice["message"]


def test_a_plain_answer_is_what_the_stream_says(served: Served) -> None:
    plain, streamed = make(served, stream=False), make(served)
    plain.feed(b"".join(STREAM))
    chunks = as_json(streamed.feed(b"".join(STREAM)))
    message = json.loads(plain.whole())["choices"][0]["message"]
    assert message["content"] == text_of(chunks)
    assert message["reasoning_content"] == text_of(chunks, "reasoning_content")


def test_legacy_text_has_its_columns_and_counts(served: Served) -> None:
    cleaner = make(served, stream=False, route="completions")
    token = {"token": "a", "logprob": -0.5, "top_logprobs": [{"token": "b", "logprob": -1.0}]}
    chunk = {
        "choices": [{"text": "a", "index": 0, "logprobs": {"content": [token]}}],
        "timings": {"predicted_n": 1},
    }
    last = {
        "choices": [{"text": "", "index": 0, "finish_reason": "length"}],
        "usage": {"completion_tokens": 1, "prompt_tokens": 3},
        "timings": {"predicted_n": 1},
    }
    raw = [b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in (chunk, last)]
    cleaner.feed(b"".join(raw) + DONE)
    answer = json.loads(cleaner.whole())
    assert answer["choices"][0]["text"] == "a"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["a"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"b": -1.0}],
        "text_offset": [0],
    }
    assert answer["usage"]["total_tokens"] == 4
