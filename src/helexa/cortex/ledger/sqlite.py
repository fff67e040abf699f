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

    Raises:
        LedgerUnavailable: It cannot be opened, or is something else.
    """

    dialect: Dialect = "sqlite"
    shared = False

    def __init__(self, path: str) -> None:
        self._path = path
        try:
            _prepare(Path(path))
            self._connection = sqlite3.connect(
                path,
                timeout=BUSY_S,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=256,
            )
        except (OSError, sqlite3.Error) as error:
            raise _not_opened(path, error) from error
        try:
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}").fetchall()
        except sqlite3.Error as error:
            self._connection.close()
            raise _not_opened(path, error) from error

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
        return LedgerUnavailable(f"the ledger {self._path} cannot be used: {error}")


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
    return LedgerUnavailable(
        f"the ledger {path} cannot be opened: {reason}. Set ledger.url to a file in a folder "
        "that this user may write to"
    )


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
