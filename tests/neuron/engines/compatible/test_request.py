"""What an OpenAI-compatible engine is sent, and what is refused before it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from tests.pictures import part, png

from helexa.core.errors import (
    HelexaError,
    InvalidRequestBody,
    UnsupportedOperation,
    UnsupportedParameter,
    VisionUnsupported,
)
from helexa.neuron.engines.base import UNCOUNTED, Address, EngineRequest, Served
from helexa.neuron.engines.compatible.clean import Cleaning
from helexa.neuron.engines.compatible.counting import prompt_tokens
from helexa.neuron.engines.compatible.engine import new_key
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.stream import IMAGE_TOKENS, guess_tokens

HABITS = Habits(
    continuous=True,
    barred=frozenset(("priority",)),
    refused={"use_beam_search": "Sample instead."},
)
USER = {"messages": [{"role": "user", "content": "hi"}]}


def clean(
    served: Served, body: dict[str, Any], route: str = "chat", habits: Habits = HABITS, **more: Any
) -> EngineRequest:
    raw = json.dumps({"model": "m", **body}).encode()
    return Cleaning(habits, lambda _b, _s: None, lambda: 7).request(
        route, raw, served, "abc", **more
    )


def sent(served: Served, body: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(clean(served, body, **more).body)
    return found


def test_every_answer_is_streamed_and_counted(served: Served) -> None:
    asked = clean(served, {**USER, "max_completion_tokens": 32_000})
    body = json.loads(asked.body)
    assert asked.stream is False
    assert asked.path == "/v1/chat/completions"
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}
    assert body["max_tokens"] == 1000
    assert "max_completion_tokens" not in body
    assert body["model"] == "org/model"


def test_continuous_usage_is_asked_only_of_those_who_know_it(served: Served) -> None:
    assert sent(served, USER, habits=Habits())["stream_options"] == {"include_usage": True}


def test_token_ids_are_asked_only_of_those_who_know_them(served: Served) -> None:
    naming = sent(served, USER, habits=Habits(token_ids=True))
    assert naming["return_token_ids"] is True
    assert naming["stream_options"] == {"include_usage": True}
    assert "return_token_ids" not in sent(served, USER)


def test_images_are_counted_before_and_guessed_without_their_bytes(served: Served) -> None:
    facts = msgspec.structs.replace(served.facts, capabilities=("text", "vision"))
    seeing = msgspec.structs.replace(served, facts=facts)
    picture = part(png(56, 56) + bytes(100_000))
    asked = clean(seeing, {"messages": [{"role": "user", "content": [picture]}]})
    assert asked.most == UNCOUNTED
    assert IMAGE_TOKENS <= guess_tokens(asked.body) < 2 * IMAGE_TOKENS + 100
    assert clean(seeing, USER).most is None


@pytest.mark.anyio
async def test_many_inputs_are_guessed_whatever_the_engine_counts(served: Served) -> None:
    asked = clean(served, {"input": ["word " * 40] * 20}, route="embeddings")
    nobody = Address(port=1)  # where an engine would count
    habits = Habits(tokenize="/tokenize")
    assert await prompt_tokens(nobody, asked, served, habits) == guess_tokens(asked.body)


def test_what_steps_around_the_node_is_left_out(served: Served) -> None:
    body = sent(served, {**USER, "priority": -5, "top_k": 3, "their_own": 1})
    assert "priority" not in body
    assert (body["top_k"], body["their_own"]) == (3, 1)


def test_what_we_do_not_offer_is_refused_with_advice(served: Served) -> None:
    with pytest.raises(UnsupportedParameter, match="Sample instead"):
        clean(served, {**USER, "use_beam_search": True})
    assert "use_beam_search" not in sent(served, {**USER, "use_beam_search": False})


def test_the_thinking_switch_is_off_unless_somebody_asks(served: Served) -> None:
    served = msgspec.structs.replace(
        served, facts=msgspec.structs.replace(served.facts, thinking_variable="enable_thinking")
    )
    switch = "chat_template_kwargs"
    assert sent(served, USER)[switch] == {"enable_thinking": False}
    assert sent(served, USER, thinking=True)[switch] == {"enable_thinking": True}
    assert switch not in sent(served, USER, habits=Habits(kwargs=False))


def test_conversations_are_repaired_as_for_any_engine(served: Served) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    messages = [
        {"role": "developer", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    body = sent(served, {"messages": messages})
    assert body["messages"][0]["role"] == "system"
    assert body["messages"][1]["content"] == ""
    assert body["messages"][1]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


@pytest.mark.parametrize(
    ("body", "route", "kind"),
    [
        ({"messages": 5}, "chat", InvalidRequestBody),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "chat",
         VisionUnsupported),
        ({**USER, "functions": []}, "chat", UnsupportedParameter),
        ({"prompt": ["a", 1]}, "completions", InvalidRequestBody),
        ({"prompt": "a", "echo": True, "logprobs": 1}, "completions", UnsupportedParameter),
        ({"input": ""}, "embeddings", InvalidRequestBody),
        ({"query": "a", "documents": ["b"]}, "rerank", UnsupportedOperation),
        ({"input": "a"}, "speech", UnsupportedOperation),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_here(
    served: Served, body: dict[str, Any], route: str, kind: type[HelexaError]
) -> None:
    with pytest.raises(kind):
        clean(served, body, route)


def test_vectors_are_plain_answers_under_the_served_id(served: Served) -> None:
    asked = clean(served, {"input": ["a", "b"]}, "embeddings")
    assert (asked.events, asked.path) == (False, "/v1/embeddings")
    answer = {"model": "/m", "data": [{"embedding": [1.0]}], "usage": {"prompt_tokens": 4}}
    asked.cleaner.feed(json.dumps(answer).encode())
    assert json.loads(asked.cleaner.whole())["model"] == "org/model"
    assert asked.cleaner.meter.prompt == 4


def test_a_route_that_the_engine_does_not_have_is_refused(served: Served) -> None:
    with pytest.raises(UnsupportedOperation):
        clean(served, {"prompt": "a"}, "completions", Habits(paths={"chat": "/chat"}))


def test_a_key_never_looks_like_an_option() -> None:
    assert all(new_key().isalnum() for _ in range(200))
