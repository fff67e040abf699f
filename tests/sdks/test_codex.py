"""Codex, headless, against a real stack with the configuration that we print for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.sdks.conftest import node_modules
from tests.system.rig import Stack

from helexa.cli.app import helexa

pytestmark = [pytest.mark.sdks, pytest.mark.timeout(300)]


def hello(binary: Path, project: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """One headless turn."""
    return subprocess.run(
        [binary, "exec", "--json", "--skip-git-repo-check", "Say hello"],
        cwd=project,
        env=os.environ | environ | {"HELEXA_KEY": "sk-open"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_a_headless_session_is_answered_with_the_file_we_wrote(
    stack: Stack, cache: Path, tmp_path: Path
) -> None:
    binary = node_modules(cache, "@openai/codex@0") / "node_modules" / ".bin" / "codex"
    home, project = tmp_path / "codex", tmp_path / "project"
    home.mkdir()
    project.mkdir()
    asked = ["client-config", "codex", "--endpoint", stack.url, "--key", "sk-open"]
    written = CliRunner().invoke(helexa, [*asked, "--output", str(home / "config.toml")])
    assert written.exit_code == 0, written.output
    environ = {"CODEX_HOME": str(home), "HOME": str(tmp_path), "PWD": str(project)}
    done = hello(binary, project, environ)
    for _ in range(2):
        # The model samples, and under so long a prompt it rambles to its cap now and then: a turn
        # that Codex fails, as it should.
        if "reason: max_output_tokens" in done.stdout:
            done = hello(binary, project, environ)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert "is ignored" not in done.stdout
    [end] = [event for event in found if event["type"] == "turn.completed"]
    assert end["usage"]["output_tokens"] > 0
    said = [event["item"] for event in found if event["type"] == "item.completed"]
    assert any(item["type"] == "agent_message" and item["text"] for item in said)
