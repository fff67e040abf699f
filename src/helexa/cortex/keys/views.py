"""Keys and accounts as an administrator sees them; no secret and no digest."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from helexa.core.principal import Cap, Principal
from helexa.cortex.ledger.keys import KeyRecord, KeyRights

KeyState = Literal["active", "expired", "revoked"]
STATES: tuple[str, ...] = get_args(KeyState)


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """One key.

    Args:
        source: Where it is kept; only the ledger's keys can be changed.
        prefixes: First letters of the secrets that count now.
        account_caps: What binds all keys of the account together.
    """

    key_id: str
    account_id: str
    source: Literal["settings", "ledger"]
    state: KeyState
    prefixes: tuple[str, ...] = ()
    note: str = ""
    created_at: float | None = None
    revoked_at: float | None = None
    caps: tuple[Cap, ...] = ()
    account_caps: tuple[Cap, ...] = ()
    admin: bool = False
    models: tuple[str, ...] = ()
    may_load: bool = True
    priority: int | None = None
    expires: float | None = None
    requests_per_minute: int | None = None
    max_concurrent: int | None = None


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account: its caps, where they are kept, and its keys that are not revoked."""

    account_id: str
    source: Literal["settings", "ledger"]
    caps: tuple[Cap, ...]
    keys: tuple[str, ...]


def view_of_settings(who: Principal, now: float) -> KeyView:
    """A key of cortex.toml."""
    expired = who.expires is not None and who.expires <= now
    return KeyView(
        key_id=who.key_id,
        account_id=who.account_id,
        source="settings",
        state="expired" if expired else "active",
        account_caps=who.account_caps,
        **{name: getattr(who, name) for name in KeyRights.__struct_fields__},
    )


def view_of_record(
    key: KeyRecord, prefixes: tuple[str, ...], account_caps: tuple[Cap, ...], now: float
) -> KeyView:
    """A key of the ledger.

    Args:
        prefixes: Of its secrets that count now.
    """
    state: KeyState = "active"
    if key.revoked_at is not None:
        state, prefixes = "revoked", ()
    elif not prefixes or (key.rights.expires is not None and key.rights.expires <= now):
        state = "expired"
    rights = {name: getattr(key.rights, name) for name in KeyRights.__struct_fields__}
    return KeyView(
        key_id=key.key_id,
        account_id=key.account_id,
        source="ledger",
        state=state,
        prefixes=prefixes,
        note=key.note,
        created_at=key.created_at,
        revoked_at=key.revoked_at,
        account_caps=account_caps,
        **rights,
    )
