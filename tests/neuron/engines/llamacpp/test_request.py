"""What clients send, on its way to llama.cpp: refused with a path, or repaired."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.pictures import part, png

from helexa.core.errors import (
    HelexaError,
    InvalidJson,
    InvalidRequestBody,
    MissingModelField,
    RequestRefused,
    UnsupportedOperation,
    UnsupportedParameter,
    VisionUnsupported,
)
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.llamacpp.chat import _ORDINARY
from helexa.neuron.engines.llamacpp.clean import engine_request
from helexa.neuron.models.template import read_template

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
SUB = {"type": "function", "function": {"name": "sub"}}
STRICT = {"name": "f", "strict": True}


def sent(served: Served, route: str = "chat", /, **body: Any) -> Any:
    """What the engine would get; ``header_asks`` stands for the header."""
    thinking = bool(body.pop("header_asks", False))
    members = {"messages": HI, **body} if route == "chat" else body
    raw = json.dumps({"model": "asked", **members}).encode()
    request = engine_request(route, raw, served, "abc", created=1, thinking=thinking)
    return json.loads(request.body)


def refusal(served: Served, route: str = "chat", /, **body: Any) -> HelexaError:
    with pytest.raises(HelexaError) as refused:
        sent(served, route, **body)
    return refused.value


def test_a_request_of_ordinary_members_becomes_what_every_check_would_have_made_of_it(
    served: Served,
) -> None:
    said: dict[str, Any] = dict.fromkeys(("temperature", "top_p", "presence_penalty"), 0.5)
    said |= {"frequency_penalty": 1, "stream": True, "stream_options": {"include_usage": False}}
    said |= {"max_tokens": 7, "max_completion_tokens": 5, "seed": 3, "stop": ["x"], "user": "u"}
    assert {"model", "messages", *said} == _ORDINARY
    long_way = sent(served, **said, unheard_of=1)
    assert long_way.pop("unheard_of") == 1
    assert sent(served, **said) == long_way


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


def test_the_engine_always_streams_and_reports(served: Served) -> None:
    for stream in (True, False):
        body = sent(served, stream=stream, stream_options={"include_usage": False})
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}
        assert body["return_progress"] is True
        assert body["timings_per_token"] is True
        assert body["model"] == "org/model"


def test_unknown_members_survive_and_nulls_are_unset(served: Served) -> None:
    body = sent(served, top_a=0.5, custom={"a": [1]}, temperature=None, stop=None)
    assert body["top_a"] == 0.5
    assert body["custom"] == {"a": [1]}
    assert "temperature" not in body
    assert "stop" not in body


def test_what_would_step_around_the_node_is_dropped(served: Served) -> None:
    body = sent(served, id_slot=1, cache_prompt=False, reasoning_format="none", n_predict=5000)
    dropped = {"id_slot", "cache_prompt", "reasoning_format", "n_predict"}
    assert not dropped & set(body)
    raw = {"reasoning_format": "none", "chat_parser": "{}", "preserved_tokens": ["<think>"]}
    assert not raw.keys() & sent(served, "completions", prompt="hi", **raw).keys()


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize("name", ["repeat_last_n", "dry_penalty_last_n"])
def test_an_engine_looks_back_no_further_than_its_context(
    served: Served, route: str, name: str
) -> None:
    for given, used in ((2**31 - 1, served.plan.context), (2e9, served.plan.context), (64, 64)):
        assert sent(served, route, prompt="hi", **{name: given})[name] == used


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"samplers": ["top_k"] * 100_000}, "samplers"),
        ({"samplers": "k" * 100_000}, "samplers"),
        ({"dry_sequence_breakers": ["\n"] * 1000}, "dry_sequence_breakers"),
        ({"stop": [str(n) for n in range(1000)]}, "stop"),
        ({"logit_bias": [[1, 1]] * 300_000}, "logit_bias"),
        ({"grammar": "root ::= [a]", "grammar_lazy": True}, "grammar_lazy"),
        ({"grammar_triggers": [{"type": 2, "value": "((a+)+)+$"}]}, "grammar_triggers"),
    ],
)
def test_what_would_hold_up_everybody_elses_tokens_is_refused(
    served: Served, route: str, body: dict[str, Any], param: str
) -> None:
    error = refusal(served, route, prompt="hi", **body)
    assert isinstance(error, RequestRefused)
    assert error.param == param
    assert f"`{param}`" in error.message


@pytest.mark.parametrize("piece", ["[", '"', "[^", '"\\', "{1,", "{1", "#["])
def test_what_a_grammar_never_closes_is_read_once(served: Served, piece: str) -> None:
    """And not again from every bracket on, for hours."""
    endless = "root ::= " + piece * 200_000
    assert sent(served, "completions", prompt="hi", grammar=endless)["grammar"] == endless


@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        ({}, 1000),
        ({"max_tokens": 32_000}, 1000),
        ({"max_completion_tokens": 32_000}, 1000),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 30}, 9),
        ({"max_tokens": -1}, 1000),
        ({"n_predict": 3}, 3),
    ],
)
def test_output_caps_are_clamped_never_refused(
    served: Served, caps: dict[str, int], expected: int
) -> None:
    body = sent(served, **caps)
    assert body["max_tokens"] == expected
    assert "max_completion_tokens" not in body


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


def test_operations_the_model_was_not_loaded_for_are_refused(served: Served) -> None:
    without = replace(served, plan=replace(served.plan, embeddings=False))
    found = refusal(without, "embeddings", input="x")
    assert isinstance(found, UnsupportedOperation)
    assert isinstance(refusal(served, "rerank", query="x", documents=["y"]), UnsupportedOperation)
    assert isinstance(refusal(served, "speech"), UnsupportedOperation)


def test_embeddings_and_rerank_are_checked(served: Served) -> None:
    assert refusal(served, "embeddings").param == "input"
    assert refusal(served, "embeddings", input=[]).param == "input"
    found = refusal(served, "embeddings", input="x", encoding_format="hex")
    assert found.param == "encoding_format"
    ranks = replace(served, plan=replace(served.plan, rerank=True, embeddings=False))
    assert refusal(ranks, "rerank", query="x", documents=[5]).param == "documents[0]"
    assert refusal(ranks, "rerank", query="x", documents=["a"], top_n=0).param == "top_n"
    body = sent(ranks, "rerank", query="x", documents=["a", {"text": "b"}], return_documents=True)
    assert body["documents"] == ["a", "b"]
    assert "return_documents" not in body


def test_legacy_prompts_are_texts_or_tokens(served: Served) -> None:
    assert sent(served, "completions", prompt=["a"])["prompt"] == "a"
    assert sent(served, "completions", prompt=[1, 2])["prompt"] == [1, 2]
    assert sent(served, "completions", prompt=[[1, 2]])["prompt"] == [1, 2]
    assert refusal(served, "completions").param == "prompt"
    assert refusal(served, "completions", prompt="a", logprobs=True).param == "logprobs"
    assert sent(served, "completions", prompt="a", logprobs=2)["logprobs"] == 2
    assert isinstance(refusal(served, "completions", prompt=["a", "b"]), UnsupportedParameter)


@pytest.mark.parametrize("name", ["logprobs", "n_probs"])
def test_a_text_completion_shows_no_whole_vocabulary_beside_each_token(
    served: Served, name: str
) -> None:
    for beyond in (1000, -1, 1.5):
        assert refusal(served, "completions", prompt="a", **{name: beyond}).param == name
    assert sent(served, "completions", prompt="a", **{name: 20})[name] == 20


@pytest.mark.parametrize("wish", [{"echo": True}, {"suffix": "b"}, {"best_of": 3}])
def test_what_no_text_completion_does_is_refused_and_its_absence_is_not(
    served: Served, wish: dict[str, Any]
) -> None:
    found = refusal(served, "completions", prompt="a", **wish)
    assert isinstance(found, UnsupportedParameter)
    assert [found.param] == list(wish)
    assert "best_of" not in sent(
        served, "completions", prompt="a", echo=False, suffix="", best_of=1
    )
    assert sent(served, "completions", prompt="a", n=2, best_of=2)["n"] == 2


def test_empty_stop_texts_are_none(served: Served) -> None:
    assert sent(served, stop="")["stop"] == []
    assert sent(served, stop=["", "END", ""])["stop"] == ["END"]
    assert sent(served, stop="END")["stop"] == "END"


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


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}, "grammar"),
        ({"response_format": {}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}]},
         "tool_choice"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"n_probs": 1000}, "n_probs"),
        ({"tool_choice": "always", "tools": [ADD]}, "tool_choice"),
    ],
)  # fmt: skip
def test_formats_and_choices_that_cannot_be_are_refused(
    served: Served, body: dict[str, Any], param: str
) -> None:
    assert refusal(served, **body).param == param
