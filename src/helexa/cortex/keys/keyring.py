"""The owner of the gateway's keys: those of cortex.toml, those of the ledger, and both joined.

::

    cortex.toml ──changed────┐
                             ├─▶ KeyTable (what a request is looked up in)
    KeyStore ──revision──▶ read
        ▲                    the store's own change is taken in before it is answered;
        └── create, rotate…  another gateway's within ``FOLLOW_S``

What cortex.toml says about an id cannot be changed from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.core.logging import Logger
from helexa.core.principal import Cap, Principal
from helexa.core.settings import Secret
from helexa.cortex.auth import KeyIndex, KeyTable, Known
from helexa.cortex.keys.fixed import Fixed, changes
from helexa.cortex.keys.mint import PREFIX, check_name, letters, mint
from helexa.cortex.keys.views import AccountView, KeyView, view_of_record, view_of_settings
from helexa.cortex.ledger.keys import (
    AccountRecord,
    KeyRecord,
    KeyRights,
    KeyStore,
    Registry,
    SecretRecord,
)

FOLLOW_S = 0.5
"""How often another gateway's changes are looked for; one small read."""


class _Joined(NamedTuple):
    """The keys of cortex.toml and of the store as one.

    Args:
        principals: Of the store's living keys, by id.
        keys: Every key of the store by id, revoked ones too.
        secrets: Theirs, by the key's id; old ones too.
    """

    known: KeyIndex
    principals: dict[str, Principal]
    keys: dict[str, KeyRecord]
    secrets: dict[str, list[SecretRecord]]

    def view(self, key: KeyRecord, now: float) -> KeyView:
        """One key of the store."""
        secrets = _counting(self.secrets.get(key.key_id, ()), now)
        principal = self.principals.get(key.key_id)
        caps = () if principal is None else principal.account_caps
        return view_of_record(key, tuple(secret.prefix for secret in secrets), caps, now)


class Keyring:
    """See the module.

    Args:
        fixed: The keys of cortex.toml by digest.
        accounts: The accounts of cortex.toml with caps of their own.
        now: Epoch seconds.
        table: Told of every change.
        changed: Told of every key afterwards, so that new caps bind what runs already.
    """

    def __init__(
        self,
        fixed: Mapping[bytes, Principal],
        accounts: Mapping[str, tuple[Cap, ...]],
        store: KeyStore,
        table: KeyTable,
        *,
        now: Callable[[], float],
        log: Logger,
        changed: Callable[[Iterable[Principal]], object] = lambda _: None,
    ) -> None:
        self._changed_keys = changed
        self._fixed = dict(fixed)
        self._fixed_ids = {who.key_id: who for who in fixed.values()}
        self._accounts = dict(accounts)
        self._store = store
        self.table = table
        self._now = now
        self._log = log
        self._registry = Registry(revision=-1)
        self._joined = _Joined(KeyIndex(()), {}, {}, {})
        self._refreshing = asyncio.Lock()

    # ── following the store ─────────────────────────────────────────────────────────────────

    async def refresh(self) -> None:
        """Take in the store as it is now."""
        async with self._refreshing:
            registry = await self._store.read()
            if registry.revision == self._registry.revision:
                return
            await self._take_in(registry)

    async def follow_settings(self, said: Fixed) -> list[str]:
        """Take over what cortex.toml says now; what changed, in words.

        A key whose secret or limits have changed stays who it is and keeps what it has spent.
        What runs for a key that is gone goes on to its end.
        """
        async with self._refreshing:
            before = Fixed(self._fixed, self._accounts, self.table.required)
            words, now = changes(before, said), said.after(before)
            if words:
                self._fixed, self._accounts = dict(now.keys), dict(now.accounts)
                self._fixed_ids, self.table.required = now.ids, now.required
                await self._take_in(self._registry)
            return words

    async def _take_in(self, registry: Registry) -> None:
        # A thousand keys take milliseconds, and the loop has none to give.
        joined = await asyncio.to_thread(self._join, registry)
        self.table.replace(joined.known)
        self._registry, self._joined = registry, joined
        self._changed_keys(self.table.principals)

    async def follow(self) -> None:
        """Take in what other gateways change, until cancelled."""
        troubled = False
        while True:
            await asyncio.sleep(FOLLOW_S)
            try:
                if await self._store.revision() != self._registry.revision:
                    await self.refresh()
                troubled = False
            except Exception as error:  # noqa: BLE001  # the keys that are known go on to work
                if not troubled:
                    self._log.warning("keys cannot be read just now", reason=type(error).__name__)
                troubled = True

    def _join(self, registry: Registry) -> _Joined:
        """What cortex.toml and the store say, together; an unchanged principal stays the same."""
        shared = {account.account_id: account.caps for account in registry.accounts}
        shared |= self._accounts
        living = {key.key_id: key for key in registry.keys if key.revoked_at is None}
        principals = {
            key_id: self._same(key.principal(shared.get(key.account_id, ())))
            for key_id, key in living.items()
            if key_id not in self._fixed_ids
        }
        known = [
            Known(secret.digest, principals[secret.key_id], _sooner(secret, principals))
            for secret in registry.secrets
            if secret.key_id in principals
        ]
        for digest, who in self._fixed.items():
            caps = shared.get(who.account_id, ())
            fixed = who if who.account_caps == caps else _with_account_caps(who, caps)
            known.append(Known(digest, fixed, who.expires))
        secrets: dict[str, list[SecretRecord]] = {}
        for secret in registry.secrets:
            secrets.setdefault(secret.key_id, []).append(secret)
        keys = {key.key_id: key for key in registry.keys}
        return _Joined(KeyIndex(known), principals, keys, secrets)

    def _same(self, principal: Principal) -> Principal:
        before = self._joined.principals.get(principal.key_id)
        return before if before == principal else principal

    # ── looking ─────────────────────────────────────────────────────────────────────────────

    def views(self) -> Iterator[KeyView]:
        """Every key as it is now, those of cortex.toml first; may be read slowly."""
        now, table, registry = self._now(), self.table.principals, self._registry
        fixed, joined = self._fixed_ids, self._joined
        for who in table:
            if who.key_id in fixed:
                yield view_of_settings(who, now)
        for key in registry.keys:
            yield joined.view(key, now)

    def find(self, name: str) -> KeyView | None:
        """A key by its id, or by the first letters of one of its secrets."""
        now = self._now()
        if name in self._fixed_ids:
            return view_of_settings(self._fixed_principal(name), now)
        joined = self._joined
        found = joined.keys.get(name)
        if found is None and name.startswith(PREFIX):
            secrets = _counting(self._registry.secrets, now)
            named = [joined.keys.get(s.key_id) for s in secrets if name.startswith(s.prefix)]
            found = next((k for k in named if k is not None and k.revoked_at is None), None)
        return None if found is None else joined.view(found, now)

    def _fixed_principal(self, key_id: str) -> Principal:
        """A key of cortex.toml with the caps of its account as they are."""
        return self.table.principal(key_id) or self._fixed_ids[key_id]

    def principal(self, key_id: str) -> Principal | None:
        """Who asks with the key of that id, unless it is unknown or revoked."""
        return self._joined.principals.get(key_id) or self.table.principal(key_id)

    def accounts(self) -> list[AccountView]:
        """Every account that has a key or caps."""
        keys: dict[str, list[str]] = {}
        for who in self._fixed_ids.values():
            keys.setdefault(who.account_id, []).append(who.key_id)
        for key in self._registry.keys:
            if key.revoked_at is None:
                keys.setdefault(key.account_id, []).append(key.key_id)
        stored = {a.account_id: a.caps for a in self._registry.accounts}
        return [
            AccountView(
                account_id=name,
                source="settings" if name in self._accounts else "ledger",
                caps=self._accounts.get(name, stored.get(name, ())),
                keys=tuple(keys.get(name, ())),
            )
            for name in sorted({*keys, *stored, *self._accounts})
        ]

    # ── changing ────────────────────────────────────────────────────────────────────────────

    async def create(
        self, account_id: str, key_id: str | None, rights: KeyRights, note: str
    ) -> tuple[KeyView, Secret]:
        """A new key; the secret is in nobody's memory but the caller's from then on.

        Raises:
            InvalidRequestBody: A name cannot be used, or is taken.
        """
        check_name(account_id, "account_id")
        if key_id is None:
            key_id = f"{account_id[:50]}-{letters(6)}"
        check_name(key_id, "key_id")
        now = self._now()
        secret, record = mint(key_id, now)
        key = KeyRecord(key_id, account_id, rights, now, note)
        if key_id in self._fixed_ids or not await self._store.add(key, record):
            raise InvalidRequestBody(
                f"There is or was a key called {key_id!r}; choose another key_id.", param="key_id"
            )
        return await self._changed(key_id), secret

    async def change(self, key_id: str, rights: KeyRights, note: str) -> KeyView:
        """Other rights for a key.

        Raises:
            InvalidRequestBody: It cannot be changed.
        """
        self._check_stored(key_id)
        if not await self._store.change(key_id, rights, note):
            raise _revoked(key_id)
        return await self._changed(key_id)

    async def rotate(self, key_id: str, grace_s: float) -> tuple[KeyView, Secret]:
        """Another secret for a key, which stays who it is and keeps its budget.

        Args:
            grace_s: How long the old secret still counts.

        Raises:
            InvalidRequestBody: It cannot be changed.
        """
        self._check_stored(key_id)
        now = self._now()
        secret, record = mint(key_id, now)
        if not await self._store.rotate(record, now + grace_s):
            raise _revoked(key_id)
        return await self._changed(key_id), secret

    async def revoke(self, key_id: str) -> KeyView:
        """The end of a key, at once.

        Raises:
            InvalidRequestBody: It cannot be changed.
        """
        self._check_stored(key_id)
        if not await self._store.revoke(key_id, self._now()):
            raise _revoked(key_id)
        return await self._changed(key_id)

    async def put_account(self, account_id: str, caps: tuple[Cap, ...]) -> AccountView:
        """An account's caps; none to lift them.

        Raises:
            InvalidRequestBody: The name cannot be used, or cortex.toml speaks about it.
        """
        check_name(account_id, "account_id")
        if account_id in self._accounts:
            raise InvalidRequestBody(
                f"The caps of {account_id!r} are set in cortex.toml; change them there.",
                param="account_id",
            )
        await self._store.put_account(AccountRecord(account_id, caps, self._now()))
        await self.refresh()
        return next(a for a in self.accounts() if a.account_id == account_id)

    async def _changed(self, key_id: str) -> KeyView:
        await self.refresh()
        view = self.find(key_id)
        if view is None:
            raise InvalidRequestBody(f"The key {key_id!r} has just gone.", param="key_id")
        return view

    def _check_stored(self, key_id: str) -> None:
        if key_id in self._fixed_ids:
            raise InvalidRequestBody(
                f"The key {key_id!r} is set in cortex.toml; change it there.", param="key_id"
            )


def _counting(secrets: Iterable[SecretRecord], now: float) -> Iterator[SecretRecord]:
    """Those that are still good."""
    return (secret for secret in secrets if secret.ends_at is None or secret.ends_at > now)


def _sooner(secret: SecretRecord, principals: Mapping[str, Principal]) -> float | None:
    ends = (secret.ends_at, principals[secret.key_id].expires)
    return min((at for at in ends if at is not None), default=None)


def _with_account_caps(who: Principal, caps: tuple[Cap, ...]) -> Principal:
    return msgspec.structs.replace(who, account_caps=caps)


def _revoked(key_id: str) -> InvalidRequestBody:
    return InvalidRequestBody(f"The key {key_id!r} has been revoked.", param="key_id")
