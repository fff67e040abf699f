"""A request as nodes read it: everything that was asked, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from helexa.core.chat import (
    ChatRequest,
    Image,
    Message,
    Reasoning,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
)
from helexa.wire.chat_request import encode_chat

GOLDEN = Path(__file__).parent / "golden"
HELLO = (Message("user", (Text("hi"),)),)


def encoded(**members: Any) -> dict[str, Any]:
    request = ChatRequest(**{"model": "m", "messages": HELLO, **members})
    found: dict[str, Any] = json.loads(encode_chat(request))
    return found


def test_nothing_is_added_that_was_not_asked_for() -> None:
    assert encoded() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_a_stream_asks_for_its_usage() -> None:
    found = encoded(stream=True)
    assert found["stream"] is True
    assert found["stream_options"] == {"include_usage": True}


def test_turns_keep_their_roles_parts_calls_reasoning_and_order() -> None:
    turns = (
        Message("developer", (Text("be"), Text("brief"))),
        Message("user", (Text("what is it?"), Image("data:image/png;base64,AA", "low"))),
        Message("assistant", (), (ToolCall("a", "f", '{"x": 1 }'),), reasoning="hm"),
        Message("tool", (Text("one"),), tool_call_id="a"),
        Message("system", (Text("late"),)),
    )
    assert encoded(messages=turns)["messages"] == [
        {"role": "developer", "content": [{"type": "text", "text": "be"},
                                          {"type": "text", "text": "brief"}]},
        {"role": "user", "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA",
                                                "detail": "low"}}]},
        {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1 }'}}]},
        {"role": "tool", "content": "one", "tool_call_id": "a"},
        {"role": "system", "content": "late"},
    ]  # fmt: skip


def test_tools_keep_their_schema_byte_by_byte() -> None:
    schema = b'{ "type":"object", "properties":{"b":{},"a":{}} }'
    tools = (Tool("f", "does", msgspec.Raw(schema), strict=True), Tool("g"))
    request = ChatRequest(model="m", messages=HELLO, tools=tools, parallel_tool_calls=False)
    raw = encode_chat(request)
    assert schema in raw
    found = json.loads(raw)
    assert found["parallel_tool_calls"] is False
    assert found["tools"][0]["function"]["strict"] is True
    assert found["tools"][1]["function"] == {
        "name": "g",
        "parameters": {"type": "object", "properties": {}},
    }


def test_each_tool_choice_has_its_form() -> None:
    def choice(*args: Any) -> Any:
        return encoded(tools=(Tool("f"), Tool("g")), tool_choice=ToolChoice(*args))["tool_choice"]

    named = [{"type": "function", "function": {"name": name}} for name in "fg"]
    assert [choice(mode) for mode in ("auto", "none", "required")] == ["auto", "none", "required"]
    assert choice("required", ("f",)) == named[0]
    assert choice("auto", ("f", "g")) == {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": named},
    }


def test_a_choice_without_tools_is_not_sent() -> None:
    assert "tool_choice" not in encoded(tool_choice=ToolChoice("none"))


def test_formats_sampling_caps_and_users_have_their_members() -> None:
    schema = msgspec.Raw(b'{"type":"object"}')
    found = encoded(
        format=ResponseFormat("json_schema", "x", schema, strict=True),
        sampling=Sampling(0.5, 0.9, 40, 7, 0.1, 0.2, ("END",), logprobs=True, top_logprobs=2),
        max_output=9,
        user="u",
    )
    assert found["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
    }
    sampled = {name: found[name] for name in ("temperature", "top_p", "top_k", "seed")}
    assert sampled == {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "seed": 7}
    assert (found["stop"], found["logprobs"], found["top_logprobs"]) == (["END"], True, 2)
    assert (found["max_completion_tokens"], found["prompt_cache_key"]) == (9, "u")
    assert encoded(format=ResponseFormat("json_object"))["response_format"] == {
        "type": "json_object"
    }


def test_thinking_is_asked_for_by_effort_or_by_the_templates_switch() -> None:
    assert encoded(reasoning=Reasoning(effort="low"))["reasoning_effort"] == "low"
    switched = encoded(reasoning=Reasoning(enabled=True, budget=64))
    assert switched["chat_template_kwargs"] == {"enable_thinking": True}
    assert switched["thinking_budget_tokens"] == 64
    own = encoded(reasoning=Reasoning(enabled=True), template=msgspec.Raw(b'{"a":1}'))
    assert own["chat_template_kwargs"] == {"a": 1, "enable_thinking": True}


def test_a_request_with_everything_is_what_the_golden_file_says() -> None:
    schema = msgspec.Raw(b'{"type":"object"}')
    request = ChatRequest(
        model="m",
        messages=(
            Message("system", (Text("Be brief."),)),
            Message("user", (Text("What is it?"), Image("data:image/png;base64,QQ", "low"))),
            Message("assistant", (Text("I look."),), (ToolCall("a", "f", '{"x": 1}'),), "hm"),
            Message("tool", (Text("one"),), tool_call_id="a"),
            Message("user", (Text("And now?"),)),
        ),
        stream=True,
        tools=(Tool("f", "Does it.", schema, strict=True), Tool("g")),
        tool_choice=ToolChoice("required", ("f",)),
        parallel_tool_calls=False,
        format=ResponseFormat("json_schema", "x", schema, strict=True),
        sampling=Sampling(0.5, 0.9, 40, 7, 0.1, 0.2, ("END",), logprobs=True, top_logprobs=2),
        reasoning=Reasoning(enabled=True, effort="low", budget=64),
        max_output=9,
        user="u",
    )
    assert encode_chat(request) + b"\n" == (GOLDEN / "chat_request.json").read_bytes()


def test_no_prompt_is_shown_when_a_request_is_printed() -> None:
    assert "hi" not in repr(ChatRequest(model="m", messages=HELLO))
