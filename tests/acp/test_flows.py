from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import acp
import pytest
from tests.acp.editor import Editor, connected, opened
from tests.acp.model import Model, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
def work(work: Path) -> Path:
    (work / "hello.py").write_text("def greet():\n    return 'hello'\n")
    return work


async def test_an_answer_streams_with_its_thoughts_and_its_usage(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Good morning.", thought="be polite"))
    async with opened(model.url, tmp_path, work) as session:
        answer = await session.prompt("hello")
        editor = session.editor
        assert answer.stop_reason == "end_turn"
        assert editor.text() == "Good morning."
        assert editor.text("agent_thought_chunk") == "be polite"
        assert [u.message_id for u in editor.updates if u.session_update == "agent_message_chunk"]
        usage = next(u for u in editor.updates if u.session_update == "usage_update")
        assert (usage.used, usage.size) == (107, 8000)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 7)
        assert next(u for u in editor.updates if u.session_update == "session_info_update").title


async def test_the_pickers_come_from_the_live_list_of_models(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.models = [
        {"id": "big", "limit": {"context": 131072}, "loaded": False, "tool_call": True},
        {"id": "small", "limit": {"context": 8000}, "loaded": True, "tool_call": True},
    ]
    async with opened(model.url, tmp_path, work) as session:
        options = {option.id: option for option in session.state.config_options}
        assert {o.category for o in options.values()} == {"model", "thought_level", "mode"}
        assert options["model"].current_value == "environment:small"
        described = {o.value: o.description for o in options["model"].options}
        assert "131,072 tokens, asleep" in described["environment:big"]
        changed = await session.agent.set_config_option(
            config_id="model", session_id=session.session_id, value="environment:big"
        )
        assert changed.config_options[0].current_value == "environment:big"
        await session.prompt("hi")
    assert model.asked[0]["model"] == "big"


async def test_a_file_is_read_as_the_user_sees_it_unsaved_changes_included(
    model: Model, tmp_path: Path, work: Path
) -> None:
    path = str(work / "hello.py")
    model.say(Reply(calls=[("read_file", {"path": "hello.py"})]), "It says unsaved.")
    editor = Editor(buffers={path: "unsaved = True\n"})
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.prompt("read it")
    result = model.asked[1]["messages"][-1]
    assert (result["role"], result["tool_call_id"]) == ("tool", "c0")
    assert "unsaved = True" in result["content"]
    (call,) = editor.calls().values()
    assert (call["status"], call["kind"], call["title"]) == ("completed", "read", "Read hello.py")
    assert call["locations"] == [{"path": path, "line": 1}]
    assert call["rawInput"] == {"path": "hello.py"}


EDIT = ("edit_file", {"path": "hello.py", "edits": [{"old_text": "'hello'", "new_text": "'hi'"}]})


async def test_an_edit_is_shown_as_a_diff_before_the_user_decides(
    model: Model, tmp_path: Path, work: Path
) -> None:
    shown: list[Any] = []

    def decide(call: Any) -> str:
        shown.append(call.content[0])
        assert "'hello'" in (work / "hello.py").read_text()
        return "allow_once"

    model.say(Reply(calls=[EDIT]), "Done.")
    editor = Editor(answer=decide)
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.prompt("say hi")
    assert shown[0].type == "diff"
    assert (shown[0].old_text, shown[0].new_text) == (
        "def greet():\n    return 'hello'\n", "def greet():\n    return 'hi'\n",
    )  # fmt: skip
    assert editor.written == [str(work / "hello.py")]
    assert "'hi'" in (work / "hello.py").read_text()


async def test_a_rejected_edit_is_told_to_the_model_which_goes_on(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(calls=[EDIT]), "Then not.")
    editor = Editor(answer=lambda _: "reject_once")
    async with opened(model.url, tmp_path, work, editor) as session:
        answer = await session.prompt("say hi")
    assert answer.stop_reason == "end_turn"
    assert "did not allow" in model.asked[1]["messages"][-1]["content"]
    assert editor.text() == "Then not."
    assert "'hello'" in (work / "hello.py").read_text()
    assert next(iter(editor.calls().values()))["status"] == "failed"


async def test_always_is_remembered_for_the_session_and_asked_only_once(
    model: Model, tmp_path: Path, work: Path
) -> None:
    back = {"path": "hello.py", "edits": [{"old_text": "'hi'", "new_text": "'hello'"}]}
    model.say(Reply(calls=[EDIT]), Reply(calls=[("edit_file", back)]), "Done.")
    editor = Editor(answer=lambda _: "allow_always")
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.prompt("there and back")
    assert len(editor.asked) == 1
    assert "'hello'" in (work / "hello.py").read_text()


async def test_a_command_runs_in_a_terminal_of_the_editor(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(calls=[("run_command", {"command": "echo out; exit 3"})]), "It failed.")
    editor = Editor()
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.prompt("run it")
    assert model.asked[1]["messages"][-1]["content"] == "out\n(exit status 3)"
    (call,) = editor.calls().values()
    assert (call["kind"], call["status"]) == ("execute", "failed")
    assert call["content"] == [{"type": "terminal", "terminalId": "t0"}]
    assert editor.released == ["t0"]


@pytest.mark.parametrize("offers", ["nothing", "files", "terminal"])
async def test_what_the_editor_does_not_offer_is_done_here(
    model: Model, tmp_path: Path, work: Path, offers: str
) -> None:
    model.say(
        Reply(calls=[("read_file", {"path": "hello.py"}), EDIT]),
        Reply(calls=[("run_command", {"command": "cat hello.py"})]),
        "Done.",
    )
    editor = Editor()
    files, terminal = offers == "files", offers == "terminal"
    async with opened(
        model.url, tmp_path, work, editor, read=files, write=files, terminal=terminal
    ) as session:
        await session.prompt("change and show it")
    assert "'hi'" in (work / "hello.py").read_text()
    assert "return 'hi'" in model.asked[2]["messages"][-1]["content"]
    assert bool(editor.terminals) == terminal
    assert bool(editor.written) == files


async def test_plan_mode_reads_and_plans_and_changes_nothing(
    model: Model, tmp_path: Path, work: Path
) -> None:
    steps = [{"content": "greet better", "status": "in_progress"}]
    model.say(Reply(calls=[("todo", {"steps": steps}), EDIT]), "That is the plan.")
    editor = Editor()
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.agent.set_session_mode(session_id=session.session_id, mode_id="plan")
        await session.prompt("plan it")
    plan = next(u for u in editor.updates if u.session_update == "plan")
    assert [(e.content, e.status) for e in plan.entries] == [("greet better", "in_progress")]
    assert "Only a plan is wanted" in model.asked[1]["messages"][-1]["content"]
    assert "Only a plan is wanted now" in model.asked[0]["messages"][0]["content"]
    assert editor.asked == []
    assert "current_mode_update" in editor.kinds()


@pytest.mark.parametrize(("mode", "asked"), [("ask", 2), ("accept_edits", 1), ("full_access", 0)])
async def test_modes_ask_as_much_as_they_say(
    model: Model, tmp_path: Path, work: Path, mode: str, asked: int
) -> None:
    model.say(Reply(calls=[EDIT, ("run_command", {"command": "true"})]), "Done.")
    editor = Editor()
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.agent.set_config_option(
            config_id="mode", session_id=session.session_id, value=mode
        )
        await session.prompt("do both")
    assert len(editor.asked) == asked


@pytest.mark.parametrize("path", ["../outside.txt", "/etc/passwd", "link/passwd"])
async def test_nothing_outside_the_workspace_is_read(
    model: Model, tmp_path: Path, work: Path, path: str
) -> None:
    (tmp_path / "outside.txt").write_text("secret")
    (work / "link").symlink_to("/etc")
    model.say(Reply(calls=[("read_file", {"path": path})]), "I may not.")
    async with opened(model.url, tmp_path, work, read=False) as session:
        await session.prompt("read it")
    assert "outside of the workspace" in model.asked[1]["messages"][-1]["content"]


async def test_files_and_pictures_of_the_prompt_reach_the_model(
    model: Model, tmp_path: Path, work: Path
) -> None:
    picture = base64.b64encode(b"png").decode()
    embedded = acp.resource_block(
        acp.embedded_text_resource(f"file://{work}/a%20b.py", "x = 1", mime_type="text/x-python")
    )
    link = acp.resource_link_block("hello.py", f"file://{work}/hello.py")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("look", acp.image_block(picture, "image/png"), embedded, link)
    content = model.asked[0]["messages"][1]["content"]
    assert content[1]["image_url"]["url"] == f"data:image/png;base64,{picture}"
    assert f'<file path="{work}/a b.py">\nx = 1' in content[2]["text"]
    assert content[3]["text"] == f"[hello.py]({work}/hello.py)"


async def test_the_workspaces_rules_are_read_and_shown_to_be(
    model: Model, tmp_path: Path, work: Path
) -> None:
    (work / "AGENTS.md").write_text("Always write tests.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        assert "AGENTS.md" in session.editor.text("agent_thought_chunk")
    assert "Always write tests." in model.asked[0]["messages"][0]["content"]


async def test_a_session_comes_back_as_it_was_after_kill_9(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply("Reading.", thought="hm", calls=[("read_file", {"path": "hello.py"})]), "Read.")
    async with opened(model.url, tmp_path, work) as first:
        await first.agent.set_session_mode(session_id=first.session_id, mode_id="accept_edits")
        await first.prompt("read it")
        first.process.kill()
    async with connected(model.url, tmp_path) as again:
        listed = await again.agent.list_sessions(cwd=str(work))
        assert [s.title for s in listed.sessions] == ["read it"]
        assert listed.sessions[0].session_id == first.session_id
        state = await again.agent.load_session(
            cwd=str(work), session_id=first.session_id, mcp_servers=[]
        )
        assert state.modes.current_mode_id == "accept_edits"
        editor = again.editor
        assert editor.text("user_message_chunk") == "read it"
        assert editor.text() == "Reading.Read."
        assert editor.text("agent_thought_chunk").startswith("hm")
        (call,) = editor.calls().values()
        assert (call["status"], call["title"]) == ("completed", "Read hello.py")
        again.session_id = first.session_id
        await again.prompt("and now?")
    roles = [message["role"] for message in model.asked[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]


async def test_sessions_are_resumed_without_replay_closed_and_deleted(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("one")
        await session.agent.close_session(session_id=session.session_id)
        session.editor.updates.clear()
        await session.agent.resume_session(
            cwd=str(work), session_id=session.session_id, mcp_servers=[]
        )
        assert session.editor.text("user_message_chunk") == ""
        await session.prompt("two")
        assert [m["role"] for m in model.asked[-1]["messages"]][-3:] == [
            "user", "assistant", "user",
        ]  # fmt: skip
        await session.agent._conn.send_request("session/delete", {"sessionId": session.session_id})
        assert (await session.agent.list_sessions()).sessions == []


async def test_two_sessions_answer_at_once(model: Model, tmp_path: Path, work: Path) -> None:
    over = Event()
    model.say(Reply("slow", until=over.is_set), "fast")
    async with opened(model.url, tmp_path, work) as session:
        other = await session.agent.new_session(cwd=str(work), mcp_servers=[])
        slow = asyncio.ensure_future(session.prompt("one"))
        await session.editor.until(lambda: "slow" in session.editor.text())
        await session.agent.prompt(session_id=other.session_id, prompt=[acp.text_block("two")])
        assert not slow.done()
        over.set()
        assert (await slow).stop_reason == "end_turn"


@pytest.mark.parametrize("when", ["stream", "command", "permission"])
async def test_cancel_is_immediate_everywhere(
    model: Model, tmp_path: Path, work: Path, when: str
) -> None:
    if when == "stream":
        model.say(Reply("I will", hold=200))
    else:
        model.say(Reply(calls=[("run_command", {"command": "sleep 200"})]))
    editor = Editor(answer=lambda _: "wait" if when == "permission" else "allow_once")
    async with opened(model.url, tmp_path, work, editor) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        reached: dict[str, Callable[[], object]] = {
            "stream": editor.text,
            "command": lambda: editor.terminals,
            "permission": lambda: editor.asked,
        }
        await editor.until(reached[when])
        await session.agent.cancel(session_id=session.session_id)
        answer = await asyncio.wait_for(running, 60)  # less than what was asked for takes
        assert answer.stop_reason == "cancelled"
        if when == "command":
            assert editor.terminals["t0"].killed
            assert editor.released == ["t0"]
        await session.prompt("still there?")
    roles = [message["role"] for message in model.asked[-1]["messages"]]
    # Whatever was cancelled, every call has its result.
    expected = ["system", "user", "assistant", "user"] if when == "stream" else [
        "system", "user", "assistant", "tool", "user",
    ]  # fmt: skip
    assert roles == expected


async def test_undo_takes_back_what_the_last_turn_changed(
    model: Model, tmp_path: Path, work: Path
) -> None:
    new = ("write_file", {"path": "new.txt", "content": "x"})
    model.say(Reply(calls=[EDIT, new]), "Done.")
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("change")
        assert (work / "new.txt").exists()
        await session.prompt("/undo")
        assert "Restored: new.txt, hello.py" in session.editor.text()
    assert not (work / "new.txt").exists()
    assert "'hello'" in (work / "hello.py").read_text()


async def test_slash_commands_are_offered_and_answer(
    model: Model, tmp_path: Path, work: Path
) -> None:
    async with opened(model.url, tmp_path, work) as session:
        await session.prompt("hi")
        await session.prompt("/cost")
        await session.prompt("/model")
        await session.prompt("/review tests only")
        offered = next(
            u for u in session.editor.updates if u.session_update == "available_commands_update"
        )
        names = {command.name for command in offered.available_commands}
        assert names == {"compact", "model", "plan", "review", "init", "undo", "cost"}
        assert "100 prompt and 7 output tokens" in session.editor.text()
        assert "There are: environment:m" in session.editor.text()
    assert "tests only" in model.asked[-1]["messages"][-1]["content"]
