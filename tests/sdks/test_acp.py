"""The editor bridge against the protocol's published schema, and with a client that is not ours."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tests.acp.editor import Editor, connected, environment, opened
from tests.acp.model import Model, Reply, serving_model
from tests.sdks.conftest import node_modules

pytest.importorskip("acp")
pytestmark = [pytest.mark.sdks, pytest.mark.timeout(300)]

RESULTS = {
    "initialize": "InitializeResponse",
    "session/new": "NewSessionResponse",
    "session/load": "LoadSessionResponse",
    "session/list": "ListSessionsResponse",
    "session/prompt": "PromptResponse",
    "session/set_mode": "SetSessionModeResponse",
    "session/set_config_option": "SetSessionConfigOptionResponse",
}
ASKS = {
    "session/request_permission": "RequestPermissionRequest",
    "fs/read_text_file": "ReadTextFileRequest",
    "fs/write_text_file": "WriteTextFileRequest",
    "terminal/create": "CreateTerminalRequest",
    "terminal/wait_for_exit": "WaitForTerminalExitRequest",
    "terminal/output": "TerminalOutputRequest",
    "terminal/release": "ReleaseTerminalRequest",
    "session/update": "SessionNotification",
}
EDIT = ("edit_file", {"path": "a.txt", "edits": [{"old_text": "one", "new_text": "two"}]})


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def model() -> Iterator[Model]:
    with serving_model() as served:
        yield served


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "a.txt").write_text("one\n")
    return folder


Said = list[tuple[str, dict[str, Any]]]


def check(messages: Said, schema: dict[str, Any]) -> dict[str, int]:
    """Hold every message of the agent against its definition; how many of each there were."""
    methods: dict[Any, str] = {
        m["id"]: m["method"]
        for way, m in messages
        if way == "outgoing" and "id" in m and "method" in m
    }
    counts: dict[str, int] = {}
    validators: dict[str, Any] = {}
    for message in (m for way, m in messages if way == "incoming"):
        if message.get("method") in ASKS:
            name, value = ASKS[message["method"]], message["params"]
        elif "result" in message and methods.get(message["id"]) in RESULTS:
            name, value = RESULTS[methods[message["id"]]], message["result"]
        else:
            continue
        counts[name] = counts.get(name, 0) + 1
        if name not in validators:
            wanted = {"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]}
            validators[name] = jsonschema.Draft202012Validator(wanted)
        validators[name].validate(value)
    return counts


@pytest.mark.anyio
async def test_every_message_follows_the_published_schema(
    model: Model, tmp_path: Path, work: Path, cache: Path
) -> None:
    folder = node_modules(cache, "@agentclientprotocol/sdk")
    path = folder / "node_modules/@agentclientprotocol/sdk/schema/v1/schema.json"
    schema = json.loads(path.read_text())
    steps = [{"content": "look", "status": "completed"}]
    model.say(
        Reply("Let me see.", thought="hm", calls=[("read_file", {"path": "a.txt"}), EDIT]),
        Reply(calls=[("run_command", {"command": "cat a.txt"}), ("todo", {"steps": steps})]),
        Reply(calls=[("fly", {}), ("grep", {"pattern": "t"})]),
        "Done.",
    )
    seen: Said = []
    async with opened(model.url, tmp_path, work, Editor()) as session:
        await session.agent.set_session_mode(session_id=session.session_id, mode_id="ask")
        await session.agent.set_config_option(
            config_id="thinking", session_id=session.session_id, value="on"
        )
        await session.prompt("go")
        await session.prompt("/cost")
        seen += session.messages
    async with connected(model.url, tmp_path) as again:
        await again.agent.list_sessions()
        await again.agent.load_session(cwd=str(work), session_id=session.session_id, mcp_servers=[])
        loaded = again.messages
    counts = check(seen, schema)
    assert counts["SessionNotification"] > 20
    assert set(counts) >= {
        "InitializeResponse", "NewSessionResponse", "PromptResponse", "RequestPermissionRequest",
        "WriteTextFileRequest", "CreateTerminalRequest", "SetSessionConfigOptionResponse",
    }  # fmt: skip
    assert set(check(loaded, schema)) >= {"ListSessionsResponse", "LoadSessionResponse"}


@pytest.mark.parametrize(("policy", "text"), [("--approve-all", "two\n"), ("--deny-all", "one\n")])
def test_acpx_completes_a_session_with_approvals_and_one_with_denials(
    model: Model, tmp_path: Path, work: Path, cache: Path, policy: str, text: str
) -> None:
    folder = node_modules(cache, "acpx")
    model.say(Reply("I change it.", calls=[EDIT]), "That is all.")
    agent = shlex.join([sys.executable, "-m", "helexa.cli", "acp"])
    done = subprocess.run(
        [
            str(folder / "node_modules/.bin/acpx"), "--agent", agent, "--cwd", str(work), policy,
            "--format", "json", "--timeout", "60", "exec", "change the file",
        ],
        env=environment(tmp_path, model.url, HOME=str(tmp_path)),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert '"stopReason":"end_turn"' in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    assert (work / "a.txt").read_text() == text
    result = model.asked[1]["messages"][-1]
    assert result["role"] == "tool"
    assert ("did not allow" in result["content"]) == (policy == "--deny-all")
