"""The agent's pure parts: decisions, compaction, text calls, dialects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.acp.permission import Asked, decide
from helexa.acp.providers.messages import MessagesDialect, MessagesReader
from helexa.acp.providers.responses import ResponsesDialect, ResponsesReader
from helexa.acp.settings import Endpoint, load_settings
from helexa.acp.tools.base import ToolTrouble
from helexa.acp.tools.command import program
from helexa.acp.tools.scan import files_like
from helexa.acp.tools.writing import apply
from helexa.acp.turn import compaction
from helexa.acp.turn.textcalls import Visible, calls, repaired
from helexa.core.chat import ChatRequest, Image, Message, Text, Tool, ToolCall
from helexa.core.events import Failed, Finished, TextDelta, ToolCallArguments, ToolCallBegun
from helexa.core.settings import SettingsError

EDIT = Asked("edit_file", "edit", "files", reads_only=False, in_plan=False)
RUN = Asked("run_command", "execute", "git", reads_only=False, in_plan=False)
READ = Asked("read_file", "read", "", reads_only=True, in_plan=True)


@pytest.mark.parametrize(
    ("mode", "asked", "remembered", "word"),
    [
        ("ask", READ, {}, "allow"),
        ("ask", EDIT, {}, "ask"),
        ("ask", EDIT, {"edit_file:files": True}, "allow"),
        ("full_access", EDIT, {"edit_file:files": False}, "refuse"),
        ("accept_edits", EDIT, {}, "allow"),
        ("accept_edits", RUN, {}, "ask"),
        ("plan", EDIT, {"edit_file:files": True}, "refuse"),
        ("plan", READ, {}, "allow"),
        ("full_access", RUN, {}, "allow"),
    ],
)
def test_permission_is_decided_by_what_was_said_then_by_the_mode(
    mode: Any, asked: Asked, remembered: dict[str, bool], word: str
) -> None:
    assert decide(mode, asked, remembered)[0] == word


@pytest.mark.parametrize("command", ["git log; rm -rf .", "git log && x", "git `x`", "git > f"])
def test_always_for_a_program_never_covers_what_a_shell_does_besides(command: str) -> None:
    assert program("git log -1") == "git"
    assert program(command) == command


def test_an_edit_must_be_unique_and_says_what_would_help() -> None:
    assert apply("a b", {"old_text": "a", "new_text": "c"}, "e") == "c b"
    assert apply("a a", {"old_text": "a", "new_text": "c", "replace_all": True}, "e") == "c c"
    with pytest.raises(ToolTrouble, match="occurs 2 times"):
        apply("a a", {"old_text": "a", "new_text": "c"}, "e")
    with pytest.raises(ToolTrouble, match="with other spaces"):
        apply("x  =  1", {"old_text": "x = 1", "new_text": ""}, "e")


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**/*.py", "a.py", True), ("**/*.py", "x/y/a.py", True), ("src/**/*.py", "src/a.py", True),
        ("src/*.py", "src/x/a.py", False), ("*.txt", "a.py", False), ("*.py", "x/a.py", True),
        ("src/**", "src/x/a.py", True), ("src/**", "b/a.py", False), ("**", "x/a", True),
        ("**/*.{ts,tsx}", "x/a.tsx", True), ("*.{ts,tsx}", "a.js", False),
        ("{src,lib}/*.{h,c}", "lib/a.c", True), ("./src/*.py", "src/a.py", True),
        ("/w/src/*.py", "src/a.py", True), ("a{1}.txt", "a{1}.txt", True),
    ],
)  # fmt: skip
def test_globs_mean_what_people_mean(pattern: str, path: str, fits: bool) -> None:
    assert bool(files_like(pattern, Path("/w")).fullmatch(path)) == fits


turns = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 3000), st.booleans()), min_size=1, max_size=8
)


def history(shape: list[tuple[int, int, bool]]) -> list[Message]:
    messages: list[Message] = []
    for t, (count, size, answered) in enumerate(shape):
        messages.append(Message("user", (Text(f"turn {t}"),)))
        if count:
            made = tuple(ToolCall(f"{t}-{i}", "read_file", "{}") for i in range(count))
            messages.append(Message("assistant", (), made))
            messages += [
                Message("tool", (Text("x" * size),), tool_call_id=f"{t}-{i}") for i in range(count)
            ]
        if answered:
            messages.append(Message("assistant", (Text("done"),)))
    return messages


def paired(messages: list[Message]) -> bool:
    opened = [c.id for m in messages for c in m.tool_calls]
    answered = [m.tool_call_id for m in messages if m.role == "tool"]
    return opened == answered


@given(turns, st.integers(50, 5000))
def test_making_room_never_parts_a_call_from_its_result_nor_touches_the_last_turn(
    shape: list[tuple[int, int, bool]], room: int
) -> None:
    messages = history(shape)
    lighter = compaction.lightened(messages, room)
    assert paired(lighter)
    last = compaction.last_turns(messages, 1)
    assert lighter[last:] == messages[last:]
    at = compaction.split(lighter, room)
    assert paired(lighter[at:])
    assert at == 0 or lighter[at].role == "user"
    assert paired(compaction.within_turn(lighter, room))
    asked = compaction.summary_request(lighter, room)
    assert asked[0].role != "tool"


@given(st.text(max_size=40), st.lists(st.integers(1, 7), max_size=20))
def test_text_before_a_call_is_shown_whatever_the_pieces_and_nothing_of_the_call(
    before: str, sizes: list[int]
) -> None:
    before = before.replace("<tool_call>", "")
    whole = before + '<tool_call>{"name": "x", "arguments": {}}</tool_call>'
    visible, shown, at = Visible(), "", 0
    for size in [*sizes, len(whole)]:
        piece = whole[at : at + size]
        at += size
        if piece:
            shown += visible.feed(piece)
    assert shown + visible.end() == before


@given(st.text(max_size=60))
def test_text_without_a_call_is_shown_whole(text: str) -> None:
    text = text.replace("<tool_call>", "")
    visible = Visible()
    assert "".join(visible.feed(char) for char in text) + visible.end() == text


@pytest.mark.parametrize(
    "body",
    ['{"name": "f", "arguments": {"a": 1}}', '{"name": "f", "arguments": {"a": 1},}',
     '{"name": "f", "arguments": {"a": 1', "{'name': 'f', 'arguments': {'a': 1}}",
     '```json\n{"name": "f", "arguments": {"a": 1}}\n```'],
)  # fmt: skip
def test_calls_in_text_are_repaired(body: str) -> None:
    ((name, arguments),) = calls(f"Well: <tool_call>{body}</tool_call>")
    assert (name, json.loads(arguments)) == ("f", {"a": 1})


def test_a_call_that_cannot_be_read_is_not_dropped() -> None:
    assert calls("<tool_call>go!</tool_call>") == [("", "go!")]
    assert repaired("go!") is None


REQUEST = ChatRequest(
    model="m",
    messages=(
        Message("system", (Text("be brief"),)),
        Message("user", (Text("look"), Image("data:image/png;base64,AAA"))),
        Message("assistant", (Text("so"),), (ToolCall("c1", "f", '{"a":1}'),)),
        Message("tool", (Text("out"),), tool_call_id="c1"),
    ),
    stream=True,
    tools=(Tool("f", "does"),),
)


def test_a_request_in_messages_has_results_in_user_turns() -> None:
    body = json.loads(MessagesDialect().encode(REQUEST))
    assert body["system"] == "be brief"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"][1]["source"]["media_type"] == "image/png"
    assert body["messages"][1]["content"][1] == {
        "type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1},
    }  # fmt: skip
    assert body["messages"][2]["content"][0]["tool_use_id"] == "c1"


def test_a_request_in_responses_has_calls_and_results_as_items() -> None:
    body = json.loads(ResponsesDialect().encode(REQUEST))
    kinds = [item["type"] for item in body["input"]]
    assert kinds == ["message", "message", "message", "function_call", "function_call_output"]
    assert body["store"] is False


def sse(*events: dict[str, Any]) -> bytes:
    return b"".join(b"event: x\ndata: " + json.dumps(e).encode() + b"\n\n" for e in events)


MESSAGES = sse(
    {"type": "message_start", "message": {"id": "i", "model": "m", "usage": {"input_tokens": 5}}},
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "c", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 1,
     "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 1},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
)  # fmt: skip
RESPONSES = sse(
    {"type": "response.created", "response": {"id": "i", "model": "m"}},
    {"type": "response.output_text.delta", "delta": "Hi"},
    {"type": "response.output_item.added",
     "item": {"type": "function_call", "id": "fc", "call_id": "c", "name": "f"}},
    {"type": "response.function_call_arguments.delta", "item_id": "fc", "delta": '{"a":1}'},
    {"type": "response.output_item.done",
     "item": {"type": "function_call", "id": "fc", "arguments": '{"a":1}'}},
    {"type": "response.completed", "response": {"status": "completed",
     "usage": {"input_tokens": 5, "output_tokens": 3}}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("reader", "stream"), [(MessagesReader, MESSAGES), (ResponsesReader, RESPONSES)]
)
@given(cuts=st.lists(st.integers(0, 1200), max_size=6))
def test_every_dialect_reads_the_same_answer_from_any_pieces(
    reader: Any, stream: bytes, cuts: list[int]
) -> None:
    read, events, at = reader(), [], 0
    for cut in [*sorted(c for c in cuts if c < len(stream)), len(stream)]:
        events += read.feed(stream[at:cut])
        at = cut
    assert read.over
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["Hi"]
    assert [(e.id, e.name) for e in events if isinstance(e, ToolCallBegun)] == [("c", "f")]
    assert [e.fragment for e in events if isinstance(e, ToolCallArguments)] == ['{"a":1}']
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.reason, end.usage.prompt, end.usage.completion) == ("tool_calls", 5, 3)


@pytest.mark.parametrize("reader", [MessagesReader, ResponsesReader])
@pytest.mark.parametrize("data", [b"data: {nonsense\n\n", b"data: {}\n\n", b"data: []\n\n"])
def test_garbage_is_a_failure_and_no_exception(reader: Any, data: bytes) -> None:
    events = reader().feed(data)
    assert isinstance(events[-1], Failed)


def test_the_environment_alone_is_enough(tmp_path: Any) -> None:
    environ = {"HELEXA_ACP_BASE_URL": "http://x/v1", "HELEXA_ACP_MODEL": "m",
               "HELEXA_ACP_API_KEY": "sk", "HELEXA_ACP_MAX_TOKENS": "100",
               "HELEXA_ACP_CONTEXT_WINDOW": "9000", "XDG_CONFIG_HOME": str(tmp_path)}  # fmt: skip
    (endpoint,) = load_settings(None, environ).value.endpoints
    assert (endpoint.base_url, endpoint.default_model) == ("http://x/v1", "m")
    assert (endpoint.max_tokens, endpoint.context_window) == (100, 9000)
    assert "sk" not in repr(endpoint)


def test_the_environment_changes_the_default_endpoint_of_the_file(tmp_path: Any) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'default_endpoint = "b"\nsystem_prompt_path = "words.md"\n'
        '[[endpoints]]\nname = "a"\nbase_url = "http://a"\n'
        '[[endpoints]]\nname = "b"\nbase_url = "http://b"\ndefault_model = "x"\n'
    )
    (tmp_path / "words.md").write_text("Be kind.")
    environ = {"HELEXA_ACP_MODEL": "m", "HELEXA_ACP_MAX_TOKENS": "7"}
    found = load_settings(config, environ).value
    assert found.system_prompt_path == tmp_path / "words.md"
    assert [e.default_model for e in found.endpoints] == [None, "m"]
    assert [e.max_tokens for e in found.endpoints] == [None, 7]
    elsewhere = load_settings(config, {**environ, "HELEXA_ACP_BASE_URL": "http://c"}).value
    assert elsewhere.default_endpoint == elsewhere.endpoints[0].name == "environment"
    with pytest.raises(SettingsError, match=r"nowhere\.md cannot be read"):
        load_settings(config, {"HELEXA_ACP_SYSTEM_PROMPT_PATH": "/nowhere.md"})


def test_a_key_is_used_without_the_line_break_of_the_file_it_came_from() -> None:
    endpoint = Endpoint("a", "http://x", api_key_env="KEY")
    assert endpoint.key({"KEY": "sk-1\n"}) == "sk-1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[endpoints]]\nname = "a"\nbase_url = "ftp://x"', "not an http"),
        ('[[endpoints]]\nname = "a:b"\nbase_url = "http://x"', "before a colon"),
        ('default_endpoint = "b"\n[[endpoints]]\nname = "a"\nbase_url = "http://x"', "one of a"),
        ('[[endpoints]]\nname = "a"\nbase_url = "http://x"\nwire_api = "soap"', "wire_api"),
        ("max_round = 3", "max_rounds"),
        ('[[endpoints]]\nname = "a"\nbase_url = "http://x:99999"', "not an http.*[Pp]ort"),
        ('[[endpoints]]\nname = "a"\nbase_url = "http://"', "not an http"),
        ('[[endpoints]]\nname = "a"\nbase_url = "http://x"\napi_key = "ключ"', "'a': the key"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Any, text: str, words: str) -> None:
    config = tmp_path / "config.toml"
    config.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load_settings(config, {})
