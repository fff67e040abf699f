"""The long runs of ``benchmarks/``, short: exact counts over a crowd, and random faults.

They start nodes and engines of their own and kill engines, so each takes some seconds; the whole
runs are part of ``make soak``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BUSY_S = 280  # on a machine that has other things to do
pytestmark = pytest.mark.timeout(BUSY_S + 10)
ROOT = Path(__file__).resolve().parents[3]


def run(name: str, *options: str) -> str:
    """What a benchmark printed; it fails when it misses a bar."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUSY_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_is_billed_is_what_the_engine_said_over_a_crowd_of_mixed_requests() -> None:
    said = run("metering", "--requests", "250", "--kills", "1")
    assert "requests that are off by anything" in said


def test_the_daemon_lives_through_random_faults_and_every_request_ends_cleanly() -> None:
    said = run("chaos", "--faults", "7", "--seed", "3")
    assert "processes left" in said
