"""What a template decides of a request for llama.cpp: thoughts, arguments, roles, tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace
from tests.neuron.engines.llamacpp.test_request import ADD, HI, refusal, sent

from helexa.neuron.engines.base import Served
from helexa.neuron.models.template import read_template

SUB = {"type": "function", "function": {"name": "sub"}}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, False),
        ({"thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "minimal"}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning": {"effort": "low"}}, True),
        ({"reasoning": {"summary": "auto"}}, False),
        ({"chat_template_kwargs": {"enable_thinking": True}}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "high"}, False),
    ],
)
def test_thinking_is_on_only_when_asked_for(
    served: Served, asked: dict[str, Any], expected: bool
) -> None:
    assert sent(served, **asked)["chat_template_kwargs"]["enable_thinking"] is expected


def test_a_header_or_the_catalogue_may_ask_but_the_body_has_the_last_word(served: Served) -> None:
    assert sent(served, header_asks=True)["chat_template_kwargs"]["enable_thinking"] is True
    off = {"enable_thinking": False, "other": 1}
    found = sent(served, header_asks=True, chat_template_kwargs=off)
    assert found["chat_template_kwargs"] == off


def test_templates_without_a_switch_get_none(served: Served) -> None:
    plain = replace(served, facts=replace(served.facts, thinking_variable=None))
    assert "chat_template_kwargs" not in sent(plain)
    assert "chat_template_kwargs" not in sent(plain, reasoning_effort="high")


@pytest.mark.parametrize(
    ("asked", "kwargs"),
    [
        ({}, {"thinking": False}),
        ({"header_asks": True}, {"thinking": True}),
        ({"reasoning_effort": "high"}, {"thinking": True}),
        ({"thinking": {"type": "disabled"}}, {"thinking": False}),
        (
            {"chat_template_kwargs": {"enable_thinking": True}},
            {"enable_thinking": True, "thinking": True},
        ),
        ({"chat_template_kwargs": {"thinking": True}}, {"thinking": True}),
    ],
)
def test_the_switch_is_the_one_that_the_template_reads(
    served: Served, asked: dict[str, Any], kwargs: dict[str, bool]
) -> None:
    reads = "{% if thinking %}<think>{% endif %}{{ messages }}</think>"
    traits = read_template(reads)
    assert traits.switch == "thinking"
    other = replace(served, facts=replace(served.facts, thinking_variable=traits.switch))
    assert sent(other, **asked)["chat_template_kwargs"] == kwargs


def test_arguments_become_what_the_template_can_read(served: Served) -> None:
    given = ['{"a": 1}', {"a": 1}, "", None, '{"a": ']
    calls = [{"id": "x", "function": {"name": "add", "arguments": value}} for value in given]
    turn = {"role": "assistant", "content": None, "tool_calls": calls}
    message = sent(served, messages=[*HI, turn, *HI])["messages"][1]
    read = [json.loads(call["function"]["arguments"]) for call in message["tool_calls"]]
    assert read == [{"a": 1}, {"a": 1}, {}, {}, {"unparsed": '{"a": '}]
    assert message["content"] == ""
    assert {call["type"] for call in message["tool_calls"]} == {"function"}


def test_developer_is_system_where_the_template_does_not_know_it(served: Served) -> None:
    messages = [{"role": "developer", "content": "be brief"}, *HI]
    assert sent(served, messages=messages)["messages"][0]["role"] == "system"
    knows = replace(served.facts, chat_template="{% if role == 'developer' %}")
    assert sent(replace(served, facts=knows), messages=messages)["messages"][0]["role"] == (
        "developer"
    )


def test_system_messages_move_only_where_the_template_demands_it(served: Served) -> None:
    messages = [
        {"role": "system", "content": "one"},
        *HI,
        {"role": "system", "content": [{"type": "text", "text": "two"}]},
    ]
    assert [m["role"] for m in sent(served, messages=messages)["messages"]] == [
        "system",
        "user",
        "system",
    ]
    strict = "{{ raise_exception('System message must be at the beginning.') }}"
    found = replace(served, facts=replace(served.facts, chat_template=strict))
    assert sent(found, messages=messages)["messages"] == [
        {"role": "system", "content": "one\n\ntwo"},
        *HI,
    ]


def test_a_developer_message_that_a_template_would_lose_is_merged_too(served: Served) -> None:
    loses = (
        "{{ messages[0].content if messages[0].role in ('developer', 'system') }}"
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    found = replace(served, facts=replace(served.facts, chat_template=loses))
    messages = [{"role": "system", "content": "one"}, {"role": "developer", "content": "two"}, *HI]
    assert sent(found, messages=messages)["messages"] == [
        {"role": "system", "content": "one\n\ntwo"},
        *HI,
    ]


def test_unknown_tool_types_are_left_out_and_functions_completed(served: Served) -> None:
    body = sent(served, tools=[{"type": "web_search"}, SUB], tool_choice="auto")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["sub"]
    assert body["tools"][0]["function"]["parameters"] == {"type": "object", "properties": {}}
    without = sent(served, tools=[{"type": "web_search"}], tool_choice="auto")
    assert not {"tools", "tool_choice"} & set(without)


def test_naming_a_tool_requires_it_and_leaves_the_prompt_as_it_is(served: Served) -> None:
    choice = {"type": "function", "function": {"name": "sub"}}
    body = sent(served, tools=[ADD, SUB], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add", "sub"]
    assert body["tool_choice"] == "none"
    assert ('\\"sub\\"' in body["grammar"], '\\"add\\"' in body["grammar"]) == (True, False)
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [ADD]}}
    body = sent(served, tools=[ADD, SUB], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add"]
    assert body["tool_choice"] == "auto"


def test_arguments_that_no_parser_bears_are_shown_as_a_text(served: Served) -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": deep}}]
    messages = [*HI, {"role": "assistant", "tool_calls": calls}]
    told = sent(served, messages=messages)["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(told) == {"unparsed": deep}


HARMONY = ("<|channel|>analysis<|message|>", "<|end|>")


SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}


def test_templates_with_channels_keep_the_engines_own_grammar(served: Served) -> None:
    found = replace(served, facts=replace(served.facts, think_markers=HARMONY))
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    body = sent(found, response_format=form)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "grammar" not in body
    body = sent(found, tools=[ADD, SUB], tool_choice={"type": "function",
                                                      "function": {"name": "sub"}})  # fmt: skip
    assert [tool["function"]["name"] for tool in body["tools"]] == ["sub"]
    assert body["tool_choice"] == "required"
    form["json_schema"] = {"name": "x", "schema": {"not": SCHEMA}}
    assert refusal(found, response_format=form).param == "response_format.json_schema.schema.not"


def test_a_prompt_that_ends_inside_a_thought_begins_with_its_end(served: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
    markers = ("<think>", "</think>")
    facts = replace(served.facts, think_markers=markers)
    opens = "{% if add_generation_prompt %}<|a|><think>\\n{% endif %}"
    off = sent(replace(served, facts=facts), response_format=form)
    assert "think" not in off["grammar"]
    may = sent(replace(served, facts=facts), response_format=form, reasoning_effort="low")
    assert may["grammar"].startswith('root ::= ("<think>" ')
    always = replace(facts, thinking_variable=None, chat_template=opens)
    must = sent(replace(served, facts=always), response_format=form)
    assert must["grammar"].startswith("root ::= r")
