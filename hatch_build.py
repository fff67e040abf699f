"""Build hook: writes which commit a wheel was made from into ``helexa/_build.json``.

``HELEXA_BUILD_SHA`` overrides what git says, for builds from an exported tree. Without git and
without the variable the build still succeeds and the commit reads ``unknown``. Editable installs
get no file: ``helexa.core.build_info`` asks git when the process starts.

The pages of the bench are built, not committed; what is made without them is warned of.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

UNKNOWN = "unknown"
PAGES = "src/helexa/bench/web"
MEND = "`make dist` builds them first, with Node 20 or newer"


def describe(root: Path) -> tuple[str, bool]:
    """Commit (40 digits, or ``unknown``) and dirty flag of the tree at ``root``."""
    override = os.environ.get("HELEXA_BUILD_SHA", "").strip()
    if override:
        return override, False
    if (root / ".git").exists():
        try:
            done = subprocess.run(
                ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"],
                cwd=root,
                capture_output=True,
                text=True,
                timeout=20,
                check=True,
            )
        except (OSError, subprocess.SubprocessError):
            return UNKNOWN, False
        sha = done.stdout.strip()
        return sha.removesuffix("-dirty"), sha.endswith("-dirty")
    carried = root / "src" / "helexa" / "_build.json"  # a source distribution brings its own
    if carried.is_file():
        data = json.loads(carried.read_text())
        return str(data["git_sha_long"] or UNKNOWN), bool(data["git_dirty"])
    return UNKNOWN, False


class BuildInfoHook(BuildHookInterface[Any]):
    """Adds the file to wheels and source distributions without touching the source tree."""

    _folder: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before each target; ``version`` is ``editable`` or ``standard``."""
        if version == "editable":
            return
        if not (Path(self.root) / PAGES / "index.html").is_file():
            self.app.display_warning(f"without the pages of the bench ({PAGES}): {MEND}")
        sha, dirty = describe(Path(self.root))
        known = sha != UNKNOWN
        epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "") or time.time())
        info = {
            "git_sha": sha[:12] if known else UNKNOWN,
            "git_sha_long": sha if known else None,
            "git_dirty": dirty,
            "build_timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
        }
        folder = self._folder = Path(tempfile.mkdtemp(prefix="helexa-build-"))
        (folder / "_build.json").write_text(json.dumps(info, indent=1) + "\n")
        place = "helexa/_build.json" if self.target_name == "wheel" else "src/helexa/_build.json"
        build_data["force_include"][str(folder / "_build.json")] = place

    def finalize(self, *_: object) -> None:
        """Called by hatchling once the target is built: nothing of it stays behind."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
