"""Keys in the ledger's database.

::

    keys 1 ──── n secrets          accounts          registry (one row: the revision)

A change and its revision are one transaction. A reader takes the revision first, so what it
reads may be newer than that, and never older.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from helexa.core.principal import Cap
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.keys import (
    AccountRecord,
    KeyRecord,
    KeyRights,
    Registry,
    SecretRecord,
)
from helexa.cortex.ledger.schema import Step

KEYS: Final = Step(
    "keys and accounts",
    (
        """
        CREATE TABLE keys (
          key_id TEXT PRIMARY KEY,
          account_id TEXT NOT NULL,
          rights TEXT NOT NULL,
          note TEXT NOT NULL,
          created_at DOUBLE PRECISION NOT NULL,
          revoked_at DOUBLE PRECISION)
        """,
        """
        CREATE TABLE secrets (
          digest TEXT PRIMARY KEY,
          key_id TEXT NOT NULL REFERENCES keys (key_id),
          prefix TEXT NOT NULL,
          created_at DOUBLE PRECISION NOT NULL,
          ends_at DOUBLE PRECISION)
        """,
        """
        CREATE TABLE accounts (
          account_id TEXT PRIMARY KEY,
          caps TEXT NOT NULL,
          changed_at DOUBLE PRECISION NOT NULL)
        """,
        "CREATE TABLE registry (id BIGINT PRIMARY KEY, revision BIGINT NOT NULL)",
        "INSERT INTO registry (id, revision) VALUES (1, 0)",
    ),
)

T = TypeVar("T")
_Caps = tuple[Cap, ...]


class Access(Protocol):
    """The ledger's threads, as the keys use them: what is written is one transaction."""

    async def write(self, work: Callable[[Database], T]) -> T: ...

    async def read(self, work: Callable[[Database], T]) -> T: ...


class SqlKeys:
    """A ``KeyStore`` in a database that other gateways may share."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def revision(self) -> int:
        """See ``KeyStore``; so are all below."""
        return await self._access.read(_revision)

    async def read(self) -> Registry:
        return await self._access.read(_read)

    async def add(self, key: KeyRecord, secret: SecretRecord) -> bool:
        def work(db: Database) -> bool:
            made = db.execute(
                "INSERT INTO keys (key_id, account_id, rights, note, created_at)"
                " VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING RETURNING key_id",
                (key.key_id, key.account_id, _text(key.rights), key.note, key.created_at),
            )
            if not made:
                return False
            _insert_secret(db, secret)
            return _changed(db)

        return await self._access.write(work)

    async def change(self, key_id: str, rights: KeyRights, note: str) -> bool:
        return await self._update(
            "UPDATE keys SET rights = ?, note = ? WHERE key_id = ? AND revoked_at IS NULL"
            " RETURNING key_id",
            (_text(rights), note, key_id),
        )

    async def revoke(self, key_id: str, at: float) -> bool:
        return await self._update(
            "UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL"
            " RETURNING key_id",
            (at, key_id),
        )

    async def rotate(self, secret: SecretRecord, old_end_at: float) -> bool:
        def work(db: Database) -> bool:
            # The revision's row is the lock of all changes: taken first, a key that is revoked
            # at the same time is revoked before this, or after.
            _changed(db)
            living = "SELECT 1 FROM keys WHERE key_id = ? AND revoked_at IS NULL"
            if not db.execute(living, (secret.key_id,)):
                return False
            db.execute(
                "UPDATE secrets SET ends_at = ?"
                " WHERE key_id = ? AND (ends_at IS NULL OR ends_at > ?)",
                (old_end_at, secret.key_id, old_end_at),
            )
            _insert_secret(db, secret)
            return True

        return await self._access.write(work)

    async def put_account(self, account: AccountRecord) -> bool:
        def work(db: Database) -> bool:
            db.execute(
                "INSERT INTO accounts (account_id, caps, changed_at) VALUES (?, ?, ?)"
                " ON CONFLICT (account_id) DO UPDATE"
                " SET caps = excluded.caps, changed_at = excluded.changed_at",
                (account.account_id, _text(account.caps), account.changed_at),
            )
            return _changed(db)

        return await self._access.write(work)

    async def _update(self, sql: str, given: Sequence[object]) -> bool:
        def work(db: Database) -> bool:
            return bool(db.execute(sql, given)) and _changed(db)

        return await self._access.write(work)


def _revision(db: Database) -> int:
    return int(db.execute("SELECT revision FROM registry")[0][0])


def _read(db: Database) -> Registry:
    revision = _revision(db)
    keys = db.execute(
        "SELECT key_id, account_id, rights, created_at, note, revoked_at FROM keys"
        " ORDER BY created_at, key_id"
    )
    secrets = db.execute(
        "SELECT digest, key_id, prefix, created_at, ends_at FROM secrets ORDER BY created_at"
    )
    accounts = db.execute("SELECT account_id, caps, changed_at FROM accounts ORDER BY account_id")
    return Registry(
        revision,
        tuple(
            KeyRecord(key_id, account, msgspec.json.decode(rights, type=KeyRights), at, note, ended)
            for key_id, account, rights, at, note, ended in keys
        ),
        tuple(SecretRecord(bytes.fromhex(digest), *rest) for digest, *rest in secrets),
        tuple(
            AccountRecord(account, msgspec.json.decode(caps, type=_Caps), at)
            for account, caps, at in accounts
        ),
    )


def _insert_secret(db: Database, secret: SecretRecord) -> None:
    db.execute(
        "INSERT INTO secrets (digest, key_id, prefix, created_at, ends_at) VALUES (?, ?, ?, ?, ?)",
        (secret.digest.hex(), secret.key_id, secret.prefix, secret.created_at, secret.ends_at),
    )


def _changed(db: Database) -> bool:
    db.execute("UPDATE registry SET revision = revision + 1")
    return True


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
