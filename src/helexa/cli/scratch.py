"""A folder for as long as a household lives, and the end of those that a ``kill -9`` has left.

A lock on a file in it says that somebody of the household is still there: the kernel lets go of it
with the last process that inherited it, whatever that one died of. Folders without the file, or
of somebody else, are nobody's business here.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

_PREFIX = "helexa-up-"
_LOCK = "household.lock"


class Scratch:
    """A new folder of this process, open to this user only.

    Attributes:
        path: Of the folder.
        lock: A descriptor; a child that inherits it keeps the folder as we do.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Locked before it has its name, or somebody who tidies up could be quicker.
        made = self.path / f"{_LOCK}.new"
        self.lock = os.open(made, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        made.rename(self.path / _LOCK)

    def remove(self) -> None:
        """Delete it with all that is in it; idempotent."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


def sweep() -> list[Path]:
    """Delete the folders of households of this user that are gone; returns them."""
    swept = []
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, gone meanwhile, or in use
            if _is_abandoned(folder):
                shutil.rmtree(folder)
                swept.append(folder)
    return swept


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody holds its lock any more.

    Raises:
        OSError: It cannot be told, or somebody does.
    """
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return False
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(lock)
    return True
