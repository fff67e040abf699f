"""Messages requests: everything that clients send is understood or refused by its path."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from helexa.core.chat import (
    ChatRequest,
    Image,
    Message,
    Part,
    Reasoning,
    Text,
    ToolCall,
    ToolChoice,
)
from helexa.core.errors import (
    HelexaError,
    UnsupportedParameter,
)
from helexa.wire.messages.decode import decode_messages

USER = {"role": "user", "content": "hi"}


TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def decoded(*turns: Any, **members: Any) -> ChatRequest:
    body = {"model": "m", "max_tokens": 9, "messages": list(turns) or [USER], **members}
    return decode_messages(json.dumps(body).encode()).request


def refused(*turns: Any, **members: Any) -> HelexaError:
    with pytest.raises(HelexaError) as caught:
        decoded(*turns, **members)
    return caught.value


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(words: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **more}


def test_the_plainest_request() -> None:
    found = decoded()
    assert found == ChatRequest(model="m", messages=(Message("user", (Text("hi"),)),), max_output=9)


def test_system_comes_as_a_string_as_blocks_and_late() -> None:
    assert decoded(system="Be brief.").messages[0] == Message("system", (Text("Be brief."),))
    blocks = [text("Be", cache_control={"type": "ephemeral"}), text("brief.")]
    assert decoded(system=blocks).messages[0] == Message("system", (Text("Be"), Text("brief.")))
    late = {"role": "system", "content": [text("From here on, rhyme.")]}
    roles = [m.role for m in decoded(USER, late, {"role": "user", "content": "go"}).messages]
    assert roles == ["user", "system", "user"]


def test_images_come_as_base64_or_as_an_address() -> None:
    data = {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QQ"}}
    far = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert decoded(user(text("what?"), data, far)).messages[0].content == (
        Text("what?"),
        Image("data:image/jpeg;base64,QQ"),
        Image("https://example.org/a.png"),
    )


def test_documents_are_shown_as_their_text_under_their_title() -> None:
    plain = {"type": "text", "media_type": "text/plain", "data": "A long story."}
    titled = {"type": "document", "title": "Story", "context": "by me", "source": plain}
    assert decoded(user(titled)).messages[0].content == (Text("Story\nby me\n\nA long story."),)
    untitled = {"type": "document", "source": plain}
    assert decoded(user(untitled)).messages[0].content == (Text("A long story."),)
    parts = {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}}
    assert decoded(user(parts)).messages[0].content == (Text("a"), Text("b"))
    encoded = base64.b64encode(b"# Title").decode()
    file = {"type": "base64", "media_type": "text/markdown", "data": encoded}
    found = decoded(user({"type": "document", "source": file})).messages[0].content
    assert found == (Text("# Title"),)


def test_a_document_in_parts_is_shown_under_its_title() -> None:
    for content in ("a", [text("a")]):
        source = {"type": "content", "content": content}
        block = {"type": "document", "title": "Story", "source": source}
        assert decoded(user(block)).messages[0].content == (Text("Story\n"), Text("a"))


def test_turns_of_the_assistant_in_a_row_keep_what_each_said_thought_and_called() -> None:
    def turn(mark: str) -> dict[str, Any]:
        call = {"type": "tool_use", "id": f"t{mark}", "name": "get_weather", "input": {}}
        thought = {"type": "thinking", "thinking": f"hm {mark} ", "signature": "s"}
        return {"role": "assistant", "content": [thought, text(mark), call]}

    found = decoded(USER, turn("a"), turn("b")).messages
    calls = tuple(ToolCall(f"t{mark}", "get_weather", "{}") for mark in "ab")
    assert found[1:] == (Message("assistant", (Text("a"), Text("b")), calls, "hm a hm b "),)


@pytest.mark.parametrize("content", [None, []])
def test_a_turn_without_content_is_a_turn_still(content: Any) -> None:
    found = decoded({"role": "user", "content": content}, {"role": "assistant", "content": "a"})
    assert found.messages[0] == Message("user", ())


def test_search_results_are_shown_with_their_source() -> None:
    block = {"type": "search_result", "source": "https://x", "title": "X", "content": [text("y")]}
    assert decoded(user(block)).messages[0].content == (Text("X\nhttps://x\n\ny"),)


def test_an_assistants_turn_keeps_thought_text_and_calls_byte_by_byte() -> None:
    raw = (
        b'{"model":"m","messages":[{"role":"user","content":"hi"},{"role":"assistant","content":['
        b'{"type":"thinking","thinking":"hm","signature":"s"},'
        b'{"type":"redacted_thinking","data":"xx"},'
        b'{"type":"text","text":"I look."},'
        b'{"type":"tool_use","id":"toolu_a","name":"f","input":{ "b": 1,  "a":"\\u00e9" }}]}]}'
    )
    assert decode_messages(raw).request.messages[1] == Message(
        "assistant",
        (Text("I look."),),
        (ToolCall("toolu_a", "f", '{ "b": 1,  "a":"\\u00e9" }'),),
        "hm",
    )


def test_tool_results_carry_text_and_images_and_stand_right_behind_their_calls() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ"}}
    turn = user(
        text("Here:"),
        {"type": "tool_result", "tool_use_id": "a", "content": [text("one"), image]},
        {"type": "tool_result", "tool_use_id": "b", "content": "two"},
        {"type": "tool_result", "tool_use_id": "c"},
    )
    assert decoded(turn).messages == (
        Message("tool", (Text("one"), Image("data:image/png;base64,QQ")), tool_call_id="a"),
        Message("tool", (Text("two"),), tool_call_id="b"),
        Message("tool", (Text(""),), tool_call_id="c"),
        Message("user", (Text("Here:"),)),
    )


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("no such file", (Text("Error: no such file"),)),
        ([text("no such file"), text("b")], (Text("Error: no such file"), Text("b"))),
        (None, (Text("Error: "),)),
        ([{"type": "image", "source": {"type": "base64", "data": "QQ"}}],
         (Text("Error: "), Image("data:image/png;base64,QQ"))),
    ],
)  # fmt: skip
def test_a_tool_that_has_failed_is_shown_as_failed(content: Any, shown: tuple[Part, ...]) -> None:
    turn = user({"type": "tool_result", "tool_use_id": "a", "content": content, "is_error": True})
    (message,) = decoded(turn).messages
    assert message.content == shown


def test_a_tool_that_the_clients_search_has_found_is_named_in_its_result() -> None:
    found = [{"type": "tool_reference", "tool_name": "get_weather"}]
    turn = user({"type": "tool_result", "tool_use_id": "a", "content": found})
    request = decoded(turn, tools=[{**TOOL, "defer_loading": True}])
    assert request.messages[0].content == (Text("Found: the tool get_weather."),)
    assert [tool.name for tool in request.tools] == ["get_weather"]


def test_turns_of_one_role_in_a_row_are_one_turn() -> None:
    said = {"role": "assistant", "content": "b"}
    found = decoded(USER, {"role": "user", "content": "and"}, said, said).messages
    assert [m.role for m in found] == ["user", "assistant"]
    assert found[0].content == (Text("hi"), Text("and"))


def test_tools_keep_their_schema_and_those_of_anthropics_servers_are_left_out() -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    found = decoded(tools=[search, {**TOOL, "type": "custom", "strict": True}])
    (tool,) = found.tools
    assert (tool.name, tool.description, tool.strict) == ("get_weather", "Weather of a city", True)
    assert tool.parameters is not None
    assert json.loads(bytes(tool.parameters)) == TOOL["input_schema"]


@pytest.mark.parametrize(
    ("kind", "name", "members"),
    [
        ("bash_20250124", "bash", {"command", "restart"}),
        ("text_editor_20250728", "str_replace_based_edit_tool", {"command", "path", "old_str"}),
        ("memory_20250818", "memory", {"command", "path", "new_path"}),
    ],
)
def test_tools_that_anthropic_defines_and_clients_run_are_offered_with_their_schema(
    kind: str, name: str, members: set[str]
) -> None:
    given = {"type": kind, "name": name, "cache_control": {"type": "ephemeral"}}
    found = decoded(tools=[given, TOOL], tool_choice={"type": "tool", "name": name})
    tool = found.tools[0]
    assert found.tool_choice == ToolChoice("required", (name,))
    assert tool.name == name
    assert tool.description
    assert tool.parameters is not None
    assert members <= set(json.loads(bytes(tool.parameters))["properties"])


@pytest.mark.parametrize("kind", ["computer_20251124", "text_editor_20250124", "browser_toolset_x"])
def test_a_tool_of_the_clients_that_is_described_nowhere_is_refused_not_dropped(kind: str) -> None:
    error = refused(tools=[TOOL, {"type": kind, "name": "n"}])
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "tools[1]"


@pytest.mark.parametrize(
    ("given", "choice", "parallel"),
    [
        ({"type": "auto"}, ToolChoice("auto"), None),
        ({"type": "any"}, ToolChoice("required"), None),
        ({"type": "none"}, ToolChoice("none"), None),
        ({"type": "tool", "name": "get_weather"}, ToolChoice("required", ("get_weather",)), None),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice("auto"), False),
        ({"type": "any", "disable_parallel_tool_use": False}, ToolChoice("required"), True),
    ],
)
def test_tool_choice_with_disable_parallel_tool_use(
    given: dict[str, Any], choice: ToolChoice, parallel: bool | None
) -> None:
    found = decoded(tools=[TOOL], tool_choice=given)
    assert (found.tool_choice, found.parallel_tool_calls) == (choice, parallel)


@pytest.mark.parametrize(
    ("thinking", "config", "expected"),
    [
        (None, None, Reasoning()),
        (None, {"effort": "high"}, Reasoning()),
        ({"type": "disabled"}, None, Reasoning(False)),
        ({"type": "adaptive"}, {"effort": "max"}, Reasoning(True, "high")),
        ({"type": "enabled", "budget_tokens": 2048}, None, Reasoning(True, None, 2048)),
        ({"type": "something_new"}, None, Reasoning()),
    ],
)
def test_thinking_enabled_disabled_and_adaptive(
    thinking: Any, config: Any, expected: Reasoning
) -> None:
    assert decoded(thinking=thinking, output_config=config).reasoning == expected


def test_omitted_thinking_is_noticed() -> None:
    body = {"messages": [USER], "thinking": {"type": "adaptive", "display": "omitted"}}
    assert decode_messages(json.dumps(body).encode()).hide_thinking
    shown = {
        "messages": [{"role": "user", "content": '"omitted"'}],
        "thinking": {"type": "adaptive"},
    }
    assert not decode_messages(json.dumps(shown).encode()).hide_thinking


@pytest.mark.parametrize("member", ["output_config", "output_format"])
def test_output_config_format_is_a_strict_schema(member: str) -> None:
    schema = {"type": "object", "properties": {}}
    given: Any = {"type": "json_schema", "schema": schema}
    found = decoded(**{member: {"format": given} if member == "output_config" else given}).format
    assert (found.kind, found.strict) == ("json_schema", True)
    assert found.schema is not None
    assert json.loads(bytes(found.schema)) == schema


def test_sampling_stop_sequences_caps_streams_and_users_are_read() -> None:
    found = decoded(
        temperature=1, top_p=0.5, top_k=3, stop_sequences=["END"], stream=True,
        metadata={"user_id": "u"}, max_tokens=32000,
    )  # fmt: skip
    sampling = found.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (1.0, 0.5, 3)
    assert sampling.stop == ("END",)
    assert (found.stream, found.user, found.max_output) == (True, "u", 32000)


def test_unknown_members_and_nulls_are_tolerated() -> None:
    found = decoded(
        {"role": "user", "content": [text("hi", citations=None, cache_control={"ttl": "1h"})]},
        service_tier="auto", container=None, context_management={"edits": []}, betas=["x"],
        system=None, tools=None, tool_choice=None, metadata=None, thinking=None, thread=None,
    )  # fmt: skip
    assert found.messages == (Message("user", (Text("hi"),)),)
