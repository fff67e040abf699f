"""What stands at the agent's input where no editor does."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import IO

AGENT = [sys.executable, "-m", "helexa.cli", "acp"]


def run(given: IO[bytes] | int, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    return subprocess.run(
        AGENT, stdin=given, capture_output=True, text=True, timeout=90, check=False, env=environ
    )


def test_an_input_that_is_empty_for_good_ends_the_agent(tmp_path: Path) -> None:
    done = run(subprocess.DEVNULL, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    file.write_text("nonsense\n" * 3)
    with file.open("rb") as said:
        done = run(said, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["error"]["code"] for answer in answers] == [-32700] * 3


def test_somebody_at_a_terminal_is_told_what_belongs_there(tmp_path: Path) -> None:
    terminal, ours = pty.openpty()
    try:
        os.write(terminal, b"\x04")  # Ctrl-D
        done = run(ours, tmp_path)
    finally:
        os.close(ours)
        os.close(terminal)
    assert done.returncode == 0
    assert "an editor should start this" in done.stderr
    assert "--doctor" in done.stderr
