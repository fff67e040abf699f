"""``cortex.toml`` as frozen structs; keys and defaults are the contract's.

``load_settings`` is what a command calls; ``check`` holds the rules that types cannot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from helexa.core.fleet_secret import FleetSettings
from helexa.core.settings import Loaded, SettingsError, load
from helexa.core.settings_env import blamed
from helexa.core.settings_lines import naming_lines
from helexa.cortex.entitlements import Count, EntitlementSettings, Positive, check_entitlements

DEFAULT_PATH = Path("/etc/cortex/cortex.toml")
DEFAULT_MODELS_PATH = Path("/etc/cortex/models.toml")
PREFIX = "CORTEX_"

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Patience = Annotated[float, msgspec.Meta(gt=0, le=1e9)]


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[gateway]``: where we listen and how patient we are.

    Args:
        listen: Address of the API, ``host:port``; port 0 takes any free one. ``0.0.0.0`` is every
            address of IPv4, ``[::]`` every address of IPv6 and IPv4.
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
        models_config: The catalogue. Absent, ``/etc/cortex/models.toml``.
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
    """Read and check ``cortex.toml``.

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
    where = str(loaded.path or default_path)
    with naming_lines(loaded.path):
        try:
            check(settings, where)
        except SettingsError as error:
            raise SettingsError(blamed(str(error), where, environ, PREFIX)) from error
    return loaded


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
    check_entitlements(settings.entitlements, where)


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
