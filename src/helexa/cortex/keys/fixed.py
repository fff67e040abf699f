"""What cortex.toml says about keys, and how it differs from what it said before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from helexa.core.principal import Cap, Principal
from helexa.cortex.auth import settings_keys
from helexa.cortex.entitlements import EntitlementSettings


class Fixed(NamedTuple):
    """The part of cortex.toml that is about keys.

    Args:
        keys: By the digest of the secret.
        accounts: Those with caps of their own.
        required: Whether a request without a known key is refused.
    """

    keys: Mapping[bytes, Principal]
    accounts: Mapping[str, tuple[Cap, ...]]
    required: bool

    @property
    def ids(self) -> dict[str, Principal]:
        """The keys by their ids."""
        return {who.key_id: who for who in self.keys.values()}

    def after(self, before: Fixed) -> Fixed:
        """The same; a principal that has not changed is the same object as before."""
        known = {who: who for who in before.keys.values()}
        return self._replace(keys={d: known.get(who, who) for d, who in self.keys.items()})


def fixed_of(given: EntitlementSettings, environ: Mapping[str, str]) -> Fixed:
    """Read it.

    Raises:
        SettingsError: A ``key_env`` is not set, or two entries have the same secret.
    """
    accounts = {account.account_id: account.all_caps for account in given.accounts}
    return Fixed(settings_keys(given, environ), accounts, given.require_auth)


def changes(before: Fixed, now: Fixed) -> list[str]:
    """What is different, in words, without a secret."""
    old, new = before.ids, now.ids
    digests = [{who.key_id: digest for digest, who in f.keys.items()} for f in (before, now)]
    words = [f"removed {name}" for name in old if name not in new]
    words += [f"added {name}" for name in new if name not in old]
    words += [
        f"changed {name}"
        for name, who in new.items()
        if name in old and (old[name] != who or digests[0][name] != digests[1][name])
    ]
    words += [
        f"changed account {name}"
        for name in sorted({*before.accounts, *now.accounts})
        if before.accounts.get(name) != now.accounts.get(name)
    ]
    if before.required != now.required:
        words.append(f"require_auth = {str(now.required).lower()}")
    return words
