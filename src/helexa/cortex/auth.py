"""Keys: from what a request carries to who asks.

A key is found by its SHA-256 digest, so the time of a lookup says nothing about the stored keys,
and the digests are compared in constant time on a hit and on a miss alike. No cache by secret
stands in front of it, which would answer hits faster than misses; what a connection's own last
head came to is kept with that head (``exchange.sender``), and only while ``version`` stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest
from typing import NamedTuple

from helexa.core.errors import InvalidApiKey
from helexa.core.principal import ANONYMOUS, Cap, Principal
from helexa.core.settings import SettingsError
from helexa.cortex.entitlements import EntitlementSettings, KeySettings, check_sendable

_NOBODY = bytes(32)
_MISSING = (
    "No API key was given. Send it as 'Authorization: Bearer KEY' or as 'x-api-key: KEY'; "
    "ask the operator of this gateway for one."
)
# The first four words are OpenAI's: LiteLLM knows a wrong key by them, and not by its status.
_UNKNOWN = (
    "Incorrect API key provided: it is unknown here. Check it, or ask the operator of this "
    "gateway for one."
)
_EXPIRED = (
    "Incorrect API key provided: it has expired. Ask the operator of this gateway for a new one."
)


class Known(NamedTuple):
    """A secret that is good until ``ends`` (epoch seconds; None for ever), and whose it is."""

    digest: bytes
    principal: Principal
    ends: float | None


_UNKNOWN_SECRET = Known(_NOBODY, ANONYMOUS, None)


class KeyIndex:
    """Keys by what they are asked for; with ten thousand of them made in a thread.

    Attributes:
        by_digest: Every secret.
        by_id: Every key once.
        has_admin: Whether any of them may administer.
    """

    __slots__ = ("by_digest", "by_id", "has_admin")

    def __init__(self, keys: Iterable[Known]) -> None:
        self.by_digest = {known.digest: known for known in keys}
        self.by_id = {k.principal.key_id: k.principal for k in self.by_digest.values()}
        self.has_admin = any(who.admin for who in self.by_id.values())


class KeyTable:
    """Every key by the digests of its secrets.

    Args:
        keys: Digest of a secret and its principal.
        required: Whether a request without a known key is refused; otherwise it is anonymous.
        now: Seconds since the epoch; decides about ``expires``.

    Attributes:
        version: Another object after every change.
    """

    __slots__ = ("_index", "_now", "required", "version")

    def __init__(
        self,
        keys: Iterable[tuple[bytes, Principal]],
        *,
        required: bool,
        now: Callable[[], float],
    ) -> None:
        self._now = now
        self.required = required
        self.replace(KeyIndex(Known(digest, who, who.expires) for digest, who in keys))

    def __repr__(self) -> str:
        return f"KeyTable({len(self._index.by_digest)} keys, required={self.required})"

    def replace(self, keys: KeyIndex) -> None:
        """Know these keys from now on, and no others."""
        self._index = keys
        self.version: object = keys

    @property
    def principals(self) -> Collection[Principal]:
        """Every key once."""
        return self._index.by_id.values()

    def principal(self, key_id: str) -> Principal | None:
        """A key by its id."""
        return self._index.by_id.get(key_id)

    @property
    def has_admin(self) -> bool:
        """Whether any key may administer; while none may, only loopback does."""
        return self._index.has_admin

    def resolve(self, authorization: bytes | None, x_api_key: bytes | None) -> Principal:
        """Who asks.

        Args:
            authorization: Value of the ``authorization`` header; anything but a Bearer token
                counts as absent.
            x_api_key: Value of the ``x-api-key`` header, tried when the token is not known.

        Raises:
            InvalidApiKey: A key is required, and none of the two is known and still valid.
        """
        return self.known(authorization, x_api_key).principal

    def known(self, authorization: bytes | None, x_api_key: bytes | None) -> Known:
        """As ``resolve``, with the secret's digest and end; the anonymous one has neither."""
        reason = _MISSING
        found: Known | str
        if authorization is not None and authorization[:7].lower() == b"bearer ":
            found = self._find(authorization[7:].strip())
            if isinstance(found, Known):
                return found
            reason = found
        if x_api_key:
            found = self._find(x_api_key.strip())
            if isinstance(found, Known):
                return found
            reason = found
        if self.required:
            raise InvalidApiKey(reason)
        return _UNKNOWN_SECRET

    def ended(self, known: Known) -> bool:
        """Whether a secret that was good is no more; only while ``version`` is the same."""
        return known.ends is not None and self._now() >= known.ends

    def _find(self, secret: bytes) -> Known | str:
        if not secret:
            return _MISSING
        digest = sha256(secret).digest()
        known = self._index.by_digest.get(digest, _UNKNOWN_SECRET)
        if not compare_digest(known.digest, digest):
            return _UNKNOWN
        return _EXPIRED if self.ended(known) else known


def key_table(
    settings: EntitlementSettings, environ: Mapping[str, str], now: Callable[[], float]
) -> KeyTable:
    """The table of cortex.toml alone.

    Raises:
        SettingsError: A ``key_env`` is not set, or two entries have the same secret.
    """
    keys = settings_keys(settings, environ)
    return KeyTable(keys.items(), required=settings.require_auth, now=now)


def settings_keys(
    settings: EntitlementSettings, environ: Mapping[str, str]
) -> dict[bytes, Principal]:
    """The keys of cortex.toml by the digests of their secrets.

    Raises:
        SettingsError: A ``key_env`` is not set, or two entries have the same secret.
    """
    keys: dict[bytes, Principal] = {}
    shared = {account.account_id: account.all_caps for account in settings.accounts}
    for index, key in enumerate(settings.keys):
        digest = _digest(key, environ, f"entitlements.keys[{index}]")
        if digest in keys:
            raise SettingsError(
                f"entitlements.keys[{index}]: the secret of {key.name!r} is also that of "
                f"{keys[digest].key_id!r}; every key needs its own"
            )
        keys[digest] = principal_of(key, shared.get(key.account_id, ()))
    return keys


def principal_of(key: KeySettings, account_caps: tuple[Cap, ...] = ()) -> Principal:
    """What a key of cortex.toml may do, without its secret."""
    return Principal(
        account_id=key.account_id,
        key_id=key.name,
        caps=key.all_caps,
        account_caps=account_caps,
        admin=key.admin,
        models=key.models,
        may_load=key.may_load,
        priority=key.priority,
        expires=_epoch(key.expires),
        requests_per_minute=key.requests_per_minute,
        max_concurrent=key.max_concurrent,
    )


def _digest(key: KeySettings, environ: Mapping[str, str], at: str) -> bytes:
    if key.key_sha256 is not None:
        return bytes.fromhex(key.key_sha256)
    if key.key is not None:
        return sha256(key.key.reveal().encode()).digest()
    value = environ.get(key.key_env or "", "")
    if not value:
        raise SettingsError(f"{at}.key_env: {key.key_env} is not set or empty in the environment")
    check_sendable(value, f"{at}.key_env: {key.key_env}")
    return sha256(value.encode()).digest()


def _epoch(expires: datetime | float | None) -> float | None:
    if not isinstance(expires, datetime):
        return expires
    return (expires if expires.tzinfo is not None else expires.replace(tzinfo=UTC)).timestamp()
