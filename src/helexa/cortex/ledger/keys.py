"""Keys and accounts as a ledger keeps them, and the interface of every store of them.

::

    KeyRecord 1 ──── n SecretRecord        who may do what ── by which secret, and until when
    AccountRecord                          caps above the keys of an account

A key keeps its id, its rights and what it has spent for as long as it is known; its secrets come
and go. Of a secret only the SHA-256 is kept, and its first letters so that people can find it.
Every change raises ``revision``, by which other gateways notice it.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from helexa.core.principal import Cap, Principal


class KeyRights(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a key may do; the members mean what they mean in ``[[entitlements.keys]]``."""

    caps: tuple[Cap, ...] = ()
    admin: bool = False
    models: tuple[str, ...] = ()
    may_load: bool = True
    priority: int | None = None
    expires: float | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """One key; times are epoch seconds.

    Args:
        note: The operator's own words about it.
        revoked_at: Since when none of its secrets counts; it is never undone.
    """

    key_id: str
    account_id: str
    rights: KeyRights
    created_at: float
    note: str = ""
    revoked_at: float | None = None

    def principal(self, account_caps: tuple[Cap, ...]) -> Principal:
        """Who asks with it."""
        rights = self.rights
        return Principal(
            account_id=self.account_id,
            key_id=self.key_id,
            caps=rights.caps,
            account_caps=account_caps,
            admin=rights.admin,
            models=rights.models,
            may_load=rights.may_load,
            priority=rights.priority,
            expires=rights.expires,
            requests_per_minute=rights.requests_per_minute,
            max_concurrent=rights.max_concurrent,
        )


class SecretRecord(msgspec.Struct, frozen=True):
    """One secret of a key: its digest, its first letters, and when it stops to count."""

    digest: bytes
    key_id: str
    prefix: str
    created_at: float
    ends_at: float | None = None

    def __repr__(self) -> str:
        return f"SecretRecord({self.prefix}…, key_id={self.key_id!r}, ends_at={self.ends_at})"


class AccountRecord(msgspec.Struct, frozen=True):
    """Caps that all keys of an account share."""

    account_id: str
    caps: tuple[Cap, ...]
    changed_at: float


class Registry(msgspec.Struct, frozen=True):
    """Everything a store knows, as of one revision."""

    revision: int = 0
    keys: tuple[KeyRecord, ...] = ()
    secrets: tuple[SecretRecord, ...] = ()
    accounts: tuple[AccountRecord, ...] = ()


class KeyStore(Protocol):
    """Where keys are kept. Each change is one transaction that raises the revision.

    The changes answer whether they were made: False when the id is taken, or not known (any
    more), or revoked.
    """

    async def revision(self) -> int:
        """Of the last change, whoever made it."""

    async def read(self) -> Registry:
        """Everything, as of one revision."""

    async def add(self, key: KeyRecord, secret: SecretRecord) -> bool:
        """A new key with its first secret."""

    async def change(self, key_id: str, rights: KeyRights, note: str) -> bool:
        """Other rights for a key that is not revoked."""

    async def rotate(self, secret: SecretRecord, old_end_at: float) -> bool:
        """Another secret for a key; the ones that it has end at ``old_end_at`` at the latest."""

    async def revoke(self, key_id: str, at: float) -> bool:
        """The end of a key and of its secrets."""

    async def put_account(self, account: AccountRecord) -> bool:
        """An account's caps, whether it was known or not."""


class MemoryKeys:
    """The keys of a ledger that keeps nothing beyond its own life."""

    def __init__(self) -> None:
        self._revision = 0
        self._keys: dict[str, KeyRecord] = {}
        self._secrets: dict[bytes, SecretRecord] = {}
        self._accounts: dict[str, AccountRecord] = {}

    async def revision(self) -> int:
        """See ``KeyStore``; so are all below."""
        return self._revision

    async def read(self) -> Registry:
        return Registry(
            self._revision,
            tuple(self._keys.values()),
            tuple(self._secrets.values()),
            tuple(self._accounts.values()),
        )

    async def add(self, key: KeyRecord, secret: SecretRecord) -> bool:
        if key.key_id in self._keys:
            return False
        self._keys[key.key_id] = key
        self._secrets[secret.digest] = secret
        return self._changed()

    async def change(self, key_id: str, rights: KeyRights, note: str) -> bool:
        key = self._living(key_id)
        if key is None:
            return False
        self._keys[key_id] = msgspec.structs.replace(key, rights=rights, note=note)
        return self._changed()

    async def rotate(self, secret: SecretRecord, old_end_at: float) -> bool:
        if self._living(secret.key_id) is None:
            return False
        for old in self._secrets.values():
            if old.key_id == secret.key_id and (old.ends_at is None or old.ends_at > old_end_at):
                self._secrets[old.digest] = msgspec.structs.replace(old, ends_at=old_end_at)
        self._secrets[secret.digest] = secret
        return self._changed()

    async def revoke(self, key_id: str, at: float) -> bool:
        key = self._living(key_id)
        if key is None:
            return False
        self._keys[key_id] = msgspec.structs.replace(key, revoked_at=at)
        return self._changed()

    async def put_account(self, account: AccountRecord) -> bool:
        self._accounts[account.account_id] = account
        return self._changed()

    def _living(self, key_id: str) -> KeyRecord | None:
        key = self._keys.get(key_id)
        return None if key is None or key.revoked_at is not None else key

    def _changed(self) -> bool:
        self._revision += 1
        return True
