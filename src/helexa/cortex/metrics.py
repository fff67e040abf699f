"""The gateway's metrics: the names of the contract, with labels bound once.

``placement`` and ``key`` give out bundles of children; the data plane keeps them and adds to
plain slots.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from helexa.core.metrics import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    GAP_BUCKETS,
    LAG_BUCKETS,
    RATE_BUCKETS,
    Registry,
)

NONE = "none"
"""Label of a request that never reached a node, or named no model that we know."""


class PlacementMetrics:
    """Children of one (model, node)."""

    __slots__ = (
        "cached_tokens",
        "cold_starts",
        "completion_tokens",
        "duration",
        "errors",
        "evictions",
        "first_token",
        "inter_token",
        "load",
        "prompt_tokens",
        "queue",
        "requests",
        "tokens_per_second",
    )

    def __init__(self, families: CortexMetrics, model: str, node: str) -> None:
        self.requests = families.requests.labels(model, node)
        self.errors = families.errors.labels(model, node)
        self.cold_starts = families.cold_starts.labels(model, node)
        self.evictions = families.evictions.labels(model, node)
        self.prompt_tokens = families.prompt_tokens.labels(model, node)
        self.completion_tokens = families.completion_tokens.labels(model, node)
        self.cached_tokens = families.cached_tokens.labels(model, node)
        self.duration = families.duration.labels(model, node)
        self.first_token = families.first_token.labels(model, node)
        self.inter_token = families.inter_token.labels(model, node)
        self.tokens_per_second = families.tokens_per_second.labels(model, node)
        self.queue = families.queue.labels(model, node)
        self.load = families.load.labels(model, node)


class KeyMetrics:
    """Children of one (account, key)."""

    __slots__ = ("spend", "spend_completion", "spend_prompt")

    def __init__(self, families: CortexMetrics, account: str, key: str) -> None:
        self.spend = families.spend.labels(account, key)
        self.spend_prompt = families.spend_prompt.labels(account, key)
        self.spend_completion = families.spend_completion.labels(account, key)


class CortexMetrics:
    """Every family of the gateway, prefix ``cortex_``."""

    def __init__(self) -> None:
        self.registry = registry = Registry("cortex_")
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        at = ("model", "node")
        who = ("account", "key")
        self.requests = counter("requests_total", "Requests that ended.", *at)
        self.errors = counter("request_errors_total", "Requests that failed or were refused.", *at)
        self.refusals = counter(
            "refusals_total", "Requests refused before a node saw them.", "code"
        )
        self.cold_starts = counter("cold_starts_total", "Requests that had to load a model.", *at)
        self.evictions = counter("evictions_total", "Models unloaded to make room.", *at)
        self.prompt_tokens = counter("prompt_tokens_total", "Prompt tokens, cached included.", *at)
        self.completion_tokens = counter("completion_tokens_total", "Completion tokens.", *at)
        self.cached_tokens = counter("cached_prompt_tokens_total", "Prompt tokens reused.", *at)
        self.duration = histogram(
            "request_duration_seconds", "To the last byte.", *at, bounds=DURATION_BUCKETS
        )
        self.first_token = histogram(
            "time_to_first_token_seconds", "To the first delta.", *at, bounds=FIRST_TOKEN_BUCKETS
        )
        self.inter_token = histogram(
            "inter_token_seconds", "Between deltas.", *at, bounds=GAP_BUCKETS
        )
        self.tokens_per_second = histogram(
            "tokens_per_second", "Decode rate of one answer.", *at, bounds=RATE_BUCKETS
        )
        self.queue = histogram(
            "queue_seconds", "Waiting for a seat.", *at, bounds=FIRST_TOKEN_BUCKETS
        )
        self.load = histogram("load_seconds", "Waiting for a load.", *at, bounds=DURATION_BUCKETS)
        self.spend = counter("spend_tokens_total", "Tokens settled.", *who)
        self.spend_prompt = counter("spend_prompt_tokens_total", "Prompt tokens settled.", *who)
        self.spend_completion = counter(
            "spend_completion_tokens_total", "Completion tokens settled.", *who
        )
        self.grants_open = gauge("grants_open", "Open grants.", *who)
        self.grants_tokens = gauge("grants_tokens", "Tokens held by open grants.", *who)
        self.model_in_flight = gauge("model_in_flight", "Running, by the node's report.", *at)
        self.model_queue_depth = gauge("model_queue_depth", "Waiting, by the node's report.", *at)
        self.model_waiting = gauge(
            "model_waiting", "Requests in line for a model to be loaded.", "model"
        )
        self.model_rejections = counter(
            "model_rejections_total", "Rejected by the node's admission.", *at, "reason"
        )
        device = ("node", "device")
        self.device_used = gauge("device_vram_used_mb", "MiB in use.", *device)
        self.device_free = gauge("device_vram_free_mb", "MiB free.", *device)
        self.device_busy = gauge("device_utilization_pct", "Utilisation.", *device)
        self.device_temp = gauge("device_temp_c", "Temperature.", *device)
        self.drift = gauge("ledger_drift_tokens", "Settled minus the nodes' records.").labels()
        self.estimated = counter(
            "ledger_estimated_tokens_total", "Settled without a node's final count."
        ).labels()
        self.discarded = counter(
            "discarded_tokens_total", "Computed by an engine and not billed."
        ).labels()
        self.wasted = counter("wasted_tokens_total", "Billed or computed for nobody.", "reason")
        self.responses_lost = counter(
            "responses_lost_total", "Responses that could not be kept."
        ).labels()
        self.node_up = gauge("node_reachable", "1 while the node answers.", "node")
        self.open_streams = gauge("open_streams", "Streamed answers being relayed.").labels()
        self.rss = gauge("process_resident_memory_bytes", "Resident memory.").labels()
        self.fds = gauge("process_open_fds", "Open file descriptors.").labels()
        self.lag = histogram(
            "event_loop_lag_seconds", "How late a timer fired.", bounds=LAG_BUCKETS
        ).labels()
        self.log_drops = counter("log_dropped_total", "Log lines dropped.").labels()
        self.catalogue_failures = counter(
            "catalogue_reload_failures_total", "Changed catalogues that were refused."
        ).labels()
        self._placements: dict[tuple[str, str], PlacementMetrics] = {}
        self._keys: dict[tuple[str, str], KeyMetrics] = {}
        registry.before_collect(self._process)

    def placement(self, model: str, node: str) -> PlacementMetrics:
        """The bundle of one (model, node); both from the catalogue and the fleet."""
        bundle = self._placements.get((model, node))
        if bundle is None:
            bundle = self._placements[model, node] = PlacementMetrics(self, model, node)
        return bundle

    def key(self, account: str, key: str) -> KeyMetrics:
        """The bundle of one key of the key table."""
        bundle = self._keys.get((account, key))
        if bundle is None:
            bundle = self._keys[account, key] = KeyMetrics(self, account, key)
        return bundle

    def _process(self) -> None:
        self.rss.set(resident_bytes())
        self.fds.set(open_descriptors())


def resident_bytes() -> int:
    """Resident memory of this process, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_descriptors() -> int:
    """Open file descriptors of this process, 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    except OSError:
        return 0


async def watch_lag(observe: Callable[[float], object], every_s: float = 0.25) -> None:
    """Report how late the loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
