"""What editors, files and people do that nobody plans for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import acp
import pytest
from tests.acp.editor import connected, opened
from tests.acp.model import Model, Reply
from tests.bench.made import Write, serving_in_thread

pytestmark = pytest.mark.anyio


async def told(
    model: Model, tmp_path: Path, work: Path, *calls: tuple[str, Any], read: bool = False
) -> list[str]:
    """What the model is told of its ``calls``, where the editor offers no files to write."""
    model.say(Reply(calls=list(calls)), "Done.")
    async with opened(model.url, tmp_path, work, read=read, write=False) as session:
        await session.prompt("go")
    return [m["content"] for m in model.asked[1]["messages"] if m["role"] == "tool"]


async def test_a_file_keeps_its_line_endings_when_it_is_edited_rewritten_and_restored(
    model: Model, tmp_path: Path, work: Path
) -> None:
    path = work / "dos.txt"
    before = b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n"
    path.write_bytes(before)
    edits = [{"old_text": "one\ntwo", "new_text": "one\nand a half\ntwo"}]
    model.say(Reply(calls=[("edit_file", {"path": "dos.txt", "edits": edits})]), "Done.")
    whole = {"path": "dos.txt", "content": "four\nfive\n"}
    async with opened(model.url, tmp_path, work, read=False, write=False) as session:
        await session.prompt("edit")
        assert path.read_bytes() == b"\xef\xbb\xbfone\r\nand a half\r\ntwo\r\nthree\r\n"
        await session.prompt("/undo")
        assert path.read_bytes() == before
        model.say(Reply(calls=[("write_file", whole)]), "Done.")
        await session.prompt("rewrite")
        assert path.read_bytes() == b"four\r\nfive\r\n"


async def test_what_is_left_out_of_a_file_is_said(model: Model, tmp_path: Path, work: Path) -> None:
    (work / "long.txt").write_text("x" * 5000 + "\nsecond\n")
    (work / "many.txt").write_text("".join(f"line {i} {'y' * 90}\n" for i in range(1000)))
    model.models[0]["limit"] = {"context": 100_000}
    long, many, far = await told(
        model, tmp_path, work,
        ("read_file", {"path": "long.txt"}),
        ("read_file", {"path": "many.txt"}),
        ("read_file", {"path": "many.txt", "offset": 5000}),
    )  # fmt: skip
    assert "(3000 more characters of this line)" in long
    assert "second" in long
    assert len(many) < 31_000  # what a small window bears; the rest is a call away
    last = many.rstrip(")").rsplit(" ", 1)[1]
    assert f"\n{int(last) - 1}\tline" in many
    assert f"\n{last}\tline" not in many
    assert "the file has 1001 lines" in far


async def test_a_window_that_is_too_small_for_a_file_gets_its_beginning(
    model: Model, tmp_path: Path, work: Path
) -> None:
    (work / "many.txt").write_text("".join(f"line {i} {'y' * 90}\n" for i in range(1000)))
    (said,) = await told(model, tmp_path, work, ("read_file", {"path": "many.txt"}))
    assert "line 50 y" in said
    assert "ask for a smaller part" in said


async def test_what_is_no_plain_file_is_neither_read_nor_waited_for(
    model: Model, tmp_path: Path, work: Path
) -> None:
    os.mkfifo(work / "pipe")
    (work / "latin.txt").write_bytes(b"needle caf\xe9\n")
    (work / "good.txt").write_text("needle\n")
    grep = ("grep", {"pattern": "needle", "glob": "./*.{txt,md}"})
    async with asyncio.timeout(60):
        pipe, found, everywhere = await told(
            model, tmp_path, work,
            ("read_file", {"path": "pipe"}), grep, ("grep", {"pattern": "needle"}),
        )  # fmt: skip
    assert "not a regular file" in pipe
    assert found == everywhere == "good.txt:1: needle"


async def test_a_file_that_is_too_large_for_a_line_of_the_protocol_is_not_waited_for(
    model: Model, tmp_path: Path, work: Path
) -> None:
    with (work / "big.log").open("wb") as log:
        log.truncate(100 * 1024 * 1024)
    async with asyncio.timeout(60):
        (said,) = await told(model, tmp_path, work, ("read_file", {"path": "big.log"}), read=True)
    assert "more than 2 MiB" in said


async def test_a_session_that_is_deleted_in_the_middle_of_a_turn_stays_deleted(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("I will", hold=200))
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await session.editor.until(session.editor.text)
        await session.agent._conn.send_request("session/delete", {"sessionId": session.session_id})
        assert (await running).stop_reason == "cancelled"
        assert (await session.agent.list_sessions()).sessions == []


async def test_a_session_that_is_loaded_again_in_the_middle_of_a_turn_has_what_was_said(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("I will", hold=200), "And now?")
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await session.editor.until(lambda: session.editor.text() == "I will")
        await session.agent.load_session(
            cwd=str(work), session_id=session.session_id, mcp_servers=[]
        )
        await running
        await session.prompt("on")
    said = [(m["role"], m["content"]) for m in model.asked[-1]["messages"][1:]]
    assert said == [("user", "go"), ("assistant", "I will"), ("user", "on")]


async def test_a_session_comes_back_with_its_plan_and_how_full_its_window_is(
    model: Model, tmp_path: Path, work: Path
) -> None:
    steps = {"steps": [{"content": "look", "status": "in_progress"}]}
    model.say(Reply(calls=[("todo", steps)]), "Looking.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("plan it")
    async with connected(model.url, tmp_path) as again:
        await again.agent.load_session(cwd=str(work), session_id=session.session_id, mcp_servers=[])
        plan = next(u for u in again.editor.updates if u.session_update == "plan")
        assert [(e.content, e.status) for e in plan.entries] == [("look", "in_progress")]
        usage = next(u for u in again.editor.updates if u.session_update == "usage_update")
        assert (usage.used, usage.size) == (107, 8000)


@pytest.mark.parametrize("how", ["cancel", "cut"])
async def test_the_model_knows_what_it_had_said_when_it_was_interrupted(
    model: Model, tmp_path: Path, work: Path, how: str
) -> None:
    model.say(Reply("I delete everything", hold=200 if how == "cancel" else 0, cut=True))
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await session.editor.until(lambda: "everything" in session.editor.text())
        if how == "cancel":
            await session.agent.cancel(session_id=session.session_id)
        await running
        await session.prompt("no, don't")
    said = [(m["role"], m["content"]) for m in model.asked[-1]["messages"][1:]]
    assert said == [
        ("user", "go"), ("assistant", "I delete everything"), ("user", "no, don't"),
    ]  # fmt: skip


NO_PROMPTS: list[Any] = [
    "words",
    [None],
    [{"type": "text", "text": 5}],
    [{"type": "image", "data": 5, "mimeType": "x"}],
    [{"type": "resource", "resource": {"uri": 7, "text": "x"}}],
    [{"type": "resource", "resource": 3}],
    [{"type": "resource"}],
]


async def test_a_prompt_that_is_none_is_refused_and_the_session_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with opened(model.url, tmp_path, work) as session:
        for prompt in NO_PROMPTS:
            with pytest.raises(acp.RequestError, match="`prompt") as refused:
                await session.agent._conn.send_request(
                    "session/prompt", {"sessionId": session.session_id, "prompt": prompt}
                )
            assert refused.value.code == -32602, prompt
        assert (await session.prompt("hello")).stop_reason == "end_turn"


async def test_a_folder_that_is_not_there_is_refused_by_its_name(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with connected(model.url, tmp_path) as session:
        with pytest.raises(acp.RequestError, match="gone"):
            await session.agent.new_session(cwd=str(work / "gone"), mcp_servers=[])


async def test_a_name_with_key_in_it_is_no_missing_key(tmp_path: Path, work: Path) -> None:
    async with opened("http://monkey.invalid:9", tmp_path, work) as session:
        assert session.session_id


async def test_a_default_model_that_is_not_listed_is_said(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with opened(model.url, tmp_path, work, HELEXA_ACP_MODEL="nope") as session:
        await session.prompt("hello")
        notes = session.editor.text("agent_thought_chunk")
    assert "does not list its default model nope" in notes


async def test_a_variable_that_the_editor_does_not_pass_on_is_named(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models_status = 401
    (tmp_path / "helexa-acp").mkdir()
    (tmp_path / "helexa-acp" / "config.toml").write_text(
        f'[[endpoints]]\nname = "a"\nbase_url = "{model.url}"\napi_key_env = "NOT_PASSED_ON"\n'
    )
    async with connected("", tmp_path) as session:
        with pytest.raises(acp.RequestError, match="NOT_PASSED_ON is not set"):
            await session.agent.new_session(cwd=str(work), mcp_servers=[])


async def test_an_answer_that_ends_like_a_call_is_shown_to_its_end(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models[0]["tool_call"] = False
    model.say("Write a <tool")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("how?")
        assert session.editor.text() == "Write a <tool"


async def test_a_page_or_a_rule_that_is_cut_says_so(
    model: Model, tmp_path: Path, work: Path
) -> None:
    (work / "AGENTS.md").write_text("be kind\n" * 10_000)
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hello")
    assert "(cut: the file has 79,999 characters)" in model.asked[0]["messages"][0]["content"]


async def test_a_page_that_leads_to_another_host_is_asked_about_again(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async def elsewhere(body: dict[str, Any], write: Write) -> None:
        port = server.rsplit(":", 1)[1]
        to = f"http://localhost:{port}/b" if body["_path"] == "/a" else "/c"
        head = f"HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n"
        if body["_path"] == "/c":
            head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n"
        await write(
            f"{head}connection: close\r\n\r\n{'page' if body['_path'] == '/c' else ''}".encode()
        )

    with serving_in_thread(elsewhere) as server:
        pages = [("fetch_url", {"url": f"{server}/{name}"}) for name in ("a", "same", "a b")]
        other, same, wrong = await told(model, tmp_path, work, *pages)
    assert "leads to http://localhost" in other
    assert same == "page"
    assert "cannot be had" in wrong


async def test_an_undo_leaves_alone_what_the_user_has_changed_since(
    model: Model, tmp_path: Path, work: Path
) -> None:
    for name in ("mine.txt", "yours.txt"):
        (work / name).write_text("before\n")
    calls = [
        ("write_file", {"path": name, "content": "after\n"}) for name in ("mine.txt", "yours.txt")
    ]
    model.say(Reply(calls=calls), "Done.")
    async with opened(model.url, tmp_path, work, read=False, write=False) as session:
        await session.prompt("write both")
        (work / "mine.txt").write_text("after, and an hour of my work\n")
        session.editor.updates.clear()
        await session.prompt("/undo")
        said = session.editor.text()
    assert said == "Restored: yours.txt. Left alone, because changed since: mine.txt."
    assert (work / "mine.txt").read_text() == "after, and an hour of my work\n"
    assert (work / "yours.txt").read_text() == "before\n"


@pytest.mark.parametrize("plain", [False, True])
async def test_a_call_that_was_cut_off_writes_no_half_of_a_file(
    model: Model, tmp_path: Path, work: Path, plain: bool
) -> None:
    path = work / "a.py"
    path.write_text("whole\n")
    half = '{"path": "a.py", "content": "line 1\\nli'
    if plain:
        model.models[0]["tool_call"] = False
        call = f'<tool_call>{{"name": "write_file", "arguments": {half}'
        model.say(Reply(call, finish="length"), "In parts, then.")
    else:
        model.say(Reply(calls=[("write_file", half)], finish="length"), "In parts, then.")
    async with opened(model.url, tmp_path, work) as session:
        await session.agent.set_session_mode(session_id=session.session_id, mode_id="full_access")
        await session.prompt("write it")
        (call_,) = session.editor.calls().values()
        assert call_["status"] == "failed"
        assert session.editor.text().endswith("In parts, then.")
    assert path.read_text() == "whole\n"
    assert "in the middle of this call" in model.asked[1]["messages"][-1]["content"]


async def test_an_end_that_does_not_explain_itself_is_said(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say("", Reply("Half an ans", finish="length", cut_by="budget"))
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "without an answer" in session.editor.text()
        ended = await session.prompt("again")
        assert ended.stop_reason == "max_tokens"
        assert "cut here: the budget of this key is spent" in session.editor.text()


async def test_a_command_ends_with_itself_and_not_with_what_it_leaves_running(
    model: Model, tmp_path: Path, work: Path
) -> None:
    command = {"command": "sleep 600 & echo $!", "timeout_secs": 300}
    model.say(Reply(calls=[("run_command", command)]), "Started.")
    async with opened(model.url, tmp_path, work, terminal=False) as session:
        await session.prompt("start it")
    said = model.asked[1]["messages"][-1]["content"]
    assert "exit status 0" in said
    assert "left running in the background was ended" in said


async def test_a_terminal_says_what_was_left_out_and_that_the_user_stopped_it(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models[0]["limit"] = {"context": 100_000}
    model.say(
        Reply(calls=[("run_command", {"command": "seq 20000"})]),
        Reply(calls=[("run_command", {"command": "echo up; exec sleep 600"})]),
        "Stopped.",
    )
    async with opened(model.url, tmp_path, work) as session:
        editor = session.editor
        running = asyncio.ensure_future(session.prompt("run"))
        await editor.until(lambda: len(editor.terminals) == 2)
        await editor.kill_terminal(session.session_id, "t1")
        await running
        assert [call["status"] for call in editor.calls().values()] == ["completed", "failed"]
    counted, stopped = (m["content"] for m in model.asked[2]["messages"] if m["role"] == "tool")
    assert counted.startswith("(the beginning is left out)")
    assert counted.endswith("20000\n(exit status 0)")
    assert stopped.endswith("(stopped by SIGKILL; it had not finished)")
