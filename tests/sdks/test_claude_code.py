"""Claude Code, headless, against a real stack with the settings that we print for it."""

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


def test_a_headless_session_is_answered_with_the_settings_we_wrote(
    stack: Stack, cache: Path, tmp_path: Path
) -> None:
    binary = node_modules(cache, "@anthropic-ai/claude-code@2") / "node_modules/.bin/claude"
    (tmp_path / ".claude").mkdir()
    settings = tmp_path / ".claude" / "settings.json"
    asked = ["client-config", "claude-code", "--endpoint", stack.url, "--key", "sk-open"]
    written = CliRunner().invoke(helexa, [*asked, "--output", str(settings)])
    assert written.exit_code == 0, written.output
    # Its own system prompt and tools are longer than the built-in model's context.
    short = ["--system-prompt", "Be brief.", "--tools", ""]
    done = subprocess.run(
        [binary, "-p", "Say hello", "--output-format", "json", *short],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "IS_SANDBOX": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["is_error"] is False
    assert found["result"]
    assert found["usage"]["output_tokens"] > 0
    assert list(found["modelUsage"]) == ["helexa/spark"]
