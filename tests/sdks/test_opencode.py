"""opencode, headless, against a real stack with the configuration that we print for it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.cortex.exchange.rig import MODEL, fleet
from tests.cortex.fake_node import Turn
from tests.sdks.conftest import node_modules
from tests.system.rig import Stack

from helexa.cli.app import helexa
from helexa.core.errors import ContextLengthExceeded
from helexa.wire import errors as wire

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(600)]

TITLE = "You are a title generator"
MOST_MORE = 3
"""opencode gives up on a model that calls one tool three times, and a model as small as ours
does so now and then."""


@pytest.fixture(scope="module")
def opencode(cache: Path) -> str:
    return str(node_modules(cache, "opencode-ai@1") / "node_modules" / ".bin" / "opencode")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "a.txt").write_text("Hello from a file.\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    return folder


def environment(project: Path) -> dict[str, str]:
    """A home of its own, and nothing fetched that we do not serve."""
    home = project.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "OPENCODE_"))}
    return {
        **kept,
        "HOME": str(home),
        "PWD": str(project),  # where it looks for its configuration
        "HELEXA_KEY": "sk-open",
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }


def session(opencode: str, project: Path, asked: str) -> subprocess.CompletedProcess[str]:
    """One, without anybody at the keyboard."""
    return subprocess.run(
        [opencode, "run", "--format", "json", asked],
        cwd=project,
        env=environment(project),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def events(said: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{")]


def test_a_headless_session_calls_a_tool_with_the_file_we_wrote(
    stack: Stack, opencode: str, project: Path
) -> None:
    asked = ["client-config", "opencode", "--endpoint", stack.url, "--key", "sk-open"]
    written = CliRunner().invoke(helexa, [*asked, "--output", str(project / "opencode.json")])
    assert written.exit_code == 0, written.output
    done = session(opencode, project, "Read a.txt")
    for _ in range(MOST_MORE):
        if "doom_loop" not in done.stderr:
            break
        done = session(opencode, project, "Read a.txt")
    assert done.returncode == 0, done.stdout + done.stderr
    found = events(done.stdout)
    kinds = [event["type"] for event in found]
    assert "tool_use" in kinds, done.stdout
    last = [event["part"] for event in found if event["type"] == "step_finish"][-1]
    assert last["reason"] in ("stop", "length", "tool-calls")
    assert last["tokens"]["output"] > 0
    assert "error" not in kinds


@pytest.mark.anyio
@pytest.mark.parametrize("limit", [15_000, 42_900, 65_536])
async def test_an_overflow_is_compacted_and_never_retried(
    opencode: str, project: Path, limit: int
) -> None:
    refused: list[str] = []

    async def overflows(turn: Turn) -> None:
        system = json.dumps(turn.body["messages"][0])
        refused.append("title" if TITLE in system else "turn")
        rendered = wire.render(ContextLengthExceeded(limit + 4_290, limit), "openai")
        turn.plain(json.loads(rendered.body), rendered.status)

    async with fleet(overflows) as (gateway, _):
        config = {
            "provider": {
                "helexa": {
                    "npm": "@ai-sdk/openai-compatible",
                    "options": {"baseURL": f"http://127.0.0.1:{gateway.port}/v1", "apiKey": "any"},
                    "models": {MODEL: {"limit": {"context": limit, "output": 2048}}},
                }
            },
            "model": f"helexa/{MODEL}",
            "small_model": f"helexa/{MODEL}",
        }
        (project / "opencode.json").write_text(json.dumps(config))
        process = await asyncio.create_subprocess_exec(
            opencode, "run", "--format", "json", "Read a.txt",
            cwd=project, env=environment(project), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            async with asyncio.timeout(270):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    said = out.decode() + err.decode()
    # The turn, and the summary of it that is refused as well.
    assert 1 <= refused.count("turn") <= 3, (refused, said)
    assert "maximum context length" in said or "ContextOverflow" in said, said
