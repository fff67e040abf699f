"""``cortex.toml`` as frozen structs; keys and defaults are the contract's.

``load_settings`` is what a command calls; ``check`` holds the rules that types cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from helexa.core.fleet_secret import FleetSettings
from helexa.core.principal import Cap, Window
from helexa.core.settings import Loaded, Secret, SettingsError, load

DEFAULT_PATH = Path("/etc/cortex/cortex.toml")
DEFAULT_MODELS_PATH = Path("/etc/cortex/models.toml")
PREFIX = "CORTEX_"

MOST_TOKENS = 2**53 - 1
"""Of a cap: what every reader of JSON holds exactly, and every database."""

Count = Annotated[int, msgspec.Meta(ge=0)]
Priority = Annotated[int, msgspec.Meta(ge=-1000, le=1000)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Patience = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gateway]``: where we listen and how patient we are.

    Args:
        listen: Address of the API, ``host:port``; port 0 takes any free one.
        metrics_listen: Address of the Prometheus metrics.
        tls_cert, tls_key: PEM files; both make the API HTTPS, and are read again when they change.
        max_body_mb: Longest request body (MiB).
        commit_ms: A stream that still waits gets its 200 and its first keep-alive after this (ms).
        drain_secs: At the end, running answers may finish for so long (seconds).
    """

    listen: str = "0.0.0.0:31313"
    metrics_listen: str = "0.0.0.0:31314"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body_mb: Positive = 64
    commit_ms: Count = 800
    drain_secs: Seconds = 30


class EvictionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[eviction]``: who makes room for a cold load.

    Args:
        strategy: ``lru`` takes the model that was used longest ago, ``priority`` the least
            important.
        defrag_after_cycles: Accepted and without effect: an unload leaves nothing behind.
    """

    strategy: Literal["lru", "priority"] = "lru"
    defrag_after_cycles: Count = 0


class NeuronSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[neurons]]``: a node by name and base URL; ``ca`` for its own authority.

    Args:
        name: What it is called in logs, metrics and ``pinned_on``.
        endpoint: Its base URL, ``http://host:13131`` or ``https://``.
        ca: Certificate of the authority that signed the node's, where the system does not know it.
    """

    name: str
    endpoint: str
    ca: Path | None = None


class KeySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[entitlements.keys]]``; the secret is given in exactly one of three ways.

    Args:
        account_id: Who is billed.
        key: The secret itself.
        key_sha256: SHA-256 of the secret (64 hexadecimal digits).
        key_env: Environment variable that holds the secret.
        key_id: Its name in logs and metrics; absent, the account's.
        hard_cap: At most so many tokens within ``window``; absent, no cap.
        admin: It may administer the gateway.
        models: Models and aliases it may use; empty is all.
        may_load: It may cause a model to be loaded.
        priority: Where requests wait for a seat, the higher goes first; 0 unless set.
        expires: It ends then: a date, or seconds since 1970.
        requests_per_minute: Requests in any sixty seconds, at each gateway.
        max_concurrent: Open requests at once.
    """

    account_id: str
    key: Secret | None = None
    key_sha256: str | None = None
    key_env: str | None = None
    key_id: str | None = None
    hard_cap: Count | None = None
    window: Window = Window()
    caps: tuple[Cap, ...] = ()
    admin: bool = False
    models: tuple[str, ...] = ()
    may_load: bool = True
    priority: Priority | None = None
    expires: datetime | float | None = None
    requests_per_minute: Positive | None = None
    max_concurrent: Positive | None = None

    @property
    def name(self) -> str:
        """The key's public name."""
        return self.key_id or self.account_id

    @property
    def all_caps(self) -> tuple[Cap, ...]:
        """``caps``, and the short form ``hard_cap`` + ``window`` as one of them."""
        return with_short_form(self.hard_cap, self.window, self.caps)


class AccountSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[entitlements.accounts]]``: caps that all keys of the account share.

    Args:
        account_id: The account of the keys it binds.
        hard_cap: At most so many tokens within ``window``; absent, no cap.
    """

    account_id: str
    hard_cap: Count | None = None
    window: Window = Window()
    caps: tuple[Cap, ...] = ()

    @property
    def all_caps(self) -> tuple[Cap, ...]:
        """As a key's."""
        return with_short_form(self.hard_cap, self.window, self.caps)


def with_short_form(hard_cap: int | None, window: Window, caps: tuple[Cap, ...]) -> tuple[Cap, ...]:
    """``caps``, and the one-cap short form as the first of them."""
    return caps if hard_cap is None else (Cap(hard_cap, window), *caps)


class EntitlementSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[entitlements]``: who may ask.

    Args:
        require_auth: Refuse requests without a key that is known (401); false lets everybody in.
    """

    require_auth: bool = False
    keys: tuple[KeySettings, ...] = ()
    accounts: tuple[AccountSettings, ...] = ()


class LedgerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[ledger]``: where keys and spend are kept, and the size of a slice (tokens).

    Args:
        url: ``sqlite:///`` with a file or ``postgresql://``; absent, ``ledger.db`` in the state
            directory.
        slice_tokens: Output that a request is granted at a time (tokens).
        lease_secs: What a gateway that vanished held is given back after so long.
        grant_wait_ms: A request waits so long for tokens that others only hold, then it is a 429.
        usage_retention_days: Requests are kept one by one for so long, then as sums per day; 0
            keeps every request.
    """

    url: str | None = None
    slice_tokens: Positive = 512
    lease_secs: Positive = 60
    grant_wait_ms: Count = 250
    usage_retention_days: Count = 90


class TimeoutSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[timeouts]`` (seconds): idle ones; there is no total.

    Args:
        connect: To reach a node.
        first_byte: Until the first byte of a node's answer; it may queue and must read the prompt.
        between_bytes: Between two pieces of an answer.
    """

    connect: Patience = 3
    first_byte: Patience = 600
    between_bytes: Patience = 300


class RoutingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[routing]``: which node serves a request.

    Args:
        retries: Other places that are tried when a node fails before the first byte.
    """

    retries: Count = 2


class ResidencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[residency]`` (seconds): how long models stay, and how long requests wait for one.

    Args:
        min_residency_secs: A loaded model is not evicted sooner.
        max_wait_secs: A request that would wait longer for its model is refused.
        idle_ttl_secs: Unload what nobody used for so long; 0 never.
        abandoned_loads: Whether a load that nobody waits for any more is finished or cancelled.
        max_copies: Most nodes that a busy model is loaded on, where memory is free; 0 is all,
            1 is never a second one.
    """

    min_residency_secs: Seconds = 60
    max_wait_secs: Seconds = 600
    idle_ttl_secs: Seconds = 0
    abandoned_loads: Literal["keep", "cancel"] = "keep"
    max_copies: Count = 0


class ResponsesSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[responses]``: the bounded store of the Responses dialect.

    Args:
        store: Keep responses, so that ``previous_response_id`` can name them.
        ttl_hours: For so long.
        max_mb: All of them together (MiB); the oldest go first.
    """

    store: bool = True
    ttl_hours: Seconds = 24
    max_mb: Count = 256


class CortexSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of ``cortex.toml``.

    Args:
        models_config: The catalogue; relative to this file. Absent, ``/etc/cortex/models.toml``.
    """

    models_config: Path | None = None
    gateway: GatewaySettings = GatewaySettings()
    eviction: EvictionSettings = EvictionSettings()
    neurons: tuple[NeuronSettings, ...] = ()
    entitlements: EntitlementSettings = EntitlementSettings()
    ledger: LedgerSettings = LedgerSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    routing: RoutingSettings = RoutingSettings()
    residency: ResidencySettings = ResidencySettings()
    responses: ResponsesSettings = ResponsesSettings()
    fleet: FleetSettings = FleetSettings()


def load_settings(
    path: Path | None,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    default_path: Path = DEFAULT_PATH,
) -> Loaded[CortexSettings]:
    """Read and check ``cortex.toml``; a relative ``models_config`` is beside it.

    Raises:
        SettingsError: With the key and a way out.
    """
    loaded = load(
        CortexSettings,
        prefix=PREFIX,
        path=path,
        default_path=default_path,
        flags=flags,
        environ=environ,
    )
    settings = loaded.value
    check(settings, str(loaded.path or default_path))
    models = settings.models_config
    if models is not None and not models.is_absolute() and loaded.path is not None:
        settings = msgspec.structs.replace(settings, models_config=loaded.path.parent / models)
    return Loaded(settings, loaded.warnings, loaded.path)


def check(settings: CortexSettings, where: str) -> None:
    """Refuse what the types allow but nobody can mean.

    Raises:
        SettingsError: The first thing found, with its key.
    """
    for name in ("listen", "metrics_listen"):
        _check_listen(getattr(settings.gateway, name), f"{where}: gateway.{name}")
    if settings.gateway.listen == settings.gateway.metrics_listen and not _any_port(
        settings.gateway.listen
    ):
        raise SettingsError(
            f"{where}: gateway.listen and gateway.metrics_listen are both "
            f"{settings.gateway.listen}; give each its own port"
        )
    if (settings.gateway.tls_cert is None) != (settings.gateway.tls_key is None):
        raise SettingsError(f"{where}: gateway.tls_cert and gateway.tls_key go together; add both")
    check_neurons(settings.neurons, where)
    _check_keys(settings.entitlements.keys, where)
    _check_accounts(settings.entitlements.accounts, where)


def split_listen(listen: str) -> tuple[str, int]:
    """``host:port`` (``[::1]:80`` for IPv6) as its parts.

    Raises:
        ValueError: It is neither.
    """
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _any_port(listen: str) -> bool:
    return split_listen(listen)[1] == 0


def _check_listen(listen: str, where: str) -> None:
    try:
        split_listen(listen)
    except ValueError as error:
        raise SettingsError(f"{where}: {error}; write for example 0.0.0.0:31313") from error


def check_neurons(neurons: Iterable[NeuronSettings], where: str) -> None:
    """Refuse nodes that cannot be told apart or reached.

    Raises:
        SettingsError: The first thing found.
    """
    names: set[str] = set()
    endpoints: set[str] = set()
    for index, neuron in enumerate(neurons):
        at = f"{where}: neurons[{index}]"
        if not neuron.name:
            raise SettingsError(f"{at}.name is empty; name the node")
        if not neuron.name.isprintable() or neuron.name != neuron.name.strip():
            raise SettingsError(
                f"{at}.name: {neuron.name!r} begins or ends with white space, or holds a line "
                "break; it stands in headers and paths"
            )
        if neuron.name in names:
            raise SettingsError(f"{at}.name: there are two neurons called {neuron.name!r}")
        _check_url(neuron.endpoint, f"{at}.endpoint")
        endpoint = neuron.endpoint.rstrip("/").lower()
        if endpoint in endpoints:
            raise SettingsError(f"{at}.endpoint: two neurons have the endpoint {endpoint}")
        names.add(neuron.name)
        endpoints.add(endpoint)


def _check_url(url: str, at: str) -> None:
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        fine = fine and (parts.port is None or parts.port > 0)
    except ValueError:
        fine, parts = False, urlsplit("")
    if not fine or parts.path not in ("", "/") or parts.query or parts.username is not None:
        shown = re.sub(r"//.*@", "//***@", url)  # whoever it names, and by which password
        raise SettingsError(
            f"{at}: {shown!r} is not a base URL; write for example http://host:13131"
        )


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
