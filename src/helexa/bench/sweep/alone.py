"""One sweep at a time into one store."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SweepUnderWay(Exception):
    """Another process measures into the same store."""


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Keep other sweeps out while this one measures into ``path``.

    Two of them would measure each other's load, and unload models under each other. The lock is a
    file of its own: closing another descriptor of SQLite's would drop the locks that it holds.

    Raises:
        SweepUnderWay: There is one already.
    """
    lock = os.open(f"{path}.sweep", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SweepUnderWay(
                f"{path}: another sweep is under way, and two at once would measure each other; "
                "wait for its end"
            ) from error
        yield
    finally:
        os.close(lock)
