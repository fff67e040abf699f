"""Models and endpoints that refuse, break off or answer badly, and what the session makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import acp
import pytest
from tests.acp.editor import Editor, connected, opened
from tests.acp.model import Model, Reply

pytestmark = pytest.mark.anyio


OVERFLOW = {
    "message": "This model's maximum context length is 8000 tokens.",
    "code": "context_length_exceeded",
}


@pytest.fixture
def work(work: Path) -> Path:
    (work / "big.txt").write_text("word\n" * 4000)
    return work


async def test_a_refusal_that_passes_is_waited_for_and_said(
    model: Model, tmp_path: Path, work: Path
) -> None:
    later = {"message": "Busy.", "code": "overloaded", "retry_after_s": 0.2}
    loading = {"message": "Loading.", "code": "model_loading", "retry_after_s": 0.2}
    model.say(Reply(status=429, error=later | {"code": "rate_limit_exceeded"}),
              Reply(status=503, error=loading), "Here I am.")  # fmt: skip
    async with opened(model.url, tmp_path, work) as session:
        answer = await session.prompt("hi")
        notes = session.editor.text("agent_thought_chunk")
        assert answer.stop_reason == "end_turn"
        assert session.editor.text() == "Here I am."
        assert "Busy. Asking again in" in notes
        assert "Loading. Asking again in" in notes


async def test_a_loading_model_shows_how_far_it_is(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Warm.", comment='helexa {"progress":0.4,"position":2,"eta_s":23}'))
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        notes = session.editor.text("agent_thought_chunk")
        assert "being loaded, 40 %, place 2 in the queue, about 23 s" in notes


async def test_a_quota_that_is_spent_ends_the_turn_in_words_and_not_the_session(
    model: Model, tmp_path: Path, work: Path
) -> None:
    spent = {"message": "The budget is spent.", "code": "insufficient_quota"}
    model.say(Reply(status=429, error=spent), "Again.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "The budget is spent." in session.editor.text()
        await session.prompt("still there?")
        assert session.editor.text().endswith("Again.")
    assert len(model.asked) == 2


async def test_a_wrong_key_asks_for_authentication(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models_status = 401
    async with connected(model.url, tmp_path) as session:
        with pytest.raises(acp.RequestError) as refused:
            await session.agent.new_session(cwd=str(work), mcp_servers=[])
        assert refused.value.code == -32000
        model.models_status = 200
        await session.agent.authenticate(method_id="api-key")
        assert (await session.agent.new_session(cwd=str(work), mcp_servers=[])).session_id


async def test_an_endpoint_that_is_down_is_said_and_the_session_opens(
    tmp_path: Path, work: Path
) -> None:
    async with opened("http://127.0.0.1:1/v1", tmp_path, work) as session:
        assert "endpoint environment is skipped" in session.editor.text("agent_thought_chunk")
        answer = await session.prompt("hi")
        assert answer.stop_reason == "end_turn"
        assert "helexa up" in session.editor.text()


async def test_overflow_leads_to_compaction_and_the_turn_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    read = ("read_file", {"path": "big.txt"})
    model.say(Reply(calls=[read]), "First.", Reply(status=400, error=OVERFLOW), "Second.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("one")
        answer = await session.prompt("two")
        assert answer.stop_reason == "end_turn"
        assert session.editor.text().endswith("Second.")
        assert "Made room in the context" in session.editor.text("agent_thought_chunk")
    messages = model.asked[-1]["messages"]
    assert "left out to make room" in json.dumps(messages)
    calls = {c["id"] for m in messages for c in m.get("tool_calls", [])}
    assert calls == {m["tool_call_id"] for m in messages if m["role"] == "tool"}


async def test_a_filling_window_is_summarised_before_it_overflows(
    model: Model, tmp_path: Path, work: Path
) -> None:
    text = "x" * 6000
    model.say("a", "b", "c", "d", "The summary.", "e")
    async with opened(model.url, tmp_path, work) as session:
        for turn in range(5):
            await session.prompt(f"{turn} {text}")
    summaries = [i for i, a in enumerate(model.asked)
                 if "Summarise this conversation" in json.dumps(a["messages"][-1])]  # fmt: skip
    assert summaries
    after = model.asked[summaries[0] + 1]["messages"]
    assert "Summary of our conversation" in json.dumps(after[1])
    assert after[-1]["content"].startswith(f"{summaries[0]} ")  # the newest turn is untouched
    assert all(len(json.dumps(a["messages"])) < 8000 * 3.2 for a in model.asked)


async def test_a_cut_stream_is_said_and_the_session_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Half an ans", cut=True), "Whole.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "broke off" in session.editor.text()
        await session.prompt("again")
        assert session.editor.text().endswith("Whole.")
    assert len(model.asked) == 2  # what was shown is never asked for twice


async def test_a_stream_that_breaks_before_anything_came_is_asked_for_again(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(cut=True), "Here.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert session.editor.text() == "Here."


@pytest.mark.parametrize("arguments", ['{"path": "big.txt",}', '{"path": "big.txt"'])
async def test_arguments_that_are_nearly_json_are_repaired(
    model: Model, tmp_path: Path, work: Path, arguments: str
) -> None:
    model.say(Reply(calls=[("list_dir", arguments.replace("big.txt", "."))]), "Fine.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
    assert "big.txt" in model.asked[1]["messages"][-1]["content"]


async def test_garbage_and_unknown_tools_are_told_to_the_model(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(calls=[("read_file", "not json at all"), ("fly", {}),
                           ("edit_file", {"path": "big.txt", "edits": []})]), "Sorry.")  # fmt: skip
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
    results = [m["content"] for m in model.asked[1]["messages"] if m["role"] == "tool"]
    assert "no JSON object" in results[0]
    assert "there is no tool 'fly'" in results[1]
    assert "must be a list" in results[2]


async def test_the_same_calls_again_and_again_are_stopped(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(*[Reply(calls=[("list_dir", {})]) for _ in range(10)])
    async with opened(model.url, tmp_path, work) as session:
        answer = await session.prompt("hi")
        assert answer.stop_reason == "end_turn"
        assert "without getting anywhere" in session.editor.text()
    assert len(model.asked) == 4


async def test_rounds_are_bounded(model: Model, tmp_path: Path, work: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("max_rounds = 3\n")
    model.say(*[Reply(calls=[("grep", {"pattern": str(i)})]) for i in range(9)])
    async with opened(model.url, tmp_path, work, HELEXA_ACP_CONFIG_PATH=str(config)) as session:
        assert (await session.prompt("hi")).stop_reason == "max_turn_requests"
    assert len(model.asked) == 3


async def test_a_model_without_tools_calls_them_in_plain_text(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models = [{"id": "m", "limit": {"context": 8000}, "tool_call": False}]
    call = '<tool_call>{"name": "list_dir", "arguments": {"path": "."},}</tool_call>'
    model.say(Reply(f"Let me look.{call}"), "There is big.txt.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("what is there?")
        assert session.editor.text() == "Let me look.There is big.txt."
        assert next(iter(session.editor.calls().values()))["status"] == "completed"
    assert "tools" not in model.asked[0]
    assert "list_dir" in model.asked[0]["messages"][0]["content"]
    assert "big.txt" in model.asked[1]["messages"][-1]["content"]


async def test_an_mcp_server_of_the_editor_brings_its_tools(
    model: Model, tmp_path: Path, work: Path
) -> None:
    pytest.importorskip("mcp")
    script = tmp_path / "server.py"
    script.write_text(
        "from mcp.server import MCPServer\nserver = MCPServer('sums')\n"
        "@server.tool()\ndef add(a: int, b: int) -> int:\n    return a + b\n"
        "server.run('stdio')\n"
    )
    good = acp.schema.McpServerStdio(
        name="my sums", command=sys.executable, args=[str(script)], env=[]
    )
    bad = acp.schema.McpServerStdio(name="broken", command="/no/such/program", args=[], env=[])
    model.say(Reply(calls=[("my_sums__add", {"a": 2, "b": 3})]), "Five.")
    async with opened(model.url, tmp_path, work, mcp_servers=[good, bad]) as session:
        await session.prompt("add")
        assert "MCP server broken cannot be used" in session.editor.text("agent_thought_chunk")
        assert len(session.editor.asked) == 1
    assert model.asked[1]["messages"][-1]["content"] == "5"


async def test_a_file_that_changed_between_the_diff_and_the_write_is_left_alone(
    model: Model, tmp_path: Path, work: Path
) -> None:
    path = work / "a.txt"
    path.write_text("one")

    def decide(_call: object) -> str:
        path.write_text("two")
        return "allow_once"

    edit = {"path": "a.txt", "edits": [{"old_text": "one", "new_text": "three"}]}
    model.say(Reply(calls=[("edit_file", edit)]), "Oh.")
    async with opened(model.url, tmp_path, work, Editor(answer=decide)) as session:
        await session.prompt("edit")
    assert "changed meanwhile" in model.asked[1]["messages"][-1]["content"]
    assert path.read_text() == "two"
