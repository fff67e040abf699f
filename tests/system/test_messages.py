"""Anthropic's own SDK against a real gateway, node and engine, at the gateway and at the node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx
import pytest
from tests.neuron.system.conftest import SPARK
from tests.system.rig import PATIENT, SECRET, Stack, StartStack
from tests.wire.messages.reading import check_order, said, said_plain, sse, validate

ASK: Any = [{"role": "user", "content": "Repeat: house garden river"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Get the weather of a city",
    "input_schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="  # noqa: E501


@pytest.fixture(scope="module")
def stack(make_stack: StartStack) -> Stack:
    """However slow the machine is."""
    return make_stack(PATIENT)


@contextmanager
def sdk(stack: Stack, at: str = "gateway") -> Iterator[Any]:
    """The official client, strict about what it reads; at the gateway or straight at the node."""
    url = stack.url if at == "gateway" else stack.node.url
    token = "sk-open" if at == "gateway" else SECRET
    with anthropic.Anthropic(
        base_url=url, auth_token=token, api_key=None, max_retries=0,
        _strict_response_validation=True,
    ) as client:  # fmt: skip
        yield client


def options(**more: Any) -> Any:
    """For the SDK, whose newest versions know no temperature."""
    extra = {"temperature": 0, **more.pop("extra_body", {})}
    return {"model": SPARK, "max_tokens": 60, "messages": ASK, "extra_body": extra, **more}


def raw(stack: Stack, **more: Any) -> httpx.Response:
    with stack.client() as client:
        body = {"model": SPARK, "max_tokens": 60, "temperature": 0, "messages": ASK, **more}
        return client.post("/v1/messages", json=body)


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_text_comes_plain_and_streamed_with_the_same_words_and_counts(
    stack: Stack, at: str
) -> None:
    with sdk(stack, at) as client:
        plain = client.messages.create(**options())
        with client.messages.stream(**options()) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
    [block] = plain.content
    assert block.type == "text"
    assert text == block.text
    assert "house" in text
    assert (plain.model, plain.stop_reason, final.stop_reason) == (SPARK, "end_turn", "end_turn")
    for message in (plain, final):
        usage = message.usage
        assert usage.input_tokens + (usage.cache_read_input_tokens or 0) > 9
        assert usage.output_tokens == plain.usage.output_tokens


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_counting_is_exact_with_system_tools_and_thinking(stack: Stack, at: str) -> None:
    asked: dict[str, Any] = {
        "model": SPARK, "messages": ASK, "system": "Be brief.", "tools": [WEATHER],
    }  # fmt: skip
    with sdk(stack, at) as client:
        counted = 0
        for more in ({}, {"thinking": {"type": "adaptive"}}):
            counted = client.messages.count_tokens(**asked, **more).input_tokens
            usage = client.messages.create(**asked, **more, max_tokens=1).usage
            assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
        assert client.messages.count_tokens(model=SPARK, messages=ASK).input_tokens < counted


def test_message_start_already_knows_the_prompt_and_what_was_cached(stack: Stack) -> None:
    first = sse(raw(stack, stream=True).content)
    again = sse(raw(stack, stream=True).content)
    for found in (first, again):
        start, end = found[0]["message"]["usage"], found[-2]["usage"]
        for name in ("input_tokens", "cache_read_input_tokens"):
            assert start[name] == end[name]
    assert again[0]["message"]["usage"]["cache_read_input_tokens"] > 0


@pytest.mark.parametrize("at", ["gateway", "node"])
@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_makes_its_round_trip(stack: Stack, at: str, choice: Any) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    asked = options(messages=[question], tools=[WEATHER], tool_choice=choice, max_tokens=120)
    with sdk(stack, at) as client:
        plain = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        calls = [b for b in plain.content if b.type == "tool_use"]
        assert plain.stop_reason == streamed.stop_reason == "tool_use"
        assert [b.name for b in calls] == ["get_weather"]
        assert set(calls[0].input) == {"city"}
        assert [b.input for b in streamed.content if b.type == "tool_use"] == [calls[0].input]
        result = {"type": "tool_result", "tool_use_id": calls[0].id,
                  "content": [{"type": "text", "text": "sunny, 21 degrees"}]}  # fmt: skip
        answer = client.messages.create(
            **options(
                messages=[
                    question,
                    {"role": "assistant", "content": plain.content},
                    {"role": "user", "content": [result]},
                ],
                tools=[WEATHER],
            )
        )
        assert any(b.type == "text" and b.text for b in answer.content)


def test_no_tool_is_called_where_none_may_be(stack: Stack) -> None:
    asked = options(tools=[WEATHER], tool_choice={"type": "none"})
    with sdk(stack) as client:
        assert client.messages.create(**asked).stop_reason == "end_turn"


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_thinking_is_a_signed_block_of_its_own_before_the_text(stack: Stack, at: str) -> None:
    asked = options(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=200)
    with sdk(stack, at) as client:
        plain = client.messages.create(**asked)
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
        again = client.messages.create(
            **options(
                messages=[
                    *ASK,
                    {"role": "assistant", "content": plain.content},
                    {"role": "user", "content": "Repeat: tree"},
                ]
            )
        )
    for message in (plain, streamed):
        thought, text = message.content
        assert thought.type == "thinking"
        assert thought.thinking
        assert thought.signature
        assert text.type == "text"
        details = message.usage.output_tokens_details
        assert details is not None
        assert 0 < details.thinking_tokens < message.usage.output_tokens
    assert [b.type for b in again.content] == ["text"]


def test_a_thinking_budget_is_kept(stack: Stack) -> None:
    asked = options(thinking={"type": "enabled", "budget_tokens": 2}, max_tokens=200)
    with sdk(stack) as client:
        message = client.messages.create(**asked)
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens < 8
    assert message.content[-1].type == "text"


def test_omitted_thinking_is_counted_and_not_shown(stack: Stack) -> None:
    asked = options(thinking={"type": "adaptive", "display": "omitted"}, max_tokens=200)
    with sdk(stack) as client, client.messages.stream(**asked) as stream:
        thought = stream.get_final_message().content[0]
    assert thought.type == "thinking"
    assert (thought.thinking, bool(thought.signature)) == ("", True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_ends_the_answer_and_is_named(stack: Stack, stream: bool) -> None:
    answer = raw(stack, stop_sequences=["river", "garden"], stream=stream)
    found = sse(answer.content)[-2]["delta"] if stream else answer.json()
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "garden")


def test_a_cap_of_nothing_caches_the_prompt_and_says_nothing(stack: Stack) -> None:
    fresh: Any = [{"role": "user", "content": "Repeat: harbour lantern meadow willow"}]
    with sdk(stack) as client:
        warming = client.messages.create(**options(messages=fresh, max_tokens=0))
        after = client.messages.create(**options(messages=fresh))
    assert (warming.content, warming.stop_reason) == ([], "max_tokens")
    assert warming.usage.output_tokens == 1  # that engines compute at least, and that is billed
    prompt = warming.usage.input_tokens + (warming.usage.cache_read_input_tokens or 0)
    assert after.usage.cache_read_input_tokens == prompt - after.usage.input_tokens
    assert after.usage.input_tokens < warming.usage.input_tokens
    assert "lantern" in after.content[0].text


def test_a_short_cap_is_max_tokens_and_a_huge_one_is_clamped(stack: Stack) -> None:
    assert raw(stack, max_tokens=2).json()["stop_reason"] == "max_tokens"
    assert raw(stack, max_tokens=32_000).json()["stop_reason"] == "end_turn"


def test_structured_output_validates(stack: Stack) -> None:
    schema = {
        "type": "object",
        "properties": {"word": {"type": "string", "enum": ["house", "tree"]}},
        "required": ["word"],
        "additionalProperties": False,
    }
    answer = raw(stack, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert json.loads(answer.json()["content"][0]["text"])["word"] in ("house", "tree")


def test_every_event_of_every_kind_of_answer_is_valid_and_in_order(stack: Stack) -> None:
    for more in (
        {},
        {"max_tokens": 1},
        {"stop_sequences": ["house"]},
        {"thinking": {"type": "adaptive"}},
        {"tools": [WEATHER], "tool_choice": {"type": "any"}},
        {"system": [{"type": "text", "text": "Be brief."}]},
    ):
        found = sse(raw(stack, stream=True, **more).content)
        check_order(found)
        validate(found)
        plain = said_plain(raw(stack, **more).content)
        assert [item[0] for item in plain] == [item[0] for item in said(found)]


def test_an_image_that_cannot_be_seen_is_a_loud_400(stack: Stack) -> None:
    image = {"type": "image",
             "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}  # fmt: skip
    with sdk(stack) as client, pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**options(messages=[{"role": "user", "content": [image]}]))
    assert "vision" in str(caught.value)
    assert "`messages[0].content[0]`" in str(caught.value)


def test_counting_refuses_by_the_same_paths(stack: Stack) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    wrong: Any = [{"role": "user", "content": "hi"}, {"role": "user", "content": [image]}]
    with sdk(stack) as client:
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[1\].content\[0\]"):
            client.messages.count_tokens(model=SPARK, system="Be brief.", messages=wrong)
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].role"):
            client.messages.count_tokens(model=SPARK, messages=[{"role": "robot", "content": "x"}])
        with pytest.raises(anthropic.NotFoundError):
            client.messages.count_tokens(model="no/such", messages=ASK)


def test_a_thread_is_refused_in_the_way_the_sdk_understands(stack: Stack) -> None:
    with sdk(stack) as client, pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**options(extra_body={"thread": {"type": "create"}}))
    body: Any = caught.value.body
    assert body["error"]["details"]["error_code"] == "thread_unsupported_request"


def test_errors_are_the_sdks_classes(stack: Stack) -> None:
    with sdk(stack) as client:
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(**options(model="no/such"))
        with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].role"):
            client.messages.create(**options(messages=[{"role": "robot", "content": "x"}]))
        long: Any = [{"role": "user", "content": "word " * 60_000}]
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long: "):
            client.messages.create(**options(messages=long))
        # Where counting takes longer than ``commit_ms``, the refusal is an event of the stream.
        with pytest.raises(anthropic.APIStatusError, match="prompt is too long: "):
            list(client.messages.create(**options(messages=long, stream=True)))
    spent = anthropic.Anthropic(base_url=stack.url, api_key="sk-spent", max_retries=0)
    with spent, pytest.raises(anthropic.RateLimitError) as caught:
        spent.messages.create(**options())
    body: Any = caught.value.body
    assert body["error"]["type"] == "billing_error"


def test_models_are_listed_and_found_in_anthropics_shape(stack: Stack) -> None:
    with sdk(stack) as client:
        page = client.models.list()
        assert SPARK in [model.id for model in page.data]
        assert (page.has_more, page.first_id, page.last_id) == (
            False,
            page.data[0].id,
            page.data[-1].id,
        )
        found = client.models.retrieve(SPARK)
        assert (found.lifecycle, found.type) == ("active", "model")
        assert found.max_input_tokens
        with pytest.raises(anthropic.NotFoundError):
            client.models.retrieve("no/such")


@pytest.mark.parametrize("at", ["gateway", "node"])
def test_a_base_url_may_end_in_the_prefix_that_the_sdk_adds(stack: Stack, at: str) -> None:
    with sdk(stack, at) as client:
        doubled = client.with_options(base_url=f"{str(client.base_url).rstrip('/')}/v1/")
        assert doubled.messages.create(**options(max_tokens=4)).usage.output_tokens == 4
        assert doubled.messages.count_tokens(model=SPARK, messages=ASK).input_tokens > 0
        if at == "gateway":
            assert SPARK in [model.id for model in doubled.models.list().data]
