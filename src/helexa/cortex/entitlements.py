"""``[entitlements]`` of ``cortex.toml``: keys, accounts, caps, and what nobody can mean by them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import msgspec

from helexa.core.principal import Cap, Window
from helexa.core.settings import Secret, SettingsError

MOST_TOKENS = 2**53 - 1
"""Of a cap: what every reader of JSON holds exactly, and every database."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Priority = Annotated[int, msgspec.Meta(ge=-1000, le=1000)]
Positive = Annotated[int, msgspec.Meta(ge=1)]


class CapMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Caps as people write them, in settings and in orders: several, or the short form of one.

    Args:
        hard_cap: At most so many tokens within ``window``; absent, no cap.
    """

    hard_cap: Count | None = None
    window: Window = Window()
    caps: tuple[Cap, ...] = ()

    @property
    def all_caps(self) -> tuple[Cap, ...]:
        """``caps``, and the short form ``hard_cap`` + ``window`` as the first of them."""
        return self.caps if self.hard_cap is None else (Cap(self.hard_cap, self.window), *self.caps)


class KeyMembers(CapMembers, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a key may do; settings and orders of the administration have the same members.

    Args:
        admin: It may administer the gateway.
        models: Models and aliases it may use; empty is all.
        may_load: It may cause a model to be loaded.
        priority: Where requests wait for a seat, the higher goes first; 0 unless set.
        expires: It ends then: a date, or seconds since 1970.
        requests_per_minute: Requests in any sixty seconds, at each gateway.
        max_concurrent: Open requests at once.
    """

    admin: bool = False
    models: tuple[str, ...] = ()
    may_load: bool = True
    priority: Priority | None = None
    expires: datetime | float | None = None
    requests_per_minute: Positive | None = None
    max_concurrent: Positive | None = None


class KeySettings(KeyMembers, frozen=True, forbid_unknown_fields=True):
    """One ``[[entitlements.keys]]``; the secret is given in exactly one of three ways.

    Args:
        account_id: Who is billed.
        key: The secret itself.
        key_sha256: SHA-256 of the secret (64 hexadecimal digits).
        key_env: Environment variable that holds the secret.
        key_id: Its name in logs and metrics; absent, the account's.
    """

    account_id: str
    key: Secret | None = None
    key_sha256: str | None = None
    key_env: str | None = None
    key_id: str | None = None

    @property
    def name(self) -> str:
        """The key's public name."""
        return self.key_id or self.account_id


class AccountSettings(CapMembers, frozen=True, forbid_unknown_fields=True):
    """One ``[[entitlements.accounts]]``: caps that all keys of the account share.

    Args:
        account_id: The account of the keys it binds.
    """

    account_id: str


class EntitlementSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[entitlements]``: who may ask.

    Args:
        require_auth: Refuse requests without a key that is known (401); false lets everybody in.
    """

    require_auth: bool = False
    keys: tuple[KeySettings, ...] = ()
    accounts: tuple[AccountSettings, ...] = ()


def check_entitlements(settings: EntitlementSettings, where: str) -> None:
    """Refuse keys and accounts that cannot be told apart, sent or kept to.

    Raises:
        SettingsError: The first thing found, with its key.
    """
    _check_keys(settings.keys, where)
    _check_accounts(settings.accounts, where)


def _check_keys(keys: Iterable[KeySettings], where: str) -> None:
    seen: dict[str, KeySettings] = {}
    for index, key in enumerate(keys):
        at = f"{where}: entitlements.keys[{index}]"
        if sum(x is not None for x in (key.key, key.key_sha256, key.key_env)) != 1:
            raise SettingsError(f"{at}: give exactly one of key, key_sha256 and key_env")
        if not key.account_id:
            raise SettingsError(f"{at}.account_id is empty; name who is billed")
        if key.key is not None:
            check_sendable(key.key.reveal(), f"{at}.key")
        if key.key_sha256 is not None and not _is_sha256(key.key_sha256):
            raise SettingsError(f"{at}.key_sha256 is not 64 hexadecimal digits")
        for cap in key.all_caps:
            _check_cap(cap, at)
        same = seen.setdefault(key.name, key)
        if _rights(same) != _rights(key):
            raise SettingsError(
                f"{at}: two keys are called {key.name!r} but differ in what they may do; "
                "give each its own key_id"
            )


def _check_accounts(accounts: Iterable[AccountSettings], where: str) -> None:
    seen: set[str] = set()
    for index, account in enumerate(accounts):
        at = f"{where}: entitlements.accounts[{index}]"
        if account.account_id in seen:
            raise SettingsError(f"{at}: the account {account.account_id!r} is there twice")
        seen.add(account.account_id)
        for cap in account.all_caps:
            _check_cap(cap, at)


def _check_cap(cap: Cap, at: str) -> None:
    problem = cap_problem(cap)
    if problem is not None:
        raise SettingsError(f"{at}: {problem}")


def cap_problem(cap: Cap) -> str | None:
    """What nobody can mean by this cap, in words; None when it is fine."""
    if cap.tokens < 0:
        return f"a cap of {cap.tokens} tokens; it cannot be below 0"
    if cap.tokens > MOST_TOKENS:
        return f"a cap of {cap.tokens} tokens; leave it out for no cap ({MOST_TOKENS} is the most)"
    if cap.window.kind == "rolling" and (cap.window.seconds or 0) <= 0:
        return "a rolling window needs seconds, for example seconds = 86400"
    if cap.window.kind == "balance" and cap.window.seconds is not None:
        return 'a balance has no seconds; write kind = "rolling" if it renews'
    return None


def check_sendable(value: str, at: str) -> None:
    """Refuse the secret of a key that no client could send: white space at its ends is lost on
    the way, and a header has one line.

    Raises:
        SettingsError: It is empty, or has some.
    """
    if not value:
        raise SettingsError(f"{at} is empty")
    if value != value.strip() or not value.isprintable():
        raise SettingsError(f"{at} begins or ends with white space, or holds a line break")


def _rights(key: KeySettings) -> KeySettings:
    return msgspec.structs.replace(key, key=None, key_sha256=None, key_env=None)


def _is_sha256(text: str) -> bool:
    try:
        return len(bytes.fromhex(text)) == 32 and len(text) == 64
    except ValueError:
        return False
