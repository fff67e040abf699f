"""What every engine's answers must look like, streamed and plain."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.neuron.engines.candidates import Candidate
from tests.neuron.engines.driving import Case, Start, as_json, text_of, user

from helexa.core.errors import ContextLengthExceeded

pytestmark = pytest.mark.anyio

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["paris"]}},
            "required": ["city"],
        },
    },
}
CALL = {
    **user("Call get_weather for paris."),
    "tools": [TOOL],
    "max_tokens": 60,
    "temperature": 0,
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {
        "kind": {"type": "string", "enum": ["small", "large"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["kind", "count"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}


def usage(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = chunks[-1]["usage"]
    return found


async def needs_a_trained_model(case: Case) -> None:
    """A model that begins no call gives nothing to look at; the grammar binds only inside one."""
    said = await case.say("Repeat: house", max_tokens=4, temperature=0)
    if "house" not in text_of(as_json(said.clean)):
        pytest.skip("the built-in model is not trained yet")


async def test_a_stream_is_clean_chat_under_the_served_id(case: Case) -> None:
    exchange = await case.say("Repeat: house", max_tokens=6)
    chunks = as_json(exchange.clean)
    assert exchange.clean.endswith(b"data: [DONE]\n\n")
    assert {chunk["model"] for chunk in chunks} == {case.facts.model_id}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant"}
    deltas = [choice["delta"] for chunk in chunks[1:] for choice in chunk["choices"]]
    assert all(value not in (None, "") for delta in deltas for value in delta.values())
    finishes = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert finishes[-1] in ("stop", "length")
    assert set(finishes[:-1]) == {None}
    assert chunks[-1]["choices"] == []
    assert str(case.facts.path).encode() not in exchange.clean


async def test_usage_and_timings_close_the_stream_and_equal_the_meter(case: Case) -> None:
    exchange = await case.say("Repeat: garden river", max_tokens=5)
    chunks, meter = as_json(exchange.clean), exchange.request.cleaner.meter
    found = usage(chunks)
    assert found["prompt_tokens"] == meter.prompt == meter.prompt_processed
    assert found["completion_tokens"] == meter.output
    assert found["total_tokens"] == meter.prompt + meter.output
    assert found["prompt_tokens_details"]["cached_tokens"] == meter.cached
    timings = chunks[-1]["timings"]
    assert timings["prompt_n"] + timings["cache_n"] == meter.prompt
    assert timings["predicted_n"] == meter.output
    assert set(timings) == {"prompt_n", "cache_n", "prompt_ms", "predicted_n", "predicted_ms"}


async def test_a_plain_answer_is_the_stream_put_together(case: Case) -> None:
    body = {**user("Repeat: house"), "max_tokens": 6, "temperature": 0, "seed": 1}
    streamed = as_json((await case.say("Repeat: house", max_tokens=6, temperature=0)).clean)
    exchange = await case.send(body)
    await exchange.finish()
    answer = json.loads(exchange.request.cleaner.whole())
    assert exchange.request.stream is False
    assert answer["object"] == "chat.completion"
    assert answer["model"] == case.facts.model_id
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == text_of(streamed)
    assert choice["message"]["refusal"] is None
    assert choice["logprobs"] is None
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["completion_tokens"] == exchange.request.cleaner.meter.output


async def test_reasoning_is_a_channel_of_its_own_and_is_counted(
    case: Case, candidate: Candidate
) -> None:
    exchange = await case.say(candidate.question, **candidate.thoughtful)
    chunks = as_json(exchange.clean)
    assert text_of(chunks, "reasoning_content")
    assert text_of(chunks)
    assert "think>" not in text_of(chunks) + text_of(chunks, "reasoning_content")
    reasoning = usage(chunks)["completion_tokens_details"]["reasoning_tokens"]
    assert 0 < reasoning < usage(chunks)["completion_tokens"]


async def test_thinking_is_off_unless_somebody_asks(case: Case) -> None:
    exchange = await case.say("Repeat: tree", max_tokens=8)
    assert exchange.request.cleaner.meter.reasoning == 0
    sent = json.loads(exchange.request.body)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False}
    asked = json.loads(case.clean("chat", user("a"), thinking=True).body)
    assert asked["chat_template_kwargs"] == {"enable_thinking": True}


async def test_a_tool_call_streams_in_one_shape_and_ends_as_tool_calls(
    case: Case, candidate: Candidate
) -> None:
    await needs_a_trained_model(case)
    exchange = await case.send({**CALL, **candidate.call, "stream": True})
    await exchange.finish()
    chunks = as_json(exchange.clean)
    fragments = [
        fragment
        for chunk in chunks
        for choice in chunk["choices"]
        for fragment in choice["delta"].get("tool_calls", ())
    ]
    assert fragments[0]["index"] == 0
    assert fragments[0]["id"]
    assert fragments[0]["type"] == "function"
    assert fragments[0]["function"]["name"] == "get_weather"
    arguments = "".join(f["function"].get("arguments", "") for f in fragments)
    assert json.loads(arguments) == {"city": "paris"}
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_plain_tool_call_has_the_same_call(case: Case, candidate: Candidate) -> None:
    await needs_a_trained_model(case)
    exchange = await case.send({**CALL, **candidate.call})
    await exchange.finish()
    choice = json.loads(exchange.request.cleaner.whole())["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "paris"}


async def test_a_schema_binds_the_answer(case: Case) -> None:
    exchange = await case.say("Describe it.", response_format=FORMAT, max_tokens=80)
    found = json.loads(text_of(as_json(exchange.clean)))
    assert found["kind"] in ("small", "large")
    assert isinstance(found["count"], int)


async def test_several_choices_are_summed_and_kept_apart(case: Case) -> None:
    exchange = await case.say("Repeat: one two", n=2, max_tokens=4)
    chunks, meter = as_json(exchange.clean), exchange.request.cleaner.meter
    assert text_of(chunks, index=0)
    assert text_of(chunks, index=1)
    ends = [c["index"] for k in chunks for c in k["choices"] if c["finish_reason"] is not None]
    assert sorted(ends) == [0, 1]
    assert sum(1 for chunk in chunks if "usage" in chunk) == 1
    assert meter.output > max(2, meter.output // 2)
    assert usage(chunks)["completion_tokens"] == meter.output


async def test_the_second_turn_finds_the_first_one_cached(case: Case) -> None:
    words = "Repeat: " + " ".join(["river", "stone", "garden"] * 20)
    first = await case.say(words, max_tokens=1, temperature=0)
    history = [
        {"role": "user", "content": words},
        {"role": "assistant", "content": "river"},
        {"role": "user", "content": "Repeat: house"},
    ]
    second = await case.say("", messages=history, max_tokens=1)
    before, after = first.request.cleaner.meter, second.request.cleaner.meter
    assert after.prompt > before.prompt
    assert after.cached >= before.prompt * 0.9
    assert after.cached < after.prompt


@pytest.mark.parametrize("thinking", [False, True])
async def test_the_count_of_a_cleaned_request_knows_what_was_changed(
    case: Case, thinking: bool
) -> None:
    exchange = await case.send(user("Repeat: one two"), thinking=thinking)
    counted = await case.engine.count_cleaned(case.address, exchange.request, case.served)
    await exchange.finish()
    assert exchange.request.cleaner.meter.prompt == counted


@pytest.mark.parametrize("prompt", ["one two three", [5, 6, 7]])
async def test_the_count_of_a_legacy_prompt_is_what_it_then_costs(
    case: Case, prompt: str | list[int]
) -> None:
    if isinstance(prompt, list) and case.engine.name == "fake":
        pytest.skip("the fake engine's tokens are words")
    exchange = await case.send({"model": "m", "prompt": prompt, "max_tokens": 2}, "completions")
    counted = await case.engine.count_cleaned(case.address, exchange.request, case.served)
    await exchange.finish()
    assert exchange.request.cleaner.meter.prompt == counted


async def test_the_count_is_what_the_prompt_then_costs(case: Case) -> None:
    for body in (user("Repeat: one two three"), {**user("weather?"), "tools": [TOOL]}):
        raw = json.dumps({"model": "asked", **body}).encode()
        counted = await case.engine.count(case.address, raw, case.served)
        exchange = await case.send({**body, "stream": True, "max_tokens": 1})
        await exchange.finish()
        assert counted == exchange.request.cleaner.meter.prompt


async def test_too_long_a_prompt_is_refused_with_its_figures(case: Case) -> None:
    exchange = await case.send({**user("river stone " * 9000), "stream": True})
    await exchange.begin()
    error = case.refusal(exchange)
    assert isinstance(error, ContextLengthExceeded)
    assert f"maximum context length is {case.plan.context} tokens" in error.message
    assert int(str(error.extras["prompt_len"])) > case.plan.context


async def test_embeddings_are_counted_and_carry_the_served_id(
    start: Start, candidate: Candidate
) -> None:
    async with start(embeddings=True) as case:
        exchange = await case.send({"input": ["river", "stone garden"]}, route="embeddings")
        await exchange.finish()
        if candidate.both:
            chat = await case.say("Repeat: house", max_tokens=2)
            assert chat.request.cleaner.meter.output > 0
    answer = json.loads(exchange.request.cleaner.whole())
    assert answer["model"] == case.facts.model_id
    assert len(answer["data"]) == 2
    assert exchange.request.cleaner.meter.prompt == answer["usage"]["prompt_tokens"] > 0


async def test_a_legacy_completion_is_clean_too(case: Case) -> None:
    exchange = await case.send({"prompt": "river stone", "max_tokens": 3}, route="completions")
    await exchange.finish()
    answer = json.loads(exchange.request.cleaner.whole())
    assert answer["object"] == "text_completion"
    assert answer["model"] == case.facts.model_id
    assert answer["choices"][0]["text"]
    assert answer["usage"]["completion_tokens"] == exchange.request.cleaner.meter.output > 0
