"""What was done is told as done, and nothing of the user's is lost on the way."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from acp import schema
from tests.acp.editor import Editor, connected, opened
from tests.acp.model import Model, Reply

pytestmark = [pytest.mark.anyio]


def results(model: Model) -> list[str]:
    """What the model was last told of its calls."""
    return [m["content"] for m in model.asked[-1]["messages"] if m["role"] == "tool"]


async def test_what_was_done_before_a_cancel_is_told_as_done(
    model: Model, tmp_path: Path, work: Path
) -> None:
    write = ("write_file", {"path": "a.txt", "content": "x"})
    command = ("run_command", {"command": "sleep 200"})
    model.say(Reply(calls=[write, command, write]), "I see.")
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await session.editor.until(lambda: session.editor.terminals)
        await session.agent.cancel(session_id=session.session_id)
        assert (await asyncio.wait_for(running, 60)).stop_reason == "cancelled"
        await session.prompt("what have you done?")
    written, cancelled, never = results(model)
    assert "a.txt is written" in written
    assert "cancelled" in cancelled
    assert "cancelled" in never


@pytest.mark.parametrize("through_editor", [True, False])
async def test_a_file_that_changed_since_the_model_read_it_is_not_written_over(
    model: Model, tmp_path: Path, work: Path, *, through_editor: bool
) -> None:
    path = work / "a.txt"
    path.write_text("old\n")
    read = ("read_file", {"path": "a.txt"})
    write = ("write_file", {"path": "a.txt", "content": "new\n"})
    model.say(Reply(calls=[read]), "I have read it.", Reply(calls=[write]), "Oh.")
    async with opened(
        model.url, tmp_path, work, read=through_editor, write=through_editor
    ) as session:
        await session.prompt("read it")
        path.write_text("the user's\n")
        await session.prompt("write it")
        assert "changed since you read it" in results(model)[-1]
        assert path.read_text() == "the user's\n"
        model.say(Reply(calls=[read]), Reply(calls=[write]), Reply(calls=[write]), "Done.")
        await session.prompt("look again")
        assert path.read_text() == "new\n"


WRITE = """
import sys
from pathlib import Path
from helexa.acp.workspace import write
try:
    write(Path(sys.argv[1]), "n" * int(sys.argv[2]))
except OSError:
    sys.exit(9)
"""


@pytest.mark.parametrize("there", ["o" * 50_000, None])
def test_a_file_for_which_there_is_no_room_stays_as_it_was(
    tmp_path: Path, there: str | None
) -> None:
    path = tmp_path / "a.txt"
    if there is not None:
        path.write_text(there)
        path.chmod(0o640)

    def written(size: int) -> int:
        return subprocess.run(
            [sys.executable, "-B", "-c", WRITE, str(path), str(size)],
            timeout=60,
            check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
        ).returncode

    assert written(100_000) == 9
    assert (path.read_text() if path.exists() else None) == there
    assert written(10_000) == 0
    assert path.read_text() == "n" * 10_000
    assert there is None or path.stat().st_mode & 0o777 == 0o640


async def test_a_file_in_another_encoding_is_not_rewritten_as_the_editor_shows_it(
    model: Model, tmp_path: Path, work: Path
) -> None:
    path = work / "latin.txt"
    path.write_bytes(b"caf\xe9 one\n")
    editor = Editor(buffers={str(path): "caf\ufffd one\n"})  # decoded as UTF-8, with a sign for it
    edit = {"path": "latin.txt", "edits": [{"old_text": "one", "new_text": "two"}]}
    model.say(Reply(calls=[("edit_file", edit)]), "Oh.")
    async with opened(model.url, tmp_path, work, editor) as session:
        await session.prompt("edit it")
    assert "not UTF-8" in results(model)[-1]
    assert path.read_bytes() == b"caf\xe9 one\n"


async def test_a_search_that_would_never_end_ends_with_the_turn(
    model: Model, tmp_path: Path, work: Path
) -> None:
    (work / "a.txt").write_text("a" * 64 + "!\n")
    model.say(Reply(calls=[("grep", {"pattern": "(a+)+$"})]), "Still there.")
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("search"))
        await session.editor.until(
            lambda: any(c.get("status") == "in_progress" for c in session.editor.calls().values())
        )
        await session.agent.cancel(session_id=session.session_id)
        assert (await asyncio.wait_for(running, 60)).stop_reason == "cancelled"
        await session.prompt("are you there?")
    assert "Still there." in session.editor.text()


class SlowEditor(Editor):
    """Takes its time to make a terminal."""

    begun: bool = False
    go_on: asyncio.Event

    async def create_terminal(self, *args: Any, **more: Any) -> schema.CreateTerminalResponse:
        self.begun = True
        self.news.set()
        made = asyncio.ensure_future(self._late(*args, **more))
        return await asyncio.shield(made)  # a cancelled request does not stop it

    async def _late(self, *args: Any, **more: Any) -> schema.CreateTerminalResponse:
        await self.go_on.wait()
        return await super().create_terminal(*args, **more)


async def test_a_terminal_that_comes_after_the_cancel_is_ended_too(
    model: Model, tmp_path: Path, work: Path
) -> None:
    model.say(Reply(calls=[("run_command", {"command": "sleep 200"})]))
    editor = SlowEditor()
    editor.go_on = asyncio.Event()
    async with opened(model.url, tmp_path, work, editor) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await editor.until(lambda: editor.begun)
        await session.agent.cancel(session_id=session.session_id)
        editor.go_on.set()
        assert (await asyncio.wait_for(running, 60)).stop_reason == "cancelled"
        await editor.until(lambda: editor.released)
        assert editor.terminals["t0"].killed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_an_agent_that_is_told_to_end_ends_its_command_and_stores_the_turn(
    model: Model, tmp_path: Path, work: Path, number: int
) -> None:
    command = ("run_command", {"command": "echo $$ > pid; exec sleep 200"})
    model.say(Reply("I run it.", calls=[command]))
    async with opened(model.url, tmp_path, work, terminal=False) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await until(lambda: said(work / "pid"))
        session.process.send_signal(number)
        await asyncio.wait_for(session.process.wait(), 60)
        running.cancel()
    with pytest.raises(ProcessLookupError):
        os.kill(int(said(work / "pid")), 0)
    assert "I run it." in stored(tmp_path)


async def test_of_a_long_turn_what_was_done_is_there_after_kill_9(
    model: Model, tmp_path: Path, work: Path
) -> None:
    write = ("write_file", {"path": "a.txt", "content": "x"})
    model.say(Reply("I write.", calls=[write]), Reply("And now", hold=200))
    async with opened(model.url, tmp_path, work) as session:
        running = asyncio.ensure_future(session.prompt("go"))
        await session.editor.until(lambda: "And now" in session.editor.text())
        session.process.kill()
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(running, 60)
    async with connected(model.url, tmp_path) as again:
        await again.agent.load_session(cwd=str(work), session_id=session.session_id, mcp_servers=[])
        again.session_id = session.session_id
        model.say("Yes.")
        await again.prompt("have you written it?")
    assert results(model) == ["a.txt is written."]


def said(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def stored(folder: Path) -> str:
    return "".join(said(path) for path in folder.rglob("sessions/*.json"))


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not truth():
            await asyncio.sleep(0.02)
