"""OpenAI's own SDK speaking Responses to a real gateway, node and engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel, Field
from tests.neuron.system.conftest import SPARK
from tests.system.rig import SECRET, Stack
from tests.wire.responses.reading import check_order, said, sse, validate, validate_body

ASK = "Repeat: house garden river"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather of a city",
    "strict": True,
    "parameters": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["paris"]},
            "days": {"type": "integer", "minimum": -9007199254740991, "exclusiveMaximum": 9},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501


class Fruit(BaseModel):
    """What is asked for."""

    colour: Literal["red", "green"]
    ripe: bool
    grams: float = Field(ge=0, le=500)


@contextmanager
def sdk(stack: Stack, at: str = "gateway", retries: int = 0) -> Iterator[openai.OpenAI]:
    """The official client, strict about what it reads."""
    url = stack.url if at == "gateway" else stack.node.url
    key = "sk-open" if at == "gateway" else SECRET
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, max_retries=retries, _strict_response_validation=True
    ) as client:
        yield client


def options(**more: Any) -> Any:
    return {"model": SPARK, "input": ASK, "temperature": 0, "max_output_tokens": 60, **more}


def raw(stack: Stack, body: Any = None, **more: Any) -> httpx.Response:
    with stack.client() as client:
        return client.post("/v1/responses", json=options(**more) if body is None else body)


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_text_comes_plain_and_streamed_with_the_same_words_and_counts(
    stack: Stack, at: str
) -> None:
    with sdk(stack, at) as client:
        plain = client.responses.create(**options())
        with client.responses.stream(**options()) as stream:
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            final = stream.get_final_response()
    assert "house" in plain.output_text
    assert text == plain.output_text == final.output_text
    assert (plain.model, plain.status, final.status) == (SPARK, "completed", "completed")
    assert plain.usage is not None
    assert final.usage is not None
    assert plain.usage.output_tokens == final.usage.output_tokens
    assert plain.usage.input_tokens == final.usage.input_tokens
    assert plain.id.removeprefix("resp_").isalpha()


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_counting_says_what_the_answer_then_costs(stack: Stack, at: str) -> None:
    asked: Any = {"model": SPARK, "input": "Repeat: house", "instructions": "Be brief."}
    with sdk(stack, at) as client:
        counted = client.responses.input_tokens.count(**asked)
        usage = client.responses.create(**asked).usage
        said = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Repeat: house"},
        ]
        body = {"model": SPARK, "messages": said}
        chat: Any = client.post("/chat/completions/input_tokens", body=body, cast_to=object)
        with pytest.raises(openai.NotFoundError):
            client.responses.input_tokens.count(model="no/such", input="x")
    assert usage is not None
    assert counted.object == "response.input_tokens"
    assert counted.input_tokens == chat["input_tokens"] == usage.input_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_every_live_body_and_event_validates(stack: Stack, stream: bool) -> None:
    more = {"tools": [WEATHER], "tool_choice": "required", "reasoning": {"effort": "low"}}
    for members in ({}, more):
        got = raw(stack, stream=stream, **members)
        if stream:
            payloads = sse(got.content)
            check_order(payloads)
            validate(payloads)
        else:
            validate_body(got.content)


def test_a_tools_round_trip_ends_in_an_answer(stack: Stack) -> None:
    question = {"role": "user", "content": "What is the weather in Paris?"}
    with sdk(stack) as client:
        first = client.responses.create(
            **options(input=[question], tools=[WEATHER], tool_choice="required")
        )
        [call] = [item for item in first.output if item.type == "function_call"]
        assert json.loads(call.arguments)["city"] == "paris"
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
        replayed = client.responses.create(
            **options(input=[question, *(i.to_dict() for i in first.output), result],
                      tools=[WEATHER])
        )  # fmt: skip
        continued = client.responses.create(
            **options(input=[result], tools=[WEATHER], previous_response_id=first.id)
        )
    assert replayed.status == continued.status == "completed"
    assert replayed.usage is not None
    assert continued.usage is not None
    assert replayed.usage.input_tokens == continued.usage.input_tokens


def test_a_custom_tool_makes_its_round_trip_and_its_items_are_listed(stack: Stack) -> None:
    tool: Any = {"type": "custom", "name": "apply_patch", "description": "Applies a patch"}
    asked = options(tools=[tool], input="Call apply_patch with hello")
    earlier: list[Any] = [
        {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."},
        {"type": "function_call", "call_id": "call_a", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_a", "output": "1"},
    ]  # fmt: skip
    with sdk(stack) as client:
        with client.responses.stream(**asked, tool_choice="required") as stream:
            said = "".join(
                e.delta for e in stream if e.type == "response.custom_tool_call_input.delta"
            )
            first = stream.get_final_response()
        [call] = first.output
        assert call.type == "custom_tool_call"
        assert (call.name, call.input) == ("apply_patch", said)
        result = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "done"}
        turns = [*earlier, call.to_dict(), result]
        replayed = client.responses.create(**{**asked, "input": turns})
        continued = client.responses.create(
            **{**asked, "input": [result], "previous_response_id": first.id}
        )
        listed = client.responses.input_items.list(replayed.id, order="asc").data
    assert replayed.status == continued.status == "completed"
    assert [item.type for item in listed] == [item.get("type", "message") for item in turns]


def test_streamed_arguments_are_those_of_the_plain_call(stack: Stack) -> None:
    asked = options(tools=[WEATHER], tool_choice={"type": "function", "name": "get_weather"})
    with sdk(stack) as client:
        plain = client.responses.create(**asked)
        with client.responses.stream(**asked) as stream:
            fragments = "".join(
                e.delta for e in stream if e.type == "response.function_call_arguments.delta"
            )
    [call] = [item for item in plain.output if item.type == "function_call"]
    assert fragments == call.arguments


def test_parsed_structured_output(stack: Stack) -> None:
    with sdk(stack) as client:
        for seed in range(3):
            parsed = client.responses.parse(
                model=SPARK,
                input="Describe a fruit.",
                text_format=Fruit,
                temperature=1.5,
                max_output_tokens=300,
                extra_body={"seed": seed},
            )
            assert isinstance(parsed.output_parsed, Fruit)


def test_reasoning_is_an_item_before_the_message_and_comes_only_when_asked(stack: Stack) -> None:
    with sdk(stack) as client:
        asked: Any = {"effort": "low"}
        thinking = client.responses.create(**options(reasoning=asked))
        silent = client.responses.create(**options(reasoning={"summary": "auto"}))
        sealed = client.responses.create(
            **options(reasoning=asked, include=["reasoning.encrypted_content"], store=False)
        )
        again = client.responses.create(
            **options(input=[{"role": "user", "content": ASK},
                             *(item.to_dict() for item in sealed.output),
                             {"role": "user", "content": ASK}])
        )  # fmt: skip
    assert [item.type for item in thinking.output] == ["reasoning", "message"]
    assert [item.type for item in silent.output] == ["message"]
    assert thinking.usage is not None
    assert thinking.usage.output_tokens_details.reasoning_tokens > 0
    assert again.status == "completed"


def test_an_image_that_cannot_be_seen_is_refused(stack: Stack) -> None:
    content = [{"type": "input_image", "image_url": PIXEL, "detail": "auto"}]
    with sdk(stack, retries=2) as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**options(input=[{"role": "user", "content": content}]))
    assert refused.value.code == "vision_unsupported"


def test_a_prompt_that_is_too_long_says_so_in_the_words_that_make_agents_compact(
    stack: Stack,
) -> None:
    with sdk(stack, retries=2) as client, pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**options(input="word " * 30_000))
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    assert "maximum context length is" in str(refused.value)


def test_a_cap_that_cuts_is_incomplete(stack: Stack) -> None:
    with sdk(stack) as client:
        cut = client.responses.create(**options(max_output_tokens=2))
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"


def test_error_classes(stack: Stack) -> None:
    with sdk(stack) as client:
        with pytest.raises(openai.NotFoundError):
            client.responses.create(**options(model="no/such"))
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve("resp_none")
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(**options(previous_response_id="resp_none"))
        assert refused.value.param == "previous_response_id"
        assert refused.value.code == "previous_response_not_found"  # clients then send it all
    with (
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-spent", max_retries=2) as client,
        pytest.raises(openai.RateLimitError) as spent,
    ):
        client.responses.create(**options())
    assert spent.value.code == "insufficient_quota"


def test_responses_are_kept_listed_and_deleted(stack: Stack) -> None:
    with sdk(stack) as client:
        made = client.responses.create(**options())
        assert client.responses.retrieve(made.id).output_text == made.output_text
        [item] = client.responses.input_items.list(made.id).data
        assert item.type == "message"
        client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            client.responses.retrieve(made.id)


def test_a_warm_up_with_an_empty_input_is_answered(stack: Stack) -> None:
    got = raw(stack, {"model": SPARK, "input": [], "max_output_tokens": 1, "stream": True})
    assert got.status_code == 200
    assert sse(got.content)[-1]["type"] in ("response.completed", "response.incomplete")


@pytest.mark.parametrize("stream", [False, True])
def test_prewarming_caches_the_prompt_and_says_nothing(stack: Stack, stream: bool) -> None:
    fresh = f"Repeat: {'harbour willow' if stream else 'lantern meadow'} copper pebble"
    body = {"model": SPARK, "input": fresh, "prompt_cache_options": {"prewarm": True}}
    got = raw(stack, {**body, "stream": stream})
    made = sse(got.content)[-1]["response"] if stream else validate_body(got.content)
    assert (made["status"], made["output"]) == ("completed", [])
    assert made["usage"]["output_tokens"] == 1  # that engines compute at least, and that is billed
    with sdk(stack) as client:
        after = client.responses.create(**options(input=fresh))
    assert after.usage is not None
    cached = after.usage.input_tokens_details.cached_tokens
    assert cached > made["usage"]["input_tokens_details"]["cached_tokens"]
    assert after.output_text.endswith("pebble")


def test_a_response_has_the_words_and_counts_of_the_chat(stack: Stack) -> None:
    body = {"model": SPARK, "messages": [{"role": "user", "content": ASK}], "temperature": 0,
            "max_tokens": 60}  # fmt: skip
    chat = stack.ask(body).json()
    found = said(validate_body(raw(stack).content))
    usage = chat["usage"]
    assert found[0] == ("text", chat["choices"][0]["message"]["content"])
    assert found[-1][2:4] == (str(usage["prompt_tokens"]), str(usage["completion_tokens"]))
