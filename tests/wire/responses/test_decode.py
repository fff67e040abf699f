"""What Responses clients send, as one request in no dialect."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from helexa.core.chat import ChatRequest, Image, Message, Text, ToolCall, ToolChoice
from helexa.core.errors import (
    HelexaError,
    InvalidJson,
    InvalidRequestBody,
    UnsupportedParameter,
    VisionUnsupported,
)
from helexa.wire.chat_request import encode_chat
from helexa.wire.responses.decode import read_body, referred_items, to_request
from helexa.wire.responses.dialect import Maker, translate_responses

ADD = {"type": "function", "name": "add", "description": "Adds.", "parameters": {"type": "object"}}
SPACE = {
    "type": "namespace",
    "name": "multi_agent_v1",
    "description": "Agents.",
    "tools": [{"type": "function", "name": "close_agent", "parameters": {"type": "object"}}],
}

PATCH = {"type": "custom", "name": "patch", "description": "Edits files."}


def decode(body: Any = None, **members: Any) -> ChatRequest:
    sent = {"model": "m", "input": "hi", **members} if body is None else body
    return to_request(read_body(json.dumps(sent).encode()))[0]


def refusal(body: Any = None, **members: Any) -> HelexaError:
    with pytest.raises(HelexaError) as refused:
        decode(body, **members)
    return refused.value


def turns(*items: Any, **members: Any) -> list[tuple[str, str]]:
    found = decode(input=list(items), **members).messages
    return [(m.role, "".join(p.text for p in m.content if isinstance(p, Text))) for m in found]


CODEX = {
    "model": "m",
    "stream": True,
    "store": False,
    "input": [
        {"type": "message", "id": "client-made", "role": "developer",
         "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "developer",
         "content": [{"type": "input_text", "text": "<env/>"}]},
        {"type": "message", "role": "user",
         "content": [{"type": "input_text", "text": "Close it."}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I close it."}],
         "content": None, "encrypted_content": "of somebody else"},
        {"type": "function_call", "name": "close_agent", "namespace": "multi_agent_v1",
         "arguments": '{"id": 1}', "call_id": "call_a"},
        {"type": "function_call", "name": "add", "arguments": "{}", "call_id": "call_b"},
        {"type": "function_call_output", "call_id": "call_a",
         "output": [{"type": "input_text", "text": "closed"}]},
        {"type": "function_call_output", "call_id": "call_b", "output": "2"},
        {"type": "web_search_call", "id": "ws_x", "status": "completed"},
    ],
    "tools": [ADD, SPACE, {"type": "web_search", "external_web_access": False},
              {"type": "custom", "name": "apply_patch", "format": {"type": "grammar"}}],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "k",
    "client_metadata": {"x": "y"},
}  # fmt: skip


def test_a_codex_session_is_read_whole() -> None:
    request = decode(CODEX)
    assert request.messages == (
        Message("developer", (Text("Be brief."),)),
        Message("developer", (Text("<env/>"),)),
        Message("user", (Text("Close it."),)),
        Message(
            "assistant",
            tool_calls=(
                ToolCall("call_a", "multi_agent_v1__close_agent", '{"id": 1}'),
                ToolCall("call_b", "add", "{}"),
            ),
            reasoning="",
        ),
        Message("tool", (Text("closed"),), tool_call_id="call_a"),
        Message("tool", (Text("2"),), tool_call_id="call_b"),
    )
    assert [tool.name for tool in request.tools] == [
        "add", "multi_agent_v1__close_agent", "apply_patch",
    ]  # fmt: skip
    assert request.parallel_tool_calls is False
    assert request.stream is True
    assert request.reasoning.enabled is None
    assert request.reasoning.effort is None
    assert json.loads(encode_chat(request))["prompt_cache_key"] == "k"


def test_input_may_be_a_string_and_items_may_be_bare() -> None:
    assert turns({"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}) == [
        ("user", "one"),
        ("assistant", "two"),
    ]
    assert decode(input="hi").messages == (Message("user", (Text("hi"),)),)


def test_instructions_come_first() -> None:
    assert turns({"role": "developer", "content": "two"}, {"role": "user", "content": "three"},
                 instructions="one") == [("system", "one"), ("developer", "two"),
                                         ("user", "three")]  # fmt: skip
    listed = [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]
    assert turns({"role": "user", "content": "c"}, instructions=listed) == [
        ("developer", "a"), ("user", "b"), ("user", "c"),
    ]  # fmt: skip


@pytest.mark.parametrize("empty", ["", [], None])
def test_a_warm_up_with_nothing_to_say_is_a_request(empty: Any) -> None:
    request = decode({"model": "m", "input": empty, "max_output_tokens": 1})
    assert [message.role for message in request.messages] == ["user"]
    assert json.loads(encode_chat(request))["messages"] == [{"role": "user", "content": ""}]
    assert request.max_output == 1


def test_a_turn_of_the_assistant_is_thought_then_text_then_calls() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "add", "arguments": "{}"}
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    text = {"role": "assistant", "content": [{"type": "output_text", "text": "so"}]}
    messages = decode(input=[thought, text, call, text]).messages
    assert messages == (
        Message("assistant", (Text("so"),), (ToolCall("c", "add", "{}"),), "hm"),
        Message("assistant", (Text("so"),)),
    )
    assert turns(text, text) == [("assistant", "so")] * 2
    again = decode(input=[text, thought, text, call, thought, call]).messages
    assert [message.reasoning for message in again] == ["", "hm", "hm"]
    assert [len(message.tool_calls) for message in again] == [0, 1, 1]
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    assert turns(refused) == [("assistant", "No.")]


def test_a_thought_is_what_its_item_says_else_what_we_have_sealed() -> None:
    said = [{"type": "reasoning_text", "text": "hm"}]
    for item, thought in (
        ({"content": said, "encrypted_content": "aGVsbG8gd29ybGQhIQ=="}, "hm"),
        ({"summary": said, "encrypted_content": "aGVsbG8gd29ybGQhIQ=="}, ""),  # another's
        ({"summary": said}, "hm"),
    ):
        answer = {"role": "assistant", "content": "so"}
        (message,) = decode(input=[{"type": "reasoning", **item}, answer]).messages[:1]
        assert message.reasoning == thought


def test_images_go_along_and_other_files_are_refused_by_path() -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    request = decode(input=[{"role": "user", "content": [image]}])
    assert request.messages[0].content == (Image("data:image/png;base64,AA==", "low"),)
    for part in ({"type": "input_file", "file_id": "f"}, {"type": "input_image", "file_id": "f"}):
        found = refusal(input=[{"role": "user", "content": [part]}])
        assert isinstance(found, UnsupportedParameter)
        assert found.param == "input[0].content[0]"


def test_files_of_text_are_shown_as_their_text() -> None:
    data = "data:text/plain;base64,aGVsbG8="
    file = {"type": "input_file", "filename": "a.txt", "file_data": data}
    [message] = decode(input=[{"role": "user", "content": [file]}]).messages
    assert message.content == (Text("a.txt\nhello"),)


def test_calls_of_other_providers_tools_are_read_as_calls() -> None:
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "patch", "input": "a\n"}
    output = {"type": "custom_tool_call_output", "call_id": "c", "output": "done"}
    messages = decode(input=[custom, output]).messages
    assert messages[0].tool_calls == (ToolCall("c", "patch", '{"input":"a\\n"}'),)
    assert messages[1] == Message("tool", (Text("done"),), tool_call_id="c")


@pytest.mark.parametrize(
    ("output", "text"),
    [("a", "a"), ([{"type": "input_text", "text": "b"}], "b"), ({"x": 1}, '{"x": 1}'),
     ([1, 2], "[1, 2]"), (None, "")],
)  # fmt: skip
def test_outputs_may_be_texts_parts_or_other_json(output: Any, text: str) -> None:
    item = {"type": "function_call_output", "call_id": "c", "output": output}
    assert turns(item) == [("tool", text)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", ToolChoice("auto")),
        ("none", ToolChoice("none")),
        ("required", ToolChoice("required")),
        ({"type": "function", "name": "add"}, ToolChoice("required", ("add",))),
        ({"type": "custom", "name": "patch"}, ToolChoice("required", ("patch",))),
        ({"type": "function", "name": "close_agent", "namespace": "multi_agent_v1"},
         ToolChoice("required", ("multi_agent_v1__close_agent",))),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function",
                                                                  "name": "add"}]},
         ToolChoice("required", ("add",))),
    ],
)  # fmt: skip
def test_tool_choices(choice: Any, expected: ToolChoice) -> None:
    assert decode(tools=[ADD, SPACE, PATCH], tool_choice=choice).tool_choice == expected


def test_functions_reach_the_model_as_they_were_sent_and_each_under_a_name_of_its_own() -> None:
    twin = {"type": "function", "name": "multi_agent_v1__close_agent", "strict": True}
    hosted = {**SPACE, "tools": [*SPACE["tools"], {"type": "web_search"}]}
    call = {"type": "function_call", "call_id": "c", "name": "close_agent", "arguments": "{}"}
    body = {
        "model": "m", "tools": [{**ADD, "strict": False}, twin, hosted, {"type": "computer"}],
        "input": [{**call, "namespace": "multi_agent_v1"}, {**call, "namespace": "other"}],
        "tool_choice": {"type": "function", "name": "close_agent", "namespace": "multi_agent_v1"},
    }  # fmt: skip
    found = to_request(read_body(json.dumps(body).encode()))
    add, own, spaced = found.request.tools
    assert (add.name, add.description, add.strict) == ("add", "Adds.", None)
    assert add.parameters is not None
    assert json.loads(bytes(add.parameters)) == {"type": "object"}
    assert (own.name, own.parameters, own.strict) == ("multi_agent_v1__close_agent", None, True)
    assert spaced.name == "multi_agent_v1__close_agent_"
    assert found.names.shown(spaced.name) == ("multi_agent_v1", "close_agent")
    calls = [call.name for message in found.request.messages for call in message.tool_calls]
    assert calls == [spaced.name, "other__close_agent"]
    assert found.request.tool_choice == ToolChoice("required", (spaced.name,))
    assert found.left_out == ("web_search", "computer")


def test_tools_of_which_none_can_be_called_are_none() -> None:
    allowed = {"type": "allowed_tools", "tools": [{"type": "web_search"}]}
    assert decode(tools=[ADD], tool_choice=allowed).tool_choice == ToolChoice("none")
    assert decode(tool_choice="auto").tool_choice == ToolChoice("auto")
    required = refusal(tools=[ADD], tool_choice={**allowed, "mode": "required"})
    assert required.param == "tool_choice"
    nameless = refusal(tools=[{"type": "namespace", "tools": []}])
    assert nameless.param == "tools[0].name"


def test_a_custom_tool_is_offered_as_a_function_of_one_text() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /x+/"}
    body = json.loads(
        encode_chat(decode(tools=[{**PATCH, "format": grammar}, {**PATCH, "name": "b"}]))
    )
    bound, free = (tool["function"] for tool in body["tools"])
    assert (bound["name"], bound["description"]) == ("patch", "Edits files.")
    text = bound["parameters"]["properties"]["input"]
    assert (text["type"], bound["parameters"]["required"]) == ("string", ["input"])
    assert "lark" in text["description"]
    assert text["description"].endswith("start: /x+/")
    assert "lark" not in free["parameters"]["properties"]["input"]["description"]


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "sub"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "function", "name": "f", "parameters": []}]}, "tools[0].parameters"),
        ({"input": [{"role": "boss", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
         "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call", "call_id": "f"}]}, "input[0].name"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
         "input[0].content[0].text"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input[0]"),
        ({"input": 5}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"background": True}, "background"),
        ({"conversation": "conv_a"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": 1}}}, "text.format.schema"),
        ({"temperature": "hot"}, "temperature"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"tools": [{"type": "mcp", "server_label": "s", "server_url": "https://a"}]}, "tools[0]"),
        ({"input": [{"type": "compaction", "id": "c", "encrypted_content": "x"}]}, "input[0]"),
        ({"input": [{"type": "configuration_update", "text": {}}]}, "input[0]"),
        ({"input": [{"type": "additional_tools", "tools": [5]}]}, "input[0].tools"),
        ({"input": [{"type": "additional_tools", "tools": [{"type": "function"}]}]},
         "input[0].tools[0].name"),
    ],
)  # fmt: skip
def test_refusals_name_the_path(members: Any, param: str) -> None:
    assert refusal(**members).param == param


@pytest.mark.parametrize(
    ("of_chat", "of_client"),
    [
        ("messages[0]", "instructions"),
        ("messages[1].content[0]", "previous_response_id"),
        ("messages[2].content[1].text", "input[0].content[1].text"),
        ("messages[2].content[1].image_url.url", "input[0].content[1].image_url"),
        ("messages[3].tool_calls[1].function", "input[1].tool_calls[1].function"),
        ("messages[4].content[0]", "input[4].output[0]"),
        ("messages[5].content[0]", "input[5].content"),
        ("tools[0].function.parameters.not", "tools[1].parameters.not"),
        ("tools[1].function.parameters.not", "tools[2].tools[0].parameters.not"),
        ("tools[2].function.name", "input[6].tools[0].name"),
        ("response_format.json_schema.schema.not", "text.format.schema.not"),
        ("response_format", "text.format"),
        ("reasoning_effort", "reasoning.effort"),
        ("logprobs", "include"),
        ("temperature", "temperature"),
        ("messages", "input"),
    ],
)
def test_a_nodes_refusal_names_the_member_that_the_client_wrote(
    of_chat: str, of_client: str
) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
    text = {"type": "input_text", "text": "x"}
    call = {"type": "function_call", "name": "add", "arguments": "{}"}
    body = {
        "model": "m", "instructions": "Be brief.", "include": ["message.output_text.logprobs"],
        "input": [
            {"role": "user", "content": [text, image]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "t"}]},
            {**call, "call_id": "a"}, {**call, "call_id": "b", "arguments": {"c": 1}},
            {"type": "function_call_output", "call_id": "a", "output": [image]},
            {"role": "user", "content": "y"},
            {"type": "additional_tools", "role": "developer", "tools": [{**ADD, "name": "sub"}]},
        ],
        "tools": [{"type": "web_search"}, ADD, SPACE],
    }  # fmt: skip
    before = msgspec.json.encode({"type": "message", "role": "user", "content": "before"})
    maker = Maker(lambda prefix: f"{prefix}a", lambda: 1.0)
    made = translate_responses(read_body(json.dumps(body).encode()), maker, history=[before])
    told = made.restated(VisionUnsupported(f"`{of_chat}` cannot be.", param=of_chat))
    assert (told.param, told.message) == (of_client, f"`{of_client}` cannot be.")
    sent = json.loads(made.body)
    assert [tool["function"]["name"] for tool in sent["tools"]][-1] == "sub"
    assert sent["messages"][3]["tool_calls"][1]["function"]["arguments"] == '{"c":1}'


def test_what_is_no_json_is_said_to_be_none() -> None:
    with pytest.raises(InvalidJson):
        read_body(b"{")
    with pytest.raises(InvalidRequestBody):
        read_body(b'{"input": "hi"}')


def test_null_is_unset_and_unknown_members_are_passed_over() -> None:
    nulls = dict.fromkeys(("tools", "tool_choice", "text", "reasoning", "include", "metadata",
                           "previous_response_id", "conversation", "store", "top_p"))  # fmt: skip
    assert decode(**nulls, nonsense={"a": 1}) == decode()


def test_formats_sampling_and_effort_reach_chat() -> None:
    schema = {"type": "object", "properties": {"b": {}, "a": {}}}
    form = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    request = decode(
        text={"format": form}, temperature=0.5, top_p=0.9, top_logprobs=2, max_output_tokens=32000,
        reasoning={"effort": "xhigh", "summary": "auto"}, user="u",
    )  # fmt: skip
    body = json.loads(encode_chat(request))
    assert body["response_format"]["json_schema"] == {"name": "n", "schema": schema, "strict": True}
    assert (body["temperature"], body["top_p"], body["logprobs"], body["top_logprobs"]) == (
        0.5, 0.9, True, 2,
    )  # fmt: skip
    assert body["reasoning_effort"] == "high"
    assert decode(text={"format": {"type": "json_object"}}).format.kind == "json_object"
    template = {"enable_thinking": True}
    assert json.loads(encode_chat(decode(chat_template_kwargs=template)))[
        "chat_template_kwargs"
    ] == (template)
    asked = translate_responses(
        read_body(b'{"model": "m", "input": "hi", "top_logprobs": 2}'),
        Maker(lambda prefix: prefix, lambda: 1.0),
    )
    assert asked.restated(VisionUnsupported("no", param="logprobs")).param == "top_logprobs"
    assert body["max_completion_tokens"] == 32000
    assert list(json.loads(encode_chat(request))["response_format"]["json_schema"]["schema"]) == [
        "type",
        "properties",
    ]


def test_tools_that_earlier_items_brought_are_all_offered() -> None:
    brought = [{"type": "additional_tools", "role": "developer", "tools": [{**ADD, "name": name}]}
               for name in ("one", "two", "one")]  # fmt: skip
    body = read_body(b'{"model": "m", "input": "hi"}')
    request, _, paths, _ = to_request(body, [msgspec.json.encode(item) for item in brought])
    assert [tool.name for tool in request.tools] == ["one", "two"]
    assert paths["tools[1].function"] == "previous_response_id.tools[0]"
    assert decode(input=[{"type": "additional_tools", "tools": None}]).tools == ()


def test_history_and_referred_items_stand_before_and_in_the_input() -> None:
    body = read_body(
        json.dumps({"model": "m", "input": [{"type": "item_reference", "id": "msg_a"},
                                            {"role": "user", "content": "three"}]}).encode()
    )  # fmt: skip
    assert referred_items(body) == ["msg_a"]
    assert referred_items(read_body(b'{"model": "m", "input": "msg_a"}')) == []
    one = msgspec.json.encode({"type": "message", "role": "user", "content": "one"})
    two = msgspec.json.encode({"type": "message", "role": "assistant", "content": "two"})
    request = to_request(body, [one], {"msg_a": two}).request
    assert [m.role for m in request.messages] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("name", "value", "here"),
    [
        ("messages", [{"role": "user", "content": "hi"}], "`input`"),
        ("response_format", {"type": "json_object"}, "`text.format`"),
        ("max_tokens", 5, "`max_output_tokens`"),
        ("max_completion_tokens", 5, "`max_output_tokens`"),
        ("reasoning_effort", "low", "`reasoning.effort`"),
        ("functions", [{"name": "f"}], "`tools`"),
        ("stop", "END", "/v1/chat/completions"),
        ("n", 2, "/v1/chat/completions"),
        ("logit_bias", {"5": 1}, "/v1/chat/completions"),
    ],
)
def test_members_of_chat_are_refused_with_their_name_here(name: str, value: Any, here: str) -> None:
    error = refusal(**{name: value})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == name
    assert here in error.message


def test_members_of_chat_that_say_nothing_are_passed_over() -> None:
    decode(messages=None, response_format=None, stop=[], n=1, logit_bias={}, max_tokens=None)
