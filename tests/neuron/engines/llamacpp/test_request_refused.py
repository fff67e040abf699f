"""What no request to llama.cpp may hold: refused with its path, and never a fault of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.neuron.engines.llamacpp.test_request import ADD, HI, refusal, sent
from tests.pictures import part, png

from helexa.core.errors import (
    InvalidJson,
    InvalidRequestBody,
    MissingModelField,
    RequestRefused,
    UnsupportedParameter,
    VisionUnsupported,
)
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.llamacpp.clean import engine_request

STRICT = {"name": "f", "strict": True}


def image() -> dict[str, Any]:
    return part(png())


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": ["hi"]}, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role"),
        ({"messages": [{"role": "boss", "content": "hi"}]}, "messages[0].role"),
        ({"messages": [*HI, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        ({"stream": "yes"}, "stream"),
        ({"logprobs": 2}, "logprobs"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": True}, "n"),
        ({"stop": 5}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [5]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [ADD], "tool_choice": "banana"}, "tool_choice"),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "mul"}}},
            "tool_choice",
        ),
        ({"chat_template_kwargs": 5}, "chat_template_kwargs"),
        ({"modalities": "text"}, "modalities"),
        ({"messages": [{**HI[0], "name": 5}]}, "messages[0].name"),
        ({"tools": [{"function": {"name": "f", "description": 5}}]},
         "tools[0].function.description"),
        ({"tools": [ADD], "tool_choice": {"type": "function", "function": "add"}}, "tool_choice"),
        ({"tools": [ADD], "tool_choice": {"type": "allowed_tools", "allowed_tools": "add"}},
         "tool_choice.allowed_tools"),
        ({"tools": [ADD], "tool_choice": {"allowed_tools": {"mode": "auto", "tools": ["add"]}}},
         "tool_choice.allowed_tools.tools"),
        ({"tools": [{"function": {**STRICT, "parameters": {"required": [["a"]]}}}]},
         "tools[0].function.parameters.required"),
    ],
)  # fmt: skip
def test_wrong_types_are_refused_with_their_path(
    served: Served, body: dict[str, Any], param: str
) -> None:
    error = refusal(served, **body)
    assert type(error) is InvalidRequestBody
    assert error.param == param
    assert param.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0] in error.message


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "sunny"},
    ],
)
def test_turns_of_the_old_function_calls_are_refused_since_templates_leave_them_out(
    served: Served, turn: dict[str, Any]
) -> None:
    error = refusal(served, messages=[*HI, turn])
    assert type(error) is UnsupportedParameter
    assert error.param == "messages[1]"
    assert "tool_calls" in error.message


def test_files_of_text_are_shown_as_their_text(served: Served) -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "aGVsbG8="}}
    [message] = sent(served, messages=[{"role": "user", "content": [file]}])["messages"]
    assert message["content"] in ("a.txt\nhello", [{"type": "text", "text": "a.txt\nhello"}])
    kept = {"type": "file", "file": {"file_id": "file-abc"}}
    error = refusal(served, messages=[{"role": "user", "content": [kept]}])
    assert type(error) is UnsupportedParameter
    assert error.param == "messages[0].content[0]"


WHOLE: dict[str, Any] = {
    "modalities": ["text"],
    "stop": ["x"],
    "stream_options": {"include_usage": True},
    "chat_template_kwargs": {"enable_thinking": False},
    "thinking": {"type": "enabled", "budget_tokens": 5},
    "reasoning": {"effort": "low"},
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"$ref": "#/$defs/d", "$defs": {"d": {
            "type": "object", "properties": {"a": {"anyOf": [{"type": ["string", "null"]}]}},
            "required": ["a"], "allOf": [{"required": ["a"], "properties": {"a": {}}}],
        }}}},
    },
    "tools": [{"type": "function", "function": {**STRICT, "description": "d", "parameters": {
        "type": "object", "properties": {"a": {"enum": ["b"]}}, "required": ["a"],
    }}}],
    "tool_choice": {"type": "allowed_tools", "allowed_tools": {
        "mode": "required", "tools": [{"type": "function", "function": {"name": "f"}}],
    }},
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
        {"role": "assistant", "content": None, "reasoning_content": "r", "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        ]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
    ],
}  # fmt: skip


def spoilt(value: Any, with_: Any) -> Iterator[Any]:
    """``value`` with each of its members in turn replaced."""
    yield with_
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            for other in spoilt(value[key], with_):
                whole = value.copy()
                whole[key] = other
                yield whole


@pytest.mark.parametrize("choice", [True, False], ids=["forced", "free"])
@pytest.mark.parametrize(
    "bad", [None, True, -1, 1.5, "x", [], [None], ["x"], [[]], {}, {"x": 1}], ids=repr
)
def test_a_member_of_any_wrong_kind_is_served_or_refused_and_never_a_fault_of_ours(
    served: Served, bad: Any, choice: bool
) -> None:
    whole = WHOLE if choice else {k: v for k, v in WHOLE.items() if k != "tool_choice"}
    for name, value in whole.items():
        for other in spoilt(value, bad):
            with contextlib.suppress(RequestRefused):
                sent(served, **{**whole, name: other})


def test_nulls_inside_of_messages_and_tools_are_unset(served: Served) -> None:
    call = {"id": None, "type": None, "function": {"name": "sub", "arguments": None}}
    unset = dict.fromkeys(("content", "name", "reasoning_content", "refusal", "function_call"))
    said = {"role": "assistant", **unset, "tool_calls": [call]}
    result = {"role": "tool", "content": "1", "tool_call_id": None, "name": None}
    tool = {"type": "function", "function": {"name": "sub", "description": None, "strict": None}}
    body = sent(served, messages=[*HI, said, result], tools=[tool])
    assert body["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [
            {"type": "function", "function": {"name": "sub", "arguments": "{}"}}]},
        {"role": "tool", "content": "1"},
    ]  # fmt: skip
    assert set(body["tools"][0]["function"]) == {"name", "parameters"}


@pytest.mark.parametrize(
    "body",
    [
        {"moderation": {"model": "m", "policy": {"input": {"mode": "block"}}}},
        {"web_search_options": {}},
        {"tools": [ADD], "logprobs": True},
        {"tools": [{"type": "custom", "custom": {"name": "patch"}}]},
    ],
)
def test_what_would_be_missed_in_silence_is_refused(served: Served, body: dict[str, Any]) -> None:
    found = refusal(served, **body)
    assert isinstance(found, UnsupportedParameter)
    assert (found.param or "").partition("[")[0] in body


def test_broken_json_and_a_missing_model_have_codes_of_their_own(served: Served) -> None:
    for raw, expected in ((b"{", InvalidJson), (b'{"messages": []}', MissingModelField)):
        with pytest.raises(expected):
            engine_request("chat", raw, served, "abc", created=1)
    with pytest.raises(InvalidRequestBody):
        engine_request("chat", b"[]", served, "abc", created=1)
    assert refusal(served, model=5).param == "model"


def test_an_image_for_a_model_that_cannot_see_is_refused(served: Served) -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "what?"}, image()]}
    error = refusal(served, messages=[message])
    assert isinstance(error, VisionUnsupported)
    assert error.param == "messages[0].content[1]"
    seeing = replace(served, facts=replace(served.facts, capabilities=("text", "vision")))
    assert sent(seeing, messages=[message])["messages"][0]["content"][1] == image()


def test_sound_is_an_unsupported_parameter(served: Served) -> None:
    part = {"type": "input_audio", "input_audio": {}}
    found = refusal(served, messages=[{"role": "user", "content": [part]}])
    assert isinstance(found, UnsupportedParameter)
    assert isinstance(refusal(served, modalities=["text", "audio"]), UnsupportedParameter)
