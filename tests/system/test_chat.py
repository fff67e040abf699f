"""Chat Completions, Completions, Embeddings and Models, as OpenAI's schema has them.

Every body and chunk is live: through a real gateway and node from llama.cpp.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import openai
import pytest
from tests.neuron.system.conftest import SPARK
from tests.openai_schema import validate
from tests.system.rig import Stack, StartStack

ASK: Any = [{"role": "user", "content": "Repeat: house garden river"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather of a city",
        "strict": True,
        "parameters": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
SCHEMA: Any = {
    "type": "object",
    "properties": {"word": {"type": "string", "enum": ["house", "tree"]}},
    "required": ["word"],
    "additionalProperties": False,
}
WAYS: dict[str, dict[str, Any]] = {
    "nothing special": {},
    "a cap in its new name": {"max_completion_tokens": 2},
    "several choices": {"n": 2, "temperature": 1, "seed": 3},
    "log probabilities": {"logprobs": True, "top_logprobs": 3, "max_tokens": 3},
    "a schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "x", "strict": True, "schema": SCHEMA},
        }
    },
    "some JSON": {"response_format": {"type": "json_object"}, "max_tokens": 30},
    "text": {"response_format": {"type": "text"}},
    "effort": {"reasoning_effort": "low", "max_tokens": 200},
    "the template's switch": {
        "chat_template_kwargs": {"enable_thinking": True},
        "max_tokens": 200,
    },
    "a tool that must be called": {"tools": [WEATHER], "tool_choice": "required"},
    "a tool that may be called": {"tools": [WEATHER], "parallel_tool_calls": False},
    "no tool": {"tools": [WEATHER], "tool_choice": "none"},
    "a stop text": {"stop": ["garden"]},
    "penalties and the like": {
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "top_p": 0.9,
        "seed": 1,
        "logit_bias": {"5": 1},
        "user": "u",
        "store": False,
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "verbosity": "low",
        "prompt_cache_key": "k",
        "safety_identifier": "s",
    },
}


@pytest.fixture(scope="module")
def stack(make_stack: StartStack) -> Stack:
    """A model that chats and embeds."""
    return make_stack(node="[engines.llamacpp]\nembeddings = true\n")


def post(stack: Stack, path: str, /, **body: Any) -> httpx.Response:
    with stack.client() as client:
        answer = client.post(path, json={"model": SPARK, **body})
    assert answer.status_code == 200, answer.text
    return answer


def ask(stack: Stack, /, **more: Any) -> dict[str, Any]:
    body = {"messages": ASK, "temperature": 0, "max_tokens": 60, **more}
    found: dict[str, Any] = post(stack, "/v1/chat/completions", **body).json()
    return found


def chunks(stack: Stack, /, **more: Any) -> list[dict[str, Any]]:
    body = {"messages": ASK, "temperature": 0, "max_tokens": 60, "stream": True, **more}
    return events(post(stack, "/v1/chat/completions", **body).text)


def events(stream: str) -> list[dict[str, Any]]:
    assert stream.endswith("data: [DONE]\n\n")
    lines = [line for line in stream.split("\n\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_answer_is_valid_plain_and_streamed(stack: Stack, way: str) -> None:
    more = WAYS[way]
    plain = ask(stack, **more)
    validate("CreateChatCompletionResponse", plain)
    streamed = chunks(stack, **more, stream_options={"include_usage": True})
    for chunk in streamed:
        validate("CreateChatCompletionStreamResponse", chunk)
    for index in range(more.get("n", 1)):
        message = plain["choices"][index]["message"]
        mine = [c for chunk in streamed for c in chunk["choices"] if c["index"] == index]
        assert mine[-1]["finish_reason"] == plain["choices"][index]["finish_reason"]
        if "n" not in more:
            text = "".join(c["delta"].get("content", "") for c in mine)
            assert text == (message["content"] or "")
    assert streamed[-1]["usage"]["prompt_tokens"] == plain["usage"]["prompt_tokens"]


def test_usage_is_a_chunk_of_its_own_only_when_asked_for(stack: Stack) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        found = chunks(stack, max_tokens=2, **options)
        assert all(chunk["choices"] for chunk in found)
    asked = chunks(stack, max_tokens=2, stream_options={"include_usage": True})
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["completion_tokens"] == 2


def test_no_delta_is_empty_and_none_has_a_null(stack: Stack) -> None:
    for way in ("nothing special", "effort", "a tool that must be called"):
        for chunk in chunks(stack, **WAYS[way]):
            for choice in chunk["choices"]:
                assert all(value not in (None, "") for value in choice["delta"].values())


def test_choices_are_billed_together(stack: Stack) -> None:
    one, two = ask(stack, max_tokens=4), ask(stack, max_tokens=4, n=2)
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["usage"]["completion_tokens"] == 2 * one["usage"]["completion_tokens"]


def test_log_probabilities_belong_to_their_tokens(stack: Stack) -> None:
    found = ask(stack, **WAYS["log probabilities"])["choices"][0]
    tokens = found["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == found["message"]["content"]
    assert all(len(token["top_logprobs"]) == 3 for token in tokens)
    assert all(token["logprob"] <= 0 for token in tokens)


@pytest.mark.parametrize("tops", [{}, {"top_logprobs": 0}])
def test_log_probabilities_of_other_tokens_come_only_when_asked_for(
    stack: Stack, tops: dict[str, int]
) -> None:
    bare = ask(stack, logprobs=True, max_tokens=2, **tops)["choices"][0]["logprobs"]["content"]
    told = [
        token
        for chunk in chunks(stack, logprobs=True, max_tokens=2, **tops)
        for token in (chunk["choices"][0].get("logprobs") or {}).get("content", ())
    ]
    assert [token["top_logprobs"] for token in bare] == [[], []]
    assert [token["token"] for token in bare] == [token["token"] for token in told]
    assert not any(token["top_logprobs"] for token in told)


def test_legacy_log_probabilities_say_where_each_token_stands(stack: Stack) -> None:
    body = {"prompt": "one two three", "max_tokens": 3, "temperature": 0, "logprobs": 0}
    plain = post(stack, "/v1/completions", **body).json()["choices"][0]["logprobs"]
    assert plain["top_logprobs"] == [{}, {}, {}]
    streamed = events(post(stack, "/v1/completions", **body, stream=True).text)
    told = [found["choices"][0]["logprobs"] for found in streamed]
    offsets = [at for columns in told if columns for at in columns["text_offset"]]
    assert offsets == plain["text_offset"]
    assert offsets[-1] > 0


def test_a_schema_and_json_end_in_output_that_validates(stack: Stack) -> None:
    text = ask(stack, **WAYS["a schema"])["choices"][0]["message"]["content"]
    assert json.loads(text)["word"] in ("house", "tree")


def test_effort_and_the_templates_switch_both_turn_thinking_on(stack: Stack) -> None:
    for way, thinks in (
        ("effort", True),
        ("the template's switch", True),
        ("nothing special", False),
    ):
        found = ask(stack, **WAYS[way])
        assert bool(found["choices"][0]["message"].get("reasoning_content")) is thinks
        details = found["usage"]["completion_tokens_details"]
        assert bool(details["reasoning_tokens"]) is thinks
    for none in ("none", "minimal"):
        assert not ask(stack, reasoning_effort=none)["choices"][0]["message"].get(
            "reasoning_content"
        )


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_comes_inside_the_text_where_a_header_asks_for_it(
    stack: Stack, stream: bool
) -> None:
    body = {"model": SPARK, "messages": ASK, "temperature": 0, "max_tokens": 200, "stream": stream}
    with stack.client() as client:
        for path, told in (("/v1/chat/completions", True), ("/v1/messages", False)):
            answer = client.post(path, json=body, headers={"x-include-thinking": "true"})
            assert answer.status_code == 200, answer.text
            assert ("<think>" in answer.text) is told
            assert ("</think>" in answer.text) is told
            kind = "reasoning_content" if told else '"thinking"'
            assert kind in answer.text


def test_the_same_seed_gives_the_same_answer(stack: Stack) -> None:
    drawn = {
        ask(stack, temperature=1.5, seed=7, max_tokens=8)["choices"][0]["message"]["content"]
        for _ in range(2)
    }
    assert len(drawn) == 1


def test_assistant_turns_come_back_in_every_form_clients_send(stack: Stack) -> None:
    call = {"id": "call_a", "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}  # fmt: skip
    for content in (None, "", "I look it up."):
        turn = {"role": "assistant", "content": content, "tool_calls": [call],
                "reasoning_content": "hm", "refusal": None, "annotations": []}  # fmt: skip
        for result in ("sunny", [{"type": "text", "text": "sunny"}]):
            found = ask(
                stack,
                messages=[
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Weather in Paris?"}]},
                    turn,
                    {"role": "tool", "tool_call_id": "call_a", "content": result},
                ],
                tools=[WEATHER],
            )
            assert found["choices"][0]["finish_reason"] in ("stop", "tool_calls")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"logprobs": 2, "max_tokens": 3},
        {"n": 2},
        {"stop": "\n"},
        {"echo": False, "suffix": None},
    ],
)
def test_legacy_completions_are_valid_plain_and_streamed(stack: Stack, more: Any) -> None:
    body = {"prompt": "one two three", "max_tokens": 5, "temperature": 0, **more}
    plain = post(stack, "/v1/completions", **body).json()
    validate("CreateCompletionResponse", plain)
    assert len(plain["choices"]) == more.get("n", 1)
    found = events(post(stack, "/v1/completions", **body, stream=True).text)
    for chunk in found:
        if chunk["choices"][0]["finish_reason"] is not None:
            validate("CreateCompletionResponse", chunk)
    if "n" not in more:
        assert "".join(c["choices"][0]["text"] for c in found) == plain["choices"][0]["text"]


# ── embeddings ──────────────────────────────────────────────────────────────────────────────


def embed(stack: Stack, /, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = post(stack, "/v1/embeddings", **body).json()
    validate("CreateEmbeddingResponse", found) if body.get("encoding_format") != "base64" else None
    return found


def floats(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def test_embeddings_come_as_floats_or_as_little_endian_base64_as_asked(stack: Stack) -> None:
    plain = embed(stack, input="house garden")["data"][0]["embedding"]
    packed = embed(stack, input="house garden", encoding_format="base64")["data"][0]["embedding"]
    assert floats(packed) == pytest.approx(plain, abs=1e-6)
    with stack.sdk() as client:  # which asks for base64 and unpacks it
        unpacked = client.embeddings.create(model=SPARK, input="house garden").data[0].embedding
    assert unpacked == pytest.approx(plain, abs=1e-6)


def test_embeddings_of_texts_and_token_ids_in_batches(stack: Stack) -> None:
    one = embed(stack, input="house")["data"][0]["embedding"]
    both = embed(stack, input=["house", "river"])
    assert [item["index"] for item in both["data"]] == [0, 1]
    assert both["data"][0]["embedding"] == pytest.approx(one, abs=1e-3)
    ids = embed(stack, input=[5, 6, 7])
    assert len(ids["data"]) == 1
    assert ids["usage"]["prompt_tokens"] >= 3
    assert len(embed(stack, input=[[5, 6], [7]])["data"]) == 2


def test_embeddings_with_fewer_dimensions_are_shortened_and_still_of_length_one(
    stack: Stack,
) -> None:
    whole = embed(stack, input="house")["data"][0]["embedding"]
    short = embed(stack, input="house", dimensions=8)["data"][0]["embedding"]
    assert len(short) == 8
    assert sum(x * x for x in short) == pytest.approx(1, abs=1e-3)
    scale = short[0] / whole[0]
    assert short == pytest.approx([x * scale for x in whole[:8]], abs=1e-3)
    packed = embed(stack, input="house", dimensions=8, encoding_format="base64")
    assert floats(packed["data"][0]["embedding"]) == pytest.approx(short, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [1.5]}, "input[0]"),
        ({"input": ["a", 1]}, "input[1]"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 1_000_000}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ],
)
def test_a_wrong_embeddings_request_is_refused_with_its_path(
    stack: Stack, body: Any, param: str
) -> None:
    with stack.client() as client:
        answer = client.post("/v1/embeddings", json={"model": SPARK, **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param


def test_what_a_model_cannot_do_is_said_so(stack: Stack) -> None:
    with stack.sdk() as client, pytest.raises(openai.BadRequestError) as caught:
        client.post(
            "/rerank", body={"model": SPARK, "query": "a", "documents": ["b"]}, cast_to=object
        )
    assert caught.value.code == "unsupported_operation"


# ── models ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("prefix", ["/v1", ""])
def test_models_are_valid_in_a_list_and_alone(stack: Stack, prefix: str) -> None:
    listed = stack.get(f"{prefix}/models")
    validate("ListModelsResponse", listed)
    assert SPARK in [model["id"] for model in listed["data"]]
    for path in (SPARK, SPARK.replace("/", "%2F")):
        one = stack.get(f"{prefix}/models/{path}")
        validate("Model", one)
        assert one in listed["data"]
