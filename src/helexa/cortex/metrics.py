"""The gateway's metrics: the names of the contract, with labels bound once.

``placement`` and ``key`` give out bundles of children; the data plane keeps them and adds to
plain slots.
"""

from __future__ import annotations

import os

from helexa.core.families import (
    AT,
    DeviceFamilies,
    ModelFamilies,
    RequestFamilies,
    RequestMetrics,
    loop_lag,
    show_memory,
)
from helexa.core.fleet import RequestRecord
from helexa.core.metrics import Registry
from helexa.cortex.ledger.base import Settled

NONE = "none"
"""Label of a request that never reached a node, or named no model that we know."""

_WASTED = frozenset(("cancelled", "failed", "node_lost"))
"""Ends of a request after which nobody had the use of what was computed."""


class PlacementMetrics(RequestMetrics):
    """Children of one (model, node)."""

    __slots__ = ("cold_starts", "evictions")

    def __init__(self, families: CortexMetrics, model: str, node: str) -> None:
        super().__init__(families.of_requests, model, node)
        self.cold_starts = families.cold_starts.labels(model, node)
        self.evictions = families.evictions.labels(model, node)


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
        counter, gauge = registry.counter, registry.gauge
        who = ("account", "key")
        self.of_requests = RequestFamilies(
            registry, gap="Between deltas.", load="Waiting for a load."
        )
        self.of_models = ModelFamilies(registry)
        self.of_devices = DeviceFamilies(registry)
        self.refusals = counter(
            "refusals_total", "Requests refused before a node saw them.", "code"
        )
        self.cold_starts = counter("cold_starts_total", "Requests that had to load a model.", *AT)
        self.evictions = counter("evictions_total", "Models unloaded to make room.", *AT)
        self.spend = counter("spend_tokens_total", "Tokens settled.", *who)
        self.spend_prompt = counter("spend_prompt_tokens_total", "Prompt tokens settled.", *who)
        self.spend_completion = counter(
            "spend_completion_tokens_total", "Completion tokens settled.", *who
        )
        self.grants_open = gauge("grants_open", "Open grants.", *who)
        self.grants_tokens = gauge("grants_tokens", "Tokens held by open grants.", *who)
        self.model_waiting = gauge(
            "model_waiting", "Requests in line for a model to be loaded.", "model"
        )
        self.drift = gauge("ledger_drift_tokens", "Settled minus the nodes' records.").labels()
        self.ledger_failures = counter(
            "ledger_upkeep_failures_total", "What renews the ledger's lease failed; begun anew."
        ).labels()
        self.ledger_writable = gauge(
            "ledger_writable", "1 while what is settled can be written down."
        ).labels()
        self.ledger_unwritten = gauge(
            "ledger_unwritten_requests", "Settled requests that wait to be written."
        ).labels()
        self.ledger_late = counter(
            "ledger_late_tokens_total",
            "In nodes' records that came after their requests had been settled; not billed.",
        ).labels()
        self.estimated = counter(
            "ledger_estimated_tokens_total", "Settled without a node's final count."
        ).labels()
        self.discarded = self.of_requests.discarded
        self.wasted = counter("wasted_tokens_total", "Billed or computed for nobody.", "reason")
        self.responses_lost = counter(
            "responses_lost_total", "Responses that could not be kept."
        ).labels()
        self.node_up = gauge("node_reachable", "1 while the node answers.", "node")
        self.open_streams = gauge("open_streams", "Streamed answers being relayed.").labels()
        show_memory(registry)
        self.fds = gauge("process_open_fds", "Open file descriptors.").labels()
        self.lag = loop_lag(registry)
        self.log_drops = counter("log_dropped_total", "Log lines dropped.").labels()
        self.catalogue_failures = counter(
            "catalogue_reload_failures_total", "Changed catalogues that were refused."
        ).labels()
        self._placements: dict[tuple[str, str], PlacementMetrics] = {}
        self._keys: dict[tuple[str, str], KeyMetrics] = {}
        registry.before_collect(lambda: self.fds.set(open_descriptors()))

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

    def spent(self, settled: Settled) -> None:
        """Count what was settled, for its key."""
        who = (settled.account_id, settled.key_id)
        key, prompt, completion = self._keys.get(who), settled.prompt, settled.completion
        if key is None:
            key = self.key(*who)
        # Slots are written directly here and in ``closing``: calls would be a tenth of a request.
        key.spend.value += prompt + completion
        key.spend_prompt.value += prompt
        key.spend_completion.value += completion

    def heard(self, node: str, record: RequestRecord) -> None:
        """Count the tokens of a request of which only its node knew them."""
        at = self.placement(record.model, node)
        at.prompt_tokens.inc(record.prompt)
        at.completion_tokens.inc(record.output)
        at.cached_tokens.inc(record.cached)

    def recorded(self, record: RequestRecord, *, billed: bool = True) -> None:
        """Count what nobody had of an attempt, by its node's final record.

        Args:
            billed: The record is what was settled; otherwise all of it is thrown away.
        """
        wasted, discarded = record.state in _WASTED or not billed, record.discarded
        if wasted:
            # What was reused cost nothing to compute.
            computed = record.prompt - record.cached + record.output
            reason = record.state if record.state in _WASTED else "failed"
            self.wasted.labels(reason).inc(computed)
            discarded += 0 if billed else computed
        if discarded:
            self.discarded.inc(discarded)


def open_descriptors() -> int:
    """Open file descriptors of this process, 0 where the system does not say."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    except OSError:
        return 0
