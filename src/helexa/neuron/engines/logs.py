"""The kept log of an engine process: one bounded file, its tail for error messages."""

from __future__ import annotations

import os
import re
from pathlib import Path

_TROUBLE = re.compile(
    r"error|fail|exception|unable|cannot|invalid|abort|out of memory|terminate|refused",
    re.IGNORECASE,
)
_STAMP = re.compile(r"^[\d.]+ [A-Z] (srv|slot|cmn|que|init)?\s*")
_WARNING = "WARNING"
_TAIL_BYTES = 16_384


class EngineLog:
    """Where an engine's stderr goes.

    The process writes to the file itself (opened for append), so a chatty engine costs the
    neuron nothing. ``bound`` is called from time to time and before every life: past ``max_bytes``
    the file becomes ``<name>.1`` by copying its tail, and starts again at zero under the same
    descriptor.
    """

    def __init__(self, path: Path, *, max_bytes: int = 4 << 20) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._life_starts = 0

    def open(self) -> int:
        """A descriptor for the process; the caller closes it. ``tail`` starts here."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.bound()
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._life_starts = os.fstat(fd).st_size
        return fd

    def bound(self) -> None:
        """Keep the file below its maximum; a full disk is no reason to fail."""
        try:
            size = self.path.stat().st_size
            if size <= self._max_bytes:
                return
            keep = self._read(max(0, size - self._max_bytes))
            self.path.with_name(self.path.name + ".1").write_bytes(keep)
            os.truncate(self.path, 0)
        except OSError:
            return
        self._life_starts = 0

    def _read(self, start: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(self._max_bytes)

    def tail(self) -> str:
        """The last part of what the current process wrote (at most 16 KiB)."""
        try:
            size = self.path.stat().st_size
            start = max(self._life_starts, size - _TAIL_BYTES)
            return self._read(start).decode("utf-8", "replace")
        except OSError:
            return ""


def trouble(tail: str) -> str:
    """The first and the last line of a log that speak of trouble; empty when none do.

    Native engines name the cause first, Python programs last.
    """
    lines = [line for line in tail.splitlines() if _TROUBLE.search(line)]
    found = [line for line in lines if _WARNING not in line] or lines
    distinct = list(dict.fromkeys(_STAMP.sub("", line).strip() for line in found))
    return "; ".join(dict.fromkeys(distinct[:1] + distinct[-1:]))
