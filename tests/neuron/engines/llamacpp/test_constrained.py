"""Structured output and forced tools through llama.cpp: hot, with several seeds, and all valid.

The built-in model at these temperatures says whatever the grammar lets it.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
from tests.neuron.engines.driving import Case, as_json, running, text_of, user

from helexa import spark
from helexa.core.errors import InvalidRequestBody
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio

SAFE = 9007199254740991
SEEDS = 3


def closed(**properties: Any) -> dict[str, Any]:
    """An object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


NODE = {"anyOf": [{"type": "null"}, closed(kind={"const": "leaf"}, of={"$ref": "#/$defs/unit"})]}
SHORT = {"type": "string", "maxLength": 6}
CORPUS: dict[str, Any] = {
    "zod integers": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        **closed(n={"type": "integer", "minimum": -SAFE, "maximum": SAFE}),
    },
    "zod positive": closed(n={"type": "integer", "exclusiveMinimum": 0, "maximum": SAFE}),
    "bounded number": closed(x={"type": "number", "minimum": 0, "maximum": 1}),
    "open number": closed(x={"type": "number", "exclusiveMinimum": -2.5, "exclusiveMaximum": 0}),
    "at least": closed(x={"type": "number", "minimum": 12.75}),
    "pydantic": {
        "$defs": {"unit": {"enum": ["m", "s"], "title": "Unit", "type": "string"}},
        "title": "T",
        **closed(
            a={"$ref": "#/$defs/unit"},
            b={"allOf": [{"$ref": "#/$defs/unit"}], "default": "m"},
            tree=NODE,
        ),
    },
    "optional": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}, "b": {"const": 42}, "c": {"enum": [1, None, "x"]}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "nullable": closed(v={"type": ["string", "null"], "enum": ["a", None]}, w={"type": "null"}),
    "lengths": closed(s={"type": "string", "minLength": 2, "maxLength": 5}),
    "pattern": closed(p={"type": "string", "pattern": '^[A-Z]{2}-\\d{4}(\\.[a-f]|"x\\\\)?$'}),
    "formats": closed(
        d={"type": "string", "format": "date"},
        t={"type": "string", "format": "date-time"},
        u={"type": "string", "format": "uuid"},
        i={"type": "string", "format": "ipv4"},
    ),
    "array": {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 4},
    "long array": {"type": "array", "items": {"type": "boolean"}, "minItems": 30, "maxItems": 40},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "integer", "minimum": -9, "maximum": 9}, SHORT],
        "items": False,
        "minItems": 1,
    },
    "union": {
        "oneOf": [
            closed(kind={"const": "a"}, x={"type": "boolean"}),
            closed(kind={"const": "b"}, y=SHORT),
        ]
    },
    "either required": {
        **closed(),
        "properties": {"a": {"type": "boolean"}, "b": {"type": "boolean"}},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "all of": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": SHORT}, "required": ["b"]},
        ]
    },
    "further keys": {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": {"type": "null"},
    },
    "map": {"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2},
    "spelling": closed(**{'a"b\\c': {"type": "boolean"}, "ü": {"const": 'ä\n"q'}}),
    "anything": closed(v=True),
}


@pytest.fixture(scope="module")
async def case(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Case]:
    facts = inspect(spark.gguf_path(), spark.MODEL_ID)
    wanted: dict[str, object] = {"slots": 2, "ctx": 4096}
    async with running(LlamaCpp(os.environ), facts, tmp_path_factory.mktemp("s"), wanted) as found:
        yield found


async def ask(case: Case, text: str = "Give me some data.", **members: Any) -> dict[str, Any]:
    """The choice of one plain answer."""
    exchange = await case.send({**user(text), "max_tokens": 400, **members})
    await exchange.finish()
    choice: dict[str, Any] = json.loads(exchange.request.cleaner.whole())["choices"][0]
    return choice


def check(text: str, schema: Any) -> None:
    formats = jsonschema.FormatChecker()
    jsonschema.Draft202012Validator(schema, format_checker=formats).validate(json.loads(text))


def tool(name: str, schema: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@pytest.mark.parametrize("name", CORPUS)
async def test_structured_output_validates_whatever_the_model_says(case: Case, name: str) -> None:
    schema = CORPUS[name]
    form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    whole = 0
    for seed in range(SEEDS):
        choice = await ask(case, response_format=form, temperature=1 + 2 * seed, seed=seed)
        if choice["finish_reason"] == "stop":
            check(choice["message"]["content"], schema)
            whole += 1
    assert whole


@pytest.mark.parametrize("name", ["zod integers", "pydantic", "optional", "further keys"])
async def test_a_forced_tool_is_called_with_valid_arguments(case: Case, name: str) -> None:
    schema = CORPUS[name]
    tools = [tool("other", {"type": "object"}), tool("chosen", schema)]
    choice = {"type": "function", "function": {"name": "chosen"}}
    for seed in range(SEEDS):
        found = await ask(case, tools=tools, tool_choice=choice, temperature=3, seed=seed)
        (call,) = found["message"]["tool_calls"]
        assert (call["function"]["name"], found["message"]["content"]) == ("chosen", None)
        if found["finish_reason"] != "length":
            assert found["finish_reason"] == "tool_calls"
            check(call["function"]["arguments"], schema)


async def test_required_calls_one_of_the_tools_and_several_where_asked(case: Case) -> None:
    tools = [tool(name, closed(v={"type": "boolean"})) for name in ("one", "two")]
    for seed in range(SEEDS):
        asked: dict[str, Any] = {"tools": tools, "tool_choice": "required", "seed": seed}
        asked["temperature"] = 2.5
        calls = (await ask(case, **asked))["message"]["tool_calls"]
        assert len(calls) == 1
        more = (await ask(case, **asked, parallel_tool_calls=True))["message"]["tool_calls"]
        assert 1 <= len(more) <= 8
        assert len({call["id"] for call in more}) == len(more)
        assert {call["function"]["name"] for call in [*calls, *more]} <= {"one", "two"}


async def test_tool_choice_none_calls_nothing(case: Case) -> None:
    tools = [tool("get_weather", closed(city=SHORT))]
    found = await ask(case, "Call get_weather for Paris.", tools=tools, tool_choice="none")
    assert "tool_calls" not in found["message"]


async def test_reasoning_happens_before_the_constrained_part_and_not_instead(case: Case) -> None:
    schema = closed(ok={"type": "boolean"})
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    thinking = {"chat_template_kwargs": {"enable_thinking": True}, "temperature": 0}
    found = await ask(case, "Repeat: house", response_format=form, **thinking)
    assert found["message"]["reasoning_content"]
    check(found["message"]["content"], schema)
    tools = {"tools": [tool("say", schema)], "tool_choice": "required"}
    found = await ask(case, "Repeat: house", **tools, **thinking)
    assert found["message"]["reasoning_content"]
    check(found["message"]["tool_calls"][0]["function"]["arguments"], schema)


async def test_tools_beside_a_format_may_be_called_or_answered(case: Case) -> None:
    schema = closed(answer={"type": "boolean"})
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    tools = [tool("look", closed(at={"enum": ["left", "right"]}))]
    seen = set()
    for seed in range(12):
        asked = "Call look for left." if seed % 2 else "hello"
        more = {"temperature": 8 * (1 - seed % 2), "seed": seed}
        found = await ask(case, asked, tools=tools, response_format=form, **more)
        calls = found["message"].get("tool_calls")
        seen.add(bool(calls))
        if calls:
            check(calls[0]["function"]["arguments"], tools[0]["function"]["parameters"])
        else:
            check(found["message"]["content"], schema)
    assert seen == {True, False}


async def test_a_stream_of_a_forced_call_is_clean_chat(case: Case) -> None:
    tools = [tool("say", closed(word=SHORT))]
    exchange = await case.say("Say it.", tools=tools, tool_choice="required", max_tokens=200)
    chunks = as_json(exchange.clean)
    assert text_of(chunks) == ""
    calls = [
        call
        for chunk in chunks
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert calls[0]["function"] == {"name": "say", "arguments": ""}
    check("".join(call["function"]["arguments"] for call in calls), closed(word=SHORT))
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_schema_that_cannot_be_enforced_is_a_400_that_names_the_keyword(case: Case) -> None:
    form = {"type": "json_schema", "json_schema": {"schema": closed(a={"not": {"const": 1}})}}
    with pytest.raises(InvalidRequestBody) as refused:
        case.clean("chat", {**user("hi"), "response_format": form})
    assert refused.value.param == "response_format.json_schema.schema.properties.a.not"
    strict = tool("f", closed(a={"type": "string", "pattern": "(?!x)"}))
    strict["function"]["strict"] = True
    with pytest.raises(InvalidRequestBody) as refused:
        case.clean("chat", {**user("hi"), "tools": [strict]})
    assert refused.value.param == "tools[0].function.parameters.properties.a.pattern"


async def test_tools_that_nobody_insists_on_may_have_any_schema(case: Case) -> None:
    """Agents pass on what their tools' authors wrote; a refusal would end their session."""
    odd = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            "any": True,
            "none": False,
            "far": {"$ref": "https://example.org/x.json"},
            "gone": {"$ref": "#/$defs/gone"},
            "kind": {"type": "objekt"},
            "look": {"type": "string", "pattern": "^(?=a)\\p{L}+$"},
            "pair": {"type": "array", "prefixItems": [{"type": "integer"}], "items": False},
            "choice": {"enum": ["a", 1, None]},
            "rest": {"not": {"const": 1}, "if": True, "unevaluatedItems": False},
        },
        "dependentRequired": {"any": ["none"]},
    }
    found = await ask(case, "Call look for it.", tools=[tool("look", odd)], temperature=0)
    assert found["finish_reason"] in ("stop", "tool_calls", "length")


ODD: dict[str, Any] = {
    "more than at most": {"type": "string", "minLength": 5, "maxLength": 2},
    "more items than at most": {"type": "array", "items": {}, "minItems": 5, "maxItems": 2},
    "very long": {"type": "string", "minLength": 5000},
    "endless": {"type": "string", "minLength": 10**12},
    "half": {"type": "string", "minLength": 1.5},
    "above the safe integers": {"type": "integer", "exclusiveMinimum": SAFE},
    "below the safe integers": {"type": "integer", "maximum": -SAFE},
    "beyond all integers": {"type": "integer", "minimum": -(10**40), "maximum": 10**40},
    "nothing between": {"type": "integer", "minimum": 5, "maximum": 2},
    "a bound in words": {"type": "integer", "minimum": "5"},
    "no choice": {"enum": []},
    "none of none": {"anyOf": []},
    "all of it": {"$ref": "#"},
    "a ring": {"$ref": "#/$defs/ring"},
    "nameless": {"type": "object", "properties": [], "required": 5, "additionalProperties": 5},
    "formless": {"type": "string", "format": 5},
}


@pytest.mark.parametrize("name", ODD)
async def test_no_tool_takes_the_engine_from_everybody(case: Case, name: str) -> None:
    """Some bounds made llama.cpp write out rules until the memory was gone, or end."""
    odd = {
        "type": "object",
        "properties": {"x": ODD[name]},
        "$defs": {"ring": {"$ref": "#/$defs/gnir"}, "gnir": {"$ref": "#/$defs/ring"}},
    }
    found = await ask(case, "Call look.", tools=[tool("look", odd)], temperature=0, max_tokens=8)
    assert found["finish_reason"] in ("stop", "tool_calls", "length")


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize("repeat", ["{5,2}", "{ 5 ,\n2 }", "{0,99999999999}"])
async def test_a_grammar_that_repeats_from_more_to_less_is_refused(
    case: Case, route: str, repeat: str
) -> None:
    asked = user("hi") if route == "chat" else {"model": spark.MODEL_ID, "prompt": "hi"}
    with pytest.raises(InvalidRequestBody, match="repeat") as refused:
        case.clean(route, {**asked, "grammar": f'root ::= "\\"{{5,2}}" [\\]{{] "a"{repeat} # "'})
    assert refused.value.param == "grammar"
    case.clean(route, {**asked, "grammar": 'root ::= "{5,2}" [{5,2}] "a"{2,5} # {5,2}'})
