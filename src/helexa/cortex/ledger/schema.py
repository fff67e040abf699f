"""The tables of a ledger, and how an older ledger becomes a newer one.

A ledger knows the steps it has been through; so do other tables beside it, by their ``Kind``. Steps
are only ever added at the end of ``STEPS``, never changed: version *n* is what the first *n* of
them make. All that are missing are taken in one transaction, by whoever opens the ledger first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from helexa.core.settings import SettingsError
from helexa.cortex.ledger.database import Database


class Step(NamedTuple):
    """One change of the schema.

    Args:
        name: In a few words, for whoever looks into the table of steps.
        sql: Statements both databases speak; ``WITHOUT ROWID`` is dropped for PostgreSQL.
    """

    name: str
    sql: tuple[str, ...]


_VERSIONS = """
CREATE TABLE IF NOT EXISTS {table} (
  version BIGINT PRIMARY KEY, name TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)
"""


class Kind(NamedTuple):
    """Tables that change together.

    Args:
        what: As messages call them.
        table: Where their steps are written down.
    """

    what: str
    table: str


LEDGER: Final = Kind("ledger.url: the ledger", "ledger_steps")


def migrate(
    db: Database,
    steps: Sequence[Step],
    before: Callable[[Database], None] | None = None,
    kind: Kind = LEDGER,
) -> int:
    """Take the steps that are missing; returns the version.

    Args:
        before: Called within the transaction before what is older is changed; may raise.

    Raises:
        SettingsError: The ledger has been through steps that we do not know.
        LedgerUnavailable: It could not be changed; it is as it was.
    """
    with db.transaction():
        db.execute(_VERSIONS.format(table=kind.table))
        version = version_of(db, kind)
        if before is not None and 0 < version < len(steps):
            before(db)
        if version > len(steps):
            raise SettingsError(
                f"{kind.what} has version {version}, this helexa knows up to "
                f"{len(steps)}; a newer helexa has used it. Run that one, or restore a backup"
            )
        for number, step in enumerate(steps[version:], version + 1):
            for sql in step.sql:
                db.execute(sql if db.dialect == "sqlite" else sql.replace("WITHOUT ROWID", ""))
            db.execute(
                f"INSERT INTO {kind.table} (version, name, at) VALUES (?, ?, ?)",  # noqa: S608
                (number, step.name, db.now()),
            )
    return len(steps)


def version_of(db: Database, kind: Kind = LEDGER) -> int:
    """How many steps it has been through."""
    sql = f"SELECT COALESCE(MAX(version), 0) FROM {kind.table}"  # noqa: S608  # ours
    return int(db.execute(sql)[0][0])
