"""Files with secrets in them, and who else on the machine can read them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from pathlib import Path


def open_to_others(files: Mapping[str, Path | None]) -> Iterator[str]:
    """A sentence for every file that all users of this machine can read.

    Args:
        files: By the setting that names them; what is not set, or cannot be looked at, is left out.
    """
    for setting, path in files.items():
        try:
            mode = 0 if path is None else path.stat().st_mode
        except OSError:
            continue
        if mode & stat.S_IROTH:
            yield f"{setting}: every user of this machine can read {path}; chmod o= {path}"
