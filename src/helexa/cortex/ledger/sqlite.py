"""SQLite: the ledger of one gateway.

Write-ahead logging lets readers (a command line, a backup) look on while the gateway writes. Every
commit is synced, so what has been acknowledged to a node survives a power cut.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from helexa.cortex.ledger.database import Conflict, Dialect, LedgerUnavailable, Row

BUSY_S: Final = 10.0
"""How long another writer (a command line) may keep us waiting."""

_PAGES = 8192  # of the write-ahead log, before they are moved into the file


_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    f"wal_autocheckpoint = {_PAGES}",
    "foreign_keys = ON",
    "temp_store = MEMORY",
)


class SqliteDatabase:
    """A file.

    Args:
        path: Created with its folder if missing, readable by its owner only.
        create: Otherwise it must be there.

    Raises:
        LedgerUnavailable: It cannot be opened, or is something else.
    """

    dialect: Dialect = "sqlite"
    shared = False

    def __init__(self, path: str, *, create: bool = True) -> None:
        self._path = path
        try:
            if create:
                _prepare(Path(path))
            self._connect()
        except (OSError, sqlite3.Error) as error:
            raise _not_opened(path, error) from error

    def _connect(self) -> None:
        self._connection = sqlite3.connect(
            f"{Path(self._path).as_uri()}?mode=rw",  # whoever may make it has done so
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        self._file = _file(self._path)
        try:
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.Error:
            self._connection.close()
            raise

    def execute(self, sql: str, params: Sequence[object] = ()) -> list[Row]:
        """See ``Database.execute``."""
        try:
            return self._connection.execute(sql, params).fetchall()
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """See ``Database.transaction``."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """See ``Database.snapshot``."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self._connection.rollback()

    def notify(self, text: str) -> None:
        """See ``Database.notify``: this file is ours alone."""

    def notified(self, wait_s: float) -> list[str]:
        """See ``Database.notified``."""
        time.sleep(wait_s)
        return []

    def now(self) -> float:
        """See ``Database.now``."""
        return time.time()

    def moved(self) -> bool:
        """See ``Database.moved``: a file that was removed takes what is written to it along."""
        with suppress(OSError):
            return _file(self._path) != self._file
        return False  # a folder that cannot be looked into says nothing

    def mend(self) -> str | None:
        """See ``Database.mend``."""
        if not self.moved():
            return None
        try:
            there = _file(self._path)
            if there is None:
                self._write_back()
        except (OSError, sqlite3.Error) as error:
            raise LedgerUnavailable(
                f"the ledger {self._path} was removed while it is in use, and cannot be written "
                f"back: {error}"
            ) from error
        if there is not None:
            raise LedgerUnavailable(
                f"the ledger {self._path} was replaced while it is in use. Put the file back that "
                "was there, or start the gateway again to go on with the one that is there now"
            )
        return f"the ledger {self._path} was removed while it is in use; it is written back"

    def _write_back(self) -> None:
        """Make a file of what our connection still sees of the one that is gone."""
        path = Path(self._path)
        fresh = path.with_name(f"{path.name}.back")
        fresh.unlink(missing_ok=True)
        _prepare(fresh)
        self._connection.execute("VACUUM INTO ?", (str(fresh),))
        _synced(fresh)
        for log in ("-wal", "-shm"):  # of the file that is gone; they would be read into this one
            path.with_name(path.name + log).unlink(missing_ok=True)
        fresh.rename(path)
        _synced(path.parent)
        # SQLite sees that its file is another one now, and lets the new one's log alone.
        self._connection.close()
        self._connect()

    def hold(self, name: str) -> bool:  # noqa: ARG002  # there is one who could
        """See ``Database.hold``: this file is ours alone."""
        return True

    def holds(self, name: str) -> bool:  # noqa: ARG002  # as above
        """See ``Database.holds``."""
        return True

    def give_up(self) -> None:
        """See ``Database.give_up``: there is no server, and a lock is waited for with a bound."""

    def close(self) -> None:
        """See ``Database.close``."""
        self._connection.close()

    def _unavailable(self, error: sqlite3.Error) -> LedgerUnavailable:
        cure = _cure(error)
        more = f". {cure}" if cure is not None else ""
        return LedgerUnavailable(f"the ledger {self._path} cannot be used: {error}{more}")


def hold_alone(path: str) -> int:
    """Keep other gateways off a file; returns the open lock, which the process's end lets go.

    Raises:
        LedgerUnavailable: Another gateway has it, or it cannot be made.
    """
    try:
        _prepare(Path(path))
        lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _not_opened(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise LedgerUnavailable(
            f"the ledger {path} is in use by another gateway. Give each its own ledger.url, or "
            "let them share a PostgreSQL"
        ) from error
    return lock


def _not_opened(path: str, error: Exception) -> LedgerUnavailable:
    reason = getattr(error, "strerror", None) or error
    cure = _cure(error) or "Set ledger.url to a file in a folder that this user may write to"
    return LedgerUnavailable(f"the ledger {path} cannot be opened: {reason}. {cure}")


def _cure(error: Exception) -> str | None:
    return _CURES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)  # of its kind


_BROKEN: Final = "Put a backup in its place, or set ledger.url to another file"
_CURES: Final = {
    sqlite3.SQLITE_BUSY: "Another program has locked it: end that one",
    sqlite3.SQLITE_CORRUPT: _BROKEN,
    sqlite3.SQLITE_NOTADB: _BROKEN,
    sqlite3.SQLITE_FULL: "Make room on its disk",
}


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, f"{path.parent} is not a folder") from None
    # SQLite gives its own files beside this one the same mode. A file that is there must not be
    # opened here: closing it would drop the locks that this process's other connections hold on
    # it (https://sqlite.org/howtocorrupt.html, 2.2), and whoever looks at the ledger next from
    # outside would take itself for the last one and put the log away that we write to.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _file(path: str) -> tuple[int, int] | None:
    """Which file that is, whatever it is called; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116  # asked often
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _synced(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
