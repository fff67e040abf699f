"""Where the host is read from; tests and containers have it elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec

_LIBRARY_DIRS = (
    Path("/usr/lib/x86_64-linux-gnu"),
    Path("/usr/lib/aarch64-linux-gnu"),
    Path("/usr/lib64"),
    Path("/usr/lib"),
    Path("/usr/local/nvidia/lib64"),
    Path("/usr/lib/wsl/lib"),
    Path("/run/opengl-driver/lib"),
)


class Roots(msgspec.Struct, frozen=True):
    """``proc`` and ``sys`` as mounted; ``libraries`` are folders with NVIDIA's user library."""

    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    libraries: tuple[Path, ...] = _LIBRARY_DIRS


def read_text(path: Path) -> str | None:
    """The file's text; None when it is not there or may not be read."""
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return None


def read_int(path: Path) -> int | None:
    """The number in the file; None when there is none (``max`` for example)."""
    text = (read_text(path) or "").strip()
    try:
        return int(text)
    except ValueError:
        return None
