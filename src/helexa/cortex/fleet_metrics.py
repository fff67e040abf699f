"""Gauges that are read off the fleet and the ledger when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from helexa.core.logging import dropped
from helexa.core.metrics import Family, Gauge
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.metrics import CortexMetrics


class Snapshots(Protocol):
    """Whoever knows the fleet as it is now."""

    def snapshot(self) -> FleetSnapshot: ...


def derived_gauges(metrics: CortexMetrics, fleet: Snapshots, ledger: Ledger) -> Callable[[], None]:
    """A function for ``Registry.before_collect``; what is gone disappears from the export."""

    def update() -> None:
        nodes = fleet.snapshot().nodes
        _models(metrics, nodes)
        _devices(metrics, nodes)
        _set(metrics.node_up, {(node.name,): float(node.reachable) for node in nodes})
        metrics.estimated.value = ledger.estimated
        metrics.log_drops.value = dropped()
        keys = ledger.holds()
        _set(metrics.grants_open, {(k.account_id, k.key_id): k.grants for k in keys})
        _set(metrics.grants_tokens, {(k.account_id, k.key_id): k.tokens for k in keys})

    return update


def waiting_gauge(
    metrics: CortexMetrics, waiting: Callable[[], dict[str, int]]
) -> Callable[[], None]:
    """A function for ``Registry.before_collect``: the lines, by model."""

    def update() -> None:
        _set(metrics.model_waiting, {(model,): float(n) for model, n in waiting().items()})

    return update


def _models(metrics: CortexMetrics, nodes: tuple[NodeSnapshot, ...]) -> None:
    loads = {
        (model, node.name): state.load
        for node in nodes
        if node.reachable
        for model, state in node.models.items()
    }
    _set(metrics.model_in_flight, {at: load.in_flight for at, load in loads.items()})
    _set(metrics.model_queue_depth, {at: load.queue_depth for at, load in loads.items()})
    for at, load in loads.items():
        for reason, count in (
            ("queue_full", load.rejected_queue_full),
            ("timeout", load.rejected_timeout),
            ("principal", load.rejected_principal),
            ("too_long", load.rejected_too_long),
        ):
            metrics.model_rejections.labels(*at, reason).value = count


def _devices(metrics: CortexMetrics, nodes: tuple[NodeSnapshot, ...]) -> None:
    readings = {
        (node.name, str(reading.index)): reading
        for node in nodes
        if node.reachable
        for reading in node.devices
    }
    _set(metrics.device_used, {at: r.vram_used_mb for at, r in readings.items()})
    _set(metrics.device_free, {at: r.vram_free_mb for at, r in readings.items()})
    busy = {at: r.utilization_pct for at, r in readings.items()}
    temp = {at: r.temp_c for at, r in readings.items()}
    _set(metrics.device_busy, {at: pct for at, pct in busy.items() if pct is not None})
    _set(metrics.device_temp, {at: celsius for at, celsius in temp.items() if celsius is not None})


def _set(family: Family[Gauge], values: dict[tuple[str, ...], float]) -> None:
    for at in family.label_sets() - values.keys():
        family.forget(*at)
    for at, value in values.items():
        family.labels(*at).set(value)
