"""How streams of OpenAI-compatible engines end: stop texts, missing ends, garbage, errors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.compatible.test_stream import (
    DONE,
    ROLE,
    SILENT,
    STREAM,
    cleaning,
    counts,
    event,
    last,
    make,
)
from tests.neuron.engines.driving import as_json, text_of

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    InvalidRequestBody,
    UpstreamConnectionError,
)
from helexa.neuron.engines.base import Cleaner, Served
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.stream import StreamCleaner


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
