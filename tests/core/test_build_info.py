from __future__ import annotations

import json
import subprocess
from pathlib import Path

from helexa.core import build_info


def package(tmp: Path) -> Path:
    folder = tmp / "src" / "helexa"
    folder.mkdir(parents=True)
    return folder


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def test_the_environment_overrides_what_is_known(tmp_path: Path) -> None:
    info = build_info.load({"HELEXA_BUILD_SHA": "a" * 40}, package(tmp_path))
    assert (info.git_sha, info.git_sha_long, info.git_dirty) == ("a" * 12, "a" * 40, False)


def test_a_wheel_says_what_the_build_hook_wrote(tmp_path: Path) -> None:
    folder = package(tmp_path)
    stamp = {
        "git_sha": "b" * 12,
        "git_sha_long": "b" * 40,
        "git_dirty": True,
        "build_timestamp": "2026-01-01T00:00:00Z",
    }
    (folder / "_build.json").write_text(json.dumps(stamp))
    info = build_info.load({}, folder)
    assert info.build_timestamp == "2026-01-01T00:00:00Z"
    assert info.one_line().endswith("(bbbbbbbbbbbb, dirty)")


def test_an_editable_install_asks_git_and_sees_uncommitted_changes(tmp_path: Path) -> None:
    folder = package(tmp_path)
    (folder / "x.py").write_text("1")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    assert build_info.load({}, folder).git_sha_long == head
    assert not build_info.load({}, folder).git_dirty
    (folder / "x.py").write_text("2")
    assert build_info.load({}, folder).git_dirty


def test_without_git_the_commit_is_unknown_and_nothing_fails(tmp_path: Path) -> None:
    folder = package(tmp_path)
    (tmp_path / ".git").write_text("gitdir: /nonexistent")
    info = build_info.load({}, folder)
    assert (info.git_sha, info.git_sha_long, info.build_timestamp) == ("unknown", None, None)
    assert info.package_version
