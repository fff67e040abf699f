"""Requests for a server that is told apart from others by its section only."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.driving import as_json, text_of, user

from helexa import spark
from helexa.core.errors import HelexaError, UnsupportedParameter
from helexa.neuron.engines.base import EngineRequest, Host, Plan, Served
from helexa.neuron.engines.command.engine import CommandEngine, probe
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect
from helexa.neuron.settings import CommandSettings

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
}
XML = (
    "Yes.\n<tool_call>\n<function=weather>\n<parameter=city>\nParis\n</parameter>\n"
    "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
)
SECTIONS = (
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}'
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)
PLAN = Plan(context=2048, slots=2, kv_cells=4096)


@pytest.fixture(scope="module")
def facts() -> ModelFacts:
    return inspect(spark.safetensors_dir(), spark.MODEL_ID)


def made(**given: Any) -> CommandEngine:
    section = msgspec.convert({"command": ["serve", "{port}"], **given}, CommandSettings)
    return CommandEngine("mine", section, os.environ)


def clean(engine: CommandEngine, facts: ModelFacts, **members: Any) -> EngineRequest:
    raw = json.dumps({"model": "asked", "stream": True, **user("hi"), **members}).encode()
    return engine.clean("chat", raw, Served(facts.model_id, facts, PLAN, 500), "abc")


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def answered(request: EngineRequest, *pieces: str) -> list[dict[str, Any]]:
    """The clean chunks for text in pieces."""
    said = b"".join(request.cleaner.feed(chunk(content=piece)) for piece in pieces)
    said += request.cleaner.feed(chunk("stop") + b"data: [DONE]\n\n")
    return as_json(said)


def calls(chunks: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    found = [
        fragment["function"]
        for each in chunks
        for choice in each["choices"]
        for fragment in choice["delta"].get("tool_calls", ())
    ]
    return [(call["name"], json.loads(call["arguments"])) for call in found]


def test_the_server_hears_the_name_it_knows_and_the_members_it_needs(facts: ModelFacts) -> None:
    engine = made(model_name="{model}", members={"cache_prompt": True})
    body = json.loads(clean(engine, facts).body)
    assert body["model"] == str(facts.path)
    assert body["cache_prompt"] is True
    assert json.loads(clean(made(), facts).body)["model"] == facts.model_id


def test_what_the_server_ignores_is_refused_unless_it_asks_for_nothing(facts: ModelFacts) -> None:
    engine = made(unsupported=["n", "response_format", "tool_choice", "logprobs"])
    asked = {"n": 1, "response_format": {"type": "text"}, "logprobs": False}
    sent = json.loads(clean(engine, facts, tools=[WEATHER], tool_choice="auto", **asked).body)
    assert not {"n", "response_format", "logprobs", "tool_choice"} & sent.keys()
    for wrong in ({"n": 2}, {"response_format": {"type": "json_object"}}):
        with pytest.raises(UnsupportedParameter) as caught:
            clean(engine, facts, **wrong)
        assert caught.value.param == next(iter(wrong))
    with pytest.raises(UnsupportedParameter):
        clean(engine, facts, tools=[WEATHER], tool_choice="required")


def test_tools_that_must_not_be_called_are_not_shown_to_a_server_that_would(
    facts: ModelFacts,
) -> None:
    engine = made(unsupported=["tool_choice"])
    sent = json.loads(clean(engine, facts, tools=[WEATHER], tool_choice="none").body)
    assert not {"tools", "tool_choice"} & sent.keys()


def test_calls_in_text_are_read_with_the_types_of_the_schema(facts: ModelFacts) -> None:
    request = clean(made(), facts, tools=[WEATHER])
    chunks = answered(request, *XML)
    assert text_of(chunks) == "Yes."
    assert calls(chunks) == [("weather", {"city": "Paris", "days": 3})]
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


def test_without_tools_or_with_parsers_off_the_same_text_stays_text(facts: ModelFacts) -> None:
    for request in (clean(made(), facts), clean(made(parsers="none"), facts, tools=[WEATHER])):
        assert text_of(answered(request, XML)) == XML


@pytest.mark.parametrize(("parsers", "text"), [
    ("mistral", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}}]'),
    ("llama", '{"name": "weather", "parameters": {"city": "Paris"}}'),
    ("deepseek", SECTIONS),
    ("tagged", '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'),
])  # fmt: skip
def test_the_form_of_calls_may_be_named(parsers: str, text: str, facts: ModelFacts) -> None:
    request = clean(made(parsers=parsers), facts, tools=[WEATHER])
    assert calls(answered(request, text[:7], text[7:])) == [("weather", {"city": "Paris"})]


def test_thoughts_in_text_are_told_apart(facts: ModelFacts) -> None:
    chunks = answered(clean(made(), facts), "<think>\nhm", "\n</thi", "nk>\n\nwell")
    assert (text_of(chunks, "reasoning_content"), text_of(chunks)) == ("hm", "well")
    assert chunks[-1]["usage"]["completion_tokens_details"]["reasoning_tokens"] >= 1


def test_a_thought_that_the_prompt_opened_is_one(facts: ModelFacts) -> None:
    opening = msgspec.structs.replace(facts, thinks_first=True)
    asked = {"chat_template_kwargs": {"enable_thinking": True}}
    chunks = answered(clean(made(), opening, **asked), "hm</think>", "well")
    assert (text_of(chunks, "reasoning_content"), text_of(chunks)) == ("hm", "well")
    other = msgspec.structs.replace(opening, thinking_variable="thinking")
    for silent in (opening, other):  # not asked to think: nothing was opened
        assert text_of(answered(clean(made(), silent), "well")) == "well"
    always = msgspec.structs.replace(opening, thinking_variable=None)
    assert text_of(answered(clean(made(), always), "hm"), "reasoning_content") == "hm"


def test_the_models_of_its_list_are_its_own(facts: ModelFacts) -> None:
    host = Host((), (), 8000, 8000, 2)
    assert made().can_run(facts, host).ok
    assert made(models=[facts.model_id]).can_run(facts, host).ok
    verdict = made(models=["other/model"]).can_run(facts, host)
    assert (verdict.ok, verdict.reason) == (False, "not_listed")
    assert "engines.command.mine.models" in (verdict.detail or "")


def test_the_probe_asks_for_what_the_model_gives(facts: ModelFacts) -> None:
    habits = made(members={"x": 1}).habits
    served = Served(facts.model_id, facts, PLAN, 10)
    path, body = probe(served, habits)
    assert (path, body["max_tokens"], body["x"]) == ("/v1/chat/completions", 1, 1)
    embedder = msgspec.structs.replace(facts, capabilities=("embeddings",))
    assert probe(Served("m", embedder, PLAN, 0), habits)[0] == "/v1/embeddings"
    ranks = msgspec.structs.replace(PLAN, rerank=True)
    assert probe(Served("m", embedder, ranks, 0), habits)[0] == "/v1/rerank"


def test_a_plan_takes_slots_and_context_from_the_section(facts: ModelFacts) -> None:
    host = Host((), (), 24_000, 20_000, 2)
    plan = made(slots=3, context=1024).plan(facts, host, {})
    assert (plan.slots, plan.context) == (3, 1024)
    assert made(slots=3).plan(facts, host, {"slots": 1}).slots == 1


def test_launch_shows_names_and_no_key(facts: ModelFacts, tmp_path: Path) -> None:
    launch = made(env={"A": "{model}"}).launch(facts, PLAN, facts.model_id)
    assert launch.argv[-4:] == ("--engine", "mine", "--model", facts.model_id)
    assert launch.api_key not in repr((launch.argv, launch.env))
    assert json.loads(launch.secret)["api_key"] == launch.api_key


def test_its_refusals_are_in_our_words(facts: ModelFacts) -> None:
    served = Served(facts.model_id, facts, PLAN, 10)
    said = b'{"detail":"Unexpected fields in the request: {\'top_k\'}"}'
    error = made().error(422, said, served)
    assert isinstance(error, HelexaError)
    assert (error.code, error.message) == (
        "invalid_request_body",
        "Unexpected fields in the request: {'top_k'}",
    )
