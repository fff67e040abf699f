"""Environments of other people's clients, installed once under a cache directory.

``HELEXA_SDK_CACHE`` names it; otherwise it is ``~/.cache/helexa-sdks``. What cannot be installed
because a registry does not answer is skipped by name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.system.rig import Stack, StartStack, starter

INSTALL_S = 240


@pytest.fixture(scope="session")
def start_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStack]:
    yield from starter(tmp_path_factory)


@pytest.fixture(scope="session")
def stack(start_stack: StartStack) -> Stack:
    return start_stack()


@pytest.fixture(scope="session")
def cache() -> Path:
    given = os.environ.get("HELEXA_SDK_CACHE")
    folder = Path(given) if given else Path.home() / ".cache" / "helexa-sdks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def python_target(cache: Path, *packages: str) -> Path:
    """A folder with the packages, for ``PYTHONPATH``."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "install"]
    return _installed(cache, "python", packages, lambda at: [*pip, "--target", str(at), *packages])


def node_modules(cache: Path, *packages: str) -> Path:
    """A folder with ``node_modules``; scripts are copied into it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("Node is not installed: no npm")

    def command(at: Path) -> list[str]:
        (at / "package.json").write_text(json.dumps({"private": True, "type": "module"}))
        return [npm, "install", "--prefix", str(at), "--no-audit", "--no-fund", *packages]

    return _installed(cache, "node", packages, command)


def _installed(cache: Path, kind: str, packages: tuple[str, ...], command: object) -> Path:
    name = hashlib.sha256(" ".join(sorted(packages)).encode()).hexdigest()[:12]
    folder = cache / f"{kind}-{name}"
    if folder.is_dir():
        return folder
    made = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=cache))
    try:
        done = subprocess.run(
            command(made),  # type: ignore[operator]
            capture_output=True,
            text=True,
            timeout=INSTALL_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        shutil.rmtree(made, ignore_errors=True)
        pytest.skip(f"{' '.join(packages)} did not arrive within {INSTALL_S} s")
    if done.returncode != 0:
        shutil.rmtree(made, ignore_errors=True)
        said = (done.stderr or done.stdout).strip().splitlines()
        pytest.skip(f"{' '.join(packages)} cannot be installed: {said[-1] if said else '?'}")
    try:
        made.rename(folder)
    except OSError:  # another run has been quicker
        shutil.rmtree(made, ignore_errors=True)
    return folder
