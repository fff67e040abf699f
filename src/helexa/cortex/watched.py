"""A file that is followed: whether it has changed since somebody last looked."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int]


def stamp_of(path: Path | None) -> Stamp | None:
    """What a changed file changes: time, size and inode; None without a file."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class Watched:
    """One file, looked at again and again; a file that is gone has not changed.

    Args:
        path: None is a gateway without a file.
    """

    __slots__ = ("_path", "_stamp")

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp = stamp_of(path)

    def changed(self, *, asked: bool) -> bool:
        """Whether to read it, since the last time this was said; ``asked`` wants it anyway."""
        stamp = stamp_of(self._path)
        if stamp is None or (stamp == self._stamp and not asked):
            return False
        self._stamp = stamp
        return True
