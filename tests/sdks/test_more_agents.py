"""Further agents and command lines, headless, with the configuration that we print for each.

Where the built-in model would wander through an agent's long prompt, the node's answers are
written down: what is proven is that the client understands our stream and we its requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cortex.exchange.rig import DONE, FINISH, MODEL, delta, event, fleet, usage
from tests.cortex.fake_node import Turn
from tests.sdks.conftest import node_modules, python_target
from tests.system.rig import Stack

from helexa.cli.app import helexa

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(400)]


def written(client: str, url: str, at: Path) -> None:
    """The file that ``helexa client-config`` writes for a client."""
    at.parent.mkdir(parents=True, exist_ok=True)
    done = CliRunner().invoke(
        helexa, ["client-config", client, "--endpoint", url, "--output", str(at)]
    )
    assert done.exit_code == 0, done.output


def project(folder: Path) -> Path:
    """A repository with one file."""
    folder.mkdir()
    (folder / "a.txt").write_text("Hello from a file.\n")
    subprocess.run(["git", "init", "-q", str(folder)], check=True, timeout=20)
    return folder


async def headless(*command: str, cwd: Path, home: Path, **environ: str) -> str:
    """What a client prints that must end well."""
    await asyncio.to_thread(home.mkdir, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**kept, "HOME": str(home), "PWD": str(cwd), **environ},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(200):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = out.decode()
    assert process.returncode == 0, f"{said}\n{err.decode()}"[-3000:]
    return said


def call(name: str, arguments: dict[str, str]) -> bytes:
    """A tool call, its arguments in two pieces."""
    text = json.dumps(arguments)
    head = {"index": 0, "id": "call_1", "type": "function",
            "function": {"name": name, "arguments": text[:5]}}  # fmt: skip
    rest = {"index": 0, "function": {"arguments": text[5:]}}
    return b"".join(
        event({"choices": [{"index": 0, "delta": {"tool_calls": [part]}, "finish_reason": None}]})
        for part in (head, rest)
    )


class Reads:
    """A node that has the client read ``file`` and then says what it saw."""

    def __init__(self, tool: str, argument: str, file: Path) -> None:
        self._call = call(tool, {argument: str(file)})
        self.results: list[str] = []

    async def __call__(self, turn: Turn) -> None:
        tools = [m for m in turn.body["messages"] if m["role"] == "tool"]
        if not turn.body.get("tools"):
            turn.stream(delta("A title"), FINISH, usage(), DONE)
        elif not tools:
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
            turn.stream(self._call, event(end), usage(), DONE)
        else:
            self.results.append(json.dumps(tools[-1]["content"]))
            turn.stream(delta("It greets"), delta(" you."), FINISH, usage(), DONE)


@pytest.mark.anyio
async def test_qwen_code_calls_a_tool_with_the_file_we_wrote(cache: Path, tmp_path: Path) -> None:
    folder = node_modules(cache, "@qwen-code/qwen-code@0")
    at, home = project(tmp_path / "project"), tmp_path / "home"
    reads = Reads("read_file", "file_path", at / "a.txt")
    async with fleet(reads) as (gateway, _):
        url = f"http://127.0.0.1:{gateway.port}"
        await asyncio.to_thread(written, "qwen-code", url, home / ".qwen" / "settings.json")
        said = await headless(
            str(folder / "node_modules" / ".bin" / "qwen"), "-p", "Read a.txt", "-y",
            cwd=at, home=home,
        )  # fmt: skip
    assert "It greets you." in said
    assert any("Hello from a file." in result for result in reads.results), reads.results


@pytest.mark.anyio
async def test_pi_calls_a_tool_with_the_file_we_wrote(cache: Path, tmp_path: Path) -> None:
    folder = node_modules(cache, "@mariozechner/pi-coding-agent@0")
    at, home = project(tmp_path / "project"), tmp_path / "home"
    reads = Reads("read", "path", at / "a.txt")
    async with fleet(reads) as (gateway, _):
        url = f"http://127.0.0.1:{gateway.port}"
        await asyncio.to_thread(written, "pi", url, home / ".pi" / "agent" / "models.json")
        said = await headless(
            str(folder / "node_modules" / ".bin" / "pi"), "--offline", "--no-session",
            "--provider", "helexa", "--model", MODEL, "-p", "Read a.txt",
            cwd=at, home=home,
        )  # fmt: skip
    assert "It greets you." in said
    assert any("Hello from a file." in result for result in reads.results), reads.results


@pytest.mark.anyio
async def test_llm_answers_plainly_streamed_and_by_schema_with_the_file_we_wrote(
    stack: Stack, cache: Path, tmp_path: Path
) -> None:
    folder = python_target(cache, "llm>=0.26,<1")
    home = tmp_path / "llm"
    await asyncio.to_thread(written, "llm", stack.url, home / "extra-openai-models.yaml")
    ask = [sys.executable, "-S", "-m", "llm", "prompt", "-m", "helexa/spark", "--key", "sk-open"]
    environ = {"PYTHONPATH": str(folder), "LLM_USER_PATH": str(home)}
    for more in ([], ["--no-stream"]):
        said = await headless(*ask, *more, "Say hello", cwd=tmp_path, home=home, **environ)
        assert said.strip()
    # Of words that the schema names: a small model may not find the end of a free one.
    schema = {"type": "object", "properties": {"kind": {"enum": ["dog", "cat"]}},
              "required": ["kind"], "additionalProperties": False}  # fmt: skip
    said = await headless(
        *ask, "--schema", json.dumps(schema), "A dog", cwd=tmp_path, home=home, **environ
    )
    assert json.loads(said)["kind"] in ("dog", "cat")


@pytest.mark.anyio
async def test_aider_talks_over_a_file_with_the_files_we_wrote(
    stack: Stack, cache: Path, tmp_path: Path
) -> None:
    folder = python_target(cache, "aider-chat>=0.86,<1")
    at, home = project(tmp_path / "project"), tmp_path / "home"
    await asyncio.to_thread(written, "aider", stack.url, at / ".aider.conf.yml")
    models = at / ".aider.model.metadata.json"
    await asyncio.to_thread(written, "aider-models", stack.url, models)
    said = await headless(
        sys.executable, "-S", "-m", "aider", "--message", "Say hello", "--yes-always",
        "--no-check-update", "--analytics-disable", "--no-auto-commits", "--no-gitignore",
        "--map-tokens", "0", "a.txt",
        cwd=at, home=home, PYTHONPATH=str(folder), LITELLM_LOCAL_MODEL_COST_MAP="True",
    )  # fmt: skip
    assert "Tokens:" in said
    assert "error" not in said.lower()
