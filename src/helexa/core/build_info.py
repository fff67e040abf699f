"""Which build is running: from the wheel, from git for an editable install, or unknown."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

UNKNOWN = "unknown"
_PACKAGE = Path(__file__).resolve().parents[1]


class BuildInfo(msgspec.Struct, frozen=True):
    """The members of ``GET /version`` that concern helexa itself.

    Args:
        git_sha: Twelve digits, or ``unknown``.
        git_sha_long: Forty digits, when known.
        git_dirty: The tree had uncommitted changes.
        build_timestamp: ISO 8601 UTC of the wheel; None for an editable install.
    """

    package_version: str
    git_sha: str
    git_sha_long: str | None
    git_dirty: bool
    build_timestamp: str | None
    python_version: str

    def one_line(self) -> str:
        """``helexa 0.1.0 (3f2a9c81d0aa, dirty)`` for people."""
        dirty = ", dirty" if self.git_dirty else ""
        return f"helexa {self.package_version} ({self.git_sha}{dirty})"


class _Stamp(msgspec.Struct, frozen=True):
    """``_build.json``, written by the build hook."""

    git_sha: str = UNKNOWN
    git_sha_long: str | None = None
    git_dirty: bool = False
    build_timestamp: str | None = None


def load(environ: Mapping[str, str], package: Path = _PACKAGE) -> BuildInfo:
    """Find out; never fails, costs a file read or one run of git (editable installs).

    Args:
        environ: ``HELEXA_BUILD_SHA`` overrides everything else.
        package: The installed ``helexa`` package.
    """
    stamp = _from_environ(environ) or _from_wheel(package) or _from_git(package) or _Stamp()
    return BuildInfo(
        package_version=_version(),
        python_version=platform.python_version(),
        **msgspec.structs.asdict(stamp),
    )


def _version() -> str:
    try:
        return version("helexa")
    except PackageNotFoundError:  # run from a tree that was never installed
        return "0.0.0"


def _stamp(sha: str, *, dirty: bool) -> _Stamp:
    return _Stamp(git_sha=sha[:12], git_sha_long=sha, git_dirty=dirty)


def _from_environ(environ: Mapping[str, str]) -> _Stamp | None:
    sha = environ.get("HELEXA_BUILD_SHA", "").strip()
    return _stamp(sha, dirty=False) if sha else None


def _from_wheel(package: Path) -> _Stamp | None:
    try:
        return msgspec.json.decode((package / "_build.json").read_bytes(), type=_Stamp)
    except (OSError, msgspec.DecodeError):
        return None


def _from_git(package: Path) -> _Stamp | None:
    root = package.parents[1]  # REPOSITORY/src/helexa
    if package.parent.name != "src" or not (root / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    sha = done.stdout.strip()
    return _stamp(sha.removesuffix("-dirty"), dirty=sha.endswith("-dirty")) if sha else None
