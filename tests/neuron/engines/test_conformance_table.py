"""The table of engines in the docs is about the suite as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_table_has_a_row_for_every_case_and_a_column_for_every_engine() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/conformance.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
