"""The tables of a ledger, and how an older ledger becomes a newer one.

A ledger knows the steps it has been through. Steps are only ever added at the end of ``STEPS``,
never changed: version *n* is what the first *n* of them make. All that are missing are taken in
one transaction, by whoever opens the ledger first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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
CREATE TABLE IF NOT EXISTS ledger_steps (
  version BIGINT PRIMARY KEY, name TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)
"""


def migrate(db: Database, steps: Sequence[Step]) -> int:
    """Take the steps that are missing; returns the version.

    Raises:
        SettingsError: The ledger has been through steps that we do not know.
        LedgerUnavailable: It could not be changed; it is as it was.
    """
    with db.transaction():
        db.execute(_VERSIONS)
        version = version_of(db)
        if version > len(steps):
            raise SettingsError(
                f"ledger.url: the ledger has version {version}, this helexa knows up to "
                f"{len(steps)}; a newer helexa has used it. Run that one, or restore a backup"
            )
        for number, step in enumerate(steps[version:], version + 1):
            for sql in step.sql:
                db.execute(sql if db.dialect == "sqlite" else sql.replace("WITHOUT ROWID", ""))
            db.execute(
                "INSERT INTO ledger_steps (version, name, at) VALUES (?, ?, ?)",
                (number, step.name, db.now()),
            )
    return len(steps)


def version_of(db: Database) -> int:
    """How many steps the ledger has been through."""
    return int(db.execute("SELECT COALESCE(MAX(version), 0) FROM ledger_steps")[0][0])
