"""The folders of households: each while anybody of it lives, and no longer than to the next."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helexa.cli.scratch import Scratch, sweep


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_is_kept_while_a_child_lives_that_inherited_it() -> None:
    mine = Scratch()
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(mine.lock,)
    )
    assert sweep() == []
    os.close(mine.lock)  # as when we are killed
    assert sweep() == []
    child.communicate(b"\n", timeout=60)
    assert sweep() == [mine.path]
    assert not mine.path.exists()


def test_what_ends_in_order_leaves_nothing() -> None:
    mine = Scratch()
    (mine.path / "neuron.toml").write_text("port = 1\n")
    mine.remove()
    mine.remove()
    assert not mine.path.exists()
    assert sweep() == []


def test_what_is_no_household_of_ours_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "elsewhere"
    theirs.mkdir()
    (theirs / "household.lock").touch()
    (tmp_path / "helexa-up-link").symlink_to(theirs)
    (tmp_path / "helexa-up-notes").mkdir()
    (tmp_path / "helexa-up-file").touch()
    assert sweep() == []
    assert (theirs / "household.lock").exists()
    assert (tmp_path / "helexa-up-notes").exists()
