"""What no Messages request may hold: refused with the path that the client wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.wire.messages.test_decode import TOOL, USER, refused, text, user

from helexa.core.errors import (
    ContextLengthExceeded,
    InvalidJson,
    InvalidRequestBody,
    UnsupportedParameter,
    VisionUnsupported,
)
from helexa.wire import errors
from helexa.wire.messages.decode import decode_messages
from helexa.wire.messages.dialect import translate_messages


@pytest.mark.parametrize(
    ("of_chat", "of_client"),
    [
        ("messages[0].content", "system.content"),
        ("messages[1].content[1]", "messages[1].content[0]"),
        ("messages[1].content[1].image_url.url", "messages[1].content[0].source"),
        ("messages[2].content", "messages[2].content[1].content"),
        ("messages[3].content[0].text", "messages[2].content[0].text"),
        ("tools[0].function.parameters.properties.a.not", "tools[1].input_schema.properties.a.not"),
        ("tools[0].function.name", "tools[1].name"),
        ("response_format.json_schema.schema.not", "output_config.format.schema.not"),
        ("stop", "stop_sequences"),
        ("messages", "messages"),
        ("temperature", "temperature"),
    ],
)
def test_a_nodes_refusal_names_the_member_that_the_client_wrote(
    of_chat: str, of_client: str
) -> None:
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    body: dict[str, Any] = {
        "model": "m", "system": "Be brief.",
        "messages": [
            USER, user(image),
            user(image, {"type": "tool_result", "tool_use_id": "a", "content": "one"}),
        ],
        "tools": [{"type": "web_search_20250305", "name": "web_search"}, TOOL],
        "output_config": {"format": {"type": "json_schema", "schema": {}}},
    }  # fmt: skip
    made = translate_messages(json.dumps(body).encode(), "abc")
    told = made.restated(VisionUnsupported(f"`{of_chat}` cannot be.", param=of_chat, extra=1))
    assert (told.param, told.message) == (of_client, f"`{of_client}` cannot be.")
    assert isinstance(told, VisionUnsupported)
    assert told.extras == {"extra": 1}
    assert made.restated(ContextLengthExceeded(9, 5)).param == "messages"
    body["output_format"] = body.pop("output_config")["format"]
    before = translate_messages(json.dumps(body).encode(), "abc")
    schema = VisionUnsupported("no", param="response_format.json_schema.schema.not")
    assert before.restated(schema).param == "output_format.schema.not"


def test_a_thread_is_refused_in_the_coded_way() -> None:
    error = refused(thread={"type": "create"})
    rendered = errors.render(error, "anthropic", "abc")
    assert rendered.status == 400
    assert json.loads(rendered.body)["error"]["details"] == {
        "error_code": "thread_unsupported_request",
        "unsupported": ["thread"],
    }


@pytest.mark.parametrize(
    ("turn", "param"),
    [
        (user({"type": "server_tool_use", "id": "a"}), "messages[0].content[0]"),
        (user(text("a"), {"type": "text"}), "messages[0].content[1]"),
        (user({"type": "tool_use", "id": "a", "name": "f"}), "messages[0].content[0]"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}),
         "messages[0].content[0].source"),
        *((user({"type": kind, "source": source}), "messages[0].content[0].source")
          for kind, source in (
              ("image", {"type": "base64", "url": "https://example.org"}),
              ("image", {"type": "url", "data": "QQ=="}),
              ("image", {"type": "text", "data": "a", "url": "b"}),
              ("document", {"type": "text", "content": "a"}),
              ("document", {"type": "content", "data": "a"}),
              ("document", {"type": "url", "content": "a", "media_type": "text/plain"}),
              ("document", {"type": "base64", "media_type": "text/plain"}),
          )),
        (user({"type": "document", "source": {"type": "base64", "media_type": "application/pdf",
                                              "data": "QQ"}}), "messages[0].content[0].source"),
        (user({"type": "document", "source": {"type": "base64", "media_type": "text/plain",
                                              "data": "!"}}), "messages[0].content[0].source.data"),
        (user({"type": "tool_result", "tool_use_id": "a",
               "content": [{"type": "browser_state"}]}), "messages[0].content[0].content[0]"),
        ({"role": "robot", "content": "hi"}, "messages[0].role"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"content": "hi"}, "messages[0]"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_path(turn: Any, param: str) -> None:
    error = refused(turn)
    assert isinstance(error, InvalidRequestBody | UnsupportedParameter)
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"max_tokens": 0, "stream": True}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice.name"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tool_choice": {"type": "any"}, "tools": [{"type": "web_search_20250305",
                                                     "name": "web_search"}]}, "tool_choice"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tools": [{"name": "f", "input_schema": 3}]}, "tools[0].input_schema"),
        ({"output_config": {"format": {"type": "regex"}}}, "output_config.format.type"),
        ({"mcp_servers": [{"type": "url", "name": "s", "url": "https://a"}]}, "mcp_servers"),
        ({"container": {"skills": []}}, "container"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "s"}]}, "tools[0]"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_refused_with_its_path(members: Any, param: str) -> None:
    assert refused(**members).param == param


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"messages":'])
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidJson):
        decode_messages(raw)


@pytest.mark.parametrize(
    ("name", "value", "here"),
    [
        ("response_format", {"type": "json_object"}, "`output_config.format`"),
        ("max_completion_tokens", 5, "`max_tokens`"),
        ("max_output_tokens", 5, "`max_tokens`"),
        ("stop", "END", "`stop_sequences`"),
        ("functions", [{"name": "f"}], "`tools`"),
        ("n", 2, "/v1/chat/completions"),
        ("logit_bias", {"5": 1}, "/v1/chat/completions"),
    ],
)
def test_members_of_other_dialects_are_refused_with_their_name_here(
    name: str, value: Any, here: str
) -> None:
    error = refused(**{name: value})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == name
    assert here in error.message


def test_a_function_of_chat_is_no_tool_that_only_anthropic_runs() -> None:
    error = refused(tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert isinstance(error, InvalidRequestBody)
    assert error.param == "tools[0]"
    assert "`input_schema`" in error.message
