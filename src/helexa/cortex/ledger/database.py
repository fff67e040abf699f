"""One connection to where a ledger is kept, in the SQL that SQLite and PostgreSQL both speak.

::

    sqlite:///var/lib/cortex/ledger.db      one gateway; a file in WAL mode, synced at every commit
    postgresql://user@host/database         several gateways

Statements are written once, with ``?`` for parameters, ``BIGINT``, ``DOUBLE PRECISION`` and
``TEXT`` columns, ``INSERT … ON CONFLICT`` and ``RETURNING``. Where the two differ the caller asks
``dialect``. A connection belongs to one thread and blocks it: never the loop's.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from helexa.core.settings import SettingsError

Row: TypeAlias = tuple[Any, ...]
Dialect = Literal["sqlite", "postgres"]

MOST_PARAMETERS = 32_000
"""SQLite takes 32,766 in one statement, PostgreSQL 65,535."""


class LedgerUnavailable(OSError):
    """The ledger cannot be reached, read or written just now; the message says which and why."""


class Conflict(Exception):
    """A row that must be unique is there already."""


class Database(Protocol):
    """A connection.

    Attributes:
        dialect: Which of the two it is.
        shared: Whether other gateways may be connected to the same ledger.
    """

    dialect: Dialect
    shared: bool

    def execute(self, sql: str, params: Sequence[object] = ()) -> list[Row]:
        """Run one statement; the rows it gives back, if any.

        Raises:
            Conflict: A row is there already.
            LedgerUnavailable: It could not be run.
        """

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside or nothing; other writers wait. Not nested. Raises as ``execute``."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Everything inside reads the same state; nobody waits for it. Not nested."""

    def notify(self, text: str) -> None:
        """Say something to all who listen, once the transaction is durable; nobody does where the
        ledger is not shared. Raises as ``execute``."""

    def notified(self, wait_s: float) -> list[str]:
        """What others have said since we first listened; waits for it for so long. Raises as
        ``execute``."""

    def now(self) -> float:
        """Epoch seconds by the clock that all gateways of this ledger share."""

    def moved(self) -> bool:
        """Whether what we are connected to is not where the url leads any more. Cheap, and may be
        asked from any thread."""

    def mend(self) -> str | None:
        """Bring back what has moved away, between two transactions; what was done, if anything.

        Raises:
            LedgerUnavailable: Something else is in its place, or there is no room for it.
        """

    def hold(self, name: str) -> bool:
        """Be the only one who holds ``name`` for as long as we are connected; False if another
        one does. Raises as ``execute``."""

    def holds(self, name: str) -> bool:
        """Whether we do, by the connection that there is now: one that broke lets go of it, and
        it is ours again unless somebody else came first. Raises as ``execute``."""

    def give_up(self) -> None:
        """Called from another thread: the server is silent, and whoever waits for it has waited
        long enough. What is under way raises ``LedgerUnavailable``; what comes next connects
        anew."""

    def close(self) -> None:
        """Let go of the connection; idempotent."""


def insert(
    db: Database, head: str, rows: Sequence[Sequence[object]], tail: str = "", *, most: int = 64
) -> list[Row]:
    """Insert many rows with few statements, which is what an insert costs; what they return.

    Args:
        head: For example ``INSERT INTO t (a, b)``; the values follow it.
        tail: What follows the values, for example ``ON CONFLICT DO NOTHING``.
        most: Rows of one statement. Only powers of two up to it are ever prepared.
    """
    if not rows:
        return []
    return insert_flat(db, head, list(chain.from_iterable(rows)), len(rows[0]), tail, most=most)


def insert_flat(
    db: Database, head: str, values: list[object], width: int, tail: str = "", *, most: int = 256
) -> list[Row]:
    """As ``insert``, for rows of ``width`` values that lie one after the other in ``values``."""
    found: list[Row] = []
    most = min(most, MOST_PARAMETERS // width)
    at, left = 0, len(values) // width
    while left:
        size = min(most, 1 << (left.bit_length() - 1))
        sql = _insert_text(head, width, size, tail)
        found += db.execute(sql, values[at : at + size * width])
        at += size * width
        left -= size
    return found


@lru_cache(maxsize=256)
def _insert_text(head: str, width: int, size: int, tail: str) -> str:
    """The same text every time: it is what a prepared statement is found by."""
    one = "(" + ",".join("?" * width) + ")"
    return f"{head} VALUES {','.join([one] * size)} {tail}"


def connect(url: str, *, create: bool = True) -> Database:
    """Open ``url``.

    Args:
        create: Make a file that is missing.

    Raises:
        SettingsError: The url is none of ours.
        LedgerUnavailable: It is, but cannot be opened.
    """
    check_url(url)
    if urlsplit(url).scheme == "sqlite":
        from helexa.cortex.ledger.sqlite import SqliteDatabase  # noqa: PLC0415  # needs this one

        return SqliteDatabase(sqlite_path(url), create=create)
    from helexa.cortex.ledger.postgres import PostgresDatabase  # noqa: PLC0415

    return PostgresDatabase(url)


NO_DRIVER = "ledger.url: PostgreSQL needs its driver; run: pip install 'helexa[postgres]'"


def check_url(url: str) -> None:
    """Refuse what is no ledger of ours, without opening anything.

    Raises:
        SettingsError: The url is none of ours, or its driver is not installed.
    """
    if urlsplit(url).scheme not in ("sqlite", "postgresql", "postgres"):
        raise SettingsError(
            f"ledger.url: {masked(url)!r} is not a ledger; write sqlite:///path/to/ledger.db "
            "or postgresql://user@host/database"
        )
    if urlsplit(url).scheme == "sqlite":
        sqlite_path(url)
    elif importlib.util.find_spec("psycopg") is None:
        raise SettingsError(NO_DRIVER)


def sqlite_path(url: str) -> str:
    """The absolute path in ``sqlite:///path``; four slashes mean the same as three.

    Raises:
        SettingsError: There is a host, or no path, or more than a path.
    """
    parts = urlsplit(url)
    if "?" in url or "#" in url:
        raise SettingsError(
            f"ledger.url: {url!r} has more than a path; in the name of a file write %3F for ? "
            "and %23 for #"
        )
    path = unquote(parts.path)
    if parts.netloc or not path.startswith("/") or path.endswith("/"):
        raise SettingsError(
            f"ledger.url: {url!r} names no file; write sqlite:///path/to/ledger.db, "
            "the path from the root"
        )
    return "/" + path.lstrip("/")


_QUOTED = {ord(sign): f"%{ord(sign):02X}" for sign in "%?#\t\r\n"}
"""What would end a path, or be lost, in a url; everything else is easier to read as it is."""


def sqlite_url(file: Path) -> str:
    """What ``sqlite_path`` reads as ``file``."""
    return "sqlite://" + str(file).translate(_QUOTED)


def masked(url: str) -> str:
    """``url`` without its passwords, wherever libpq reads one."""
    url = _SECRETS.sub(r"\1***", url)
    parts = urlsplit(url)
    if parts.password is None:
        return url
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{parts.username or ''}:***@{host}").geturl()


_SECRETS = re.compile(r"([?&](?:ssl)?password=)[^&]*")
