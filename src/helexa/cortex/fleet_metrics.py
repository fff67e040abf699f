"""Gauges that are read off the fleet and the ledger when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from helexa.core.families import show
from helexa.core.logging import dropped
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.metrics import CortexMetrics


class Snapshots(Protocol):
    """Whoever knows the fleet as it is now."""

    def snapshot(self) -> FleetSnapshot: ...


def derived_gauges(metrics: CortexMetrics, fleet: Snapshots, ledger: Ledger) -> Callable[[], None]:
    """A function for ``Registry.before_collect``; what is gone disappears from the export."""

    def update() -> None:
        nodes = fleet.snapshot().nodes
        there = [node for node in nodes if node.reachable]
        metrics.of_models.show((n.name, m.load) for n in there for m in n.models.values())
        metrics.of_devices.show((node.name, device) for node in there for device in node.devices)
        show(metrics.node_up, {(node.name,): float(node.reachable) for node in nodes})
        metrics.estimated.value = ledger.estimated
        metrics.log_drops.value = dropped()
        keys = ledger.holds()
        show(metrics.grants_open, {(k.account_id, k.key_id): k.grants for k in keys})
        show(metrics.grants_tokens, {(k.account_id, k.key_id): k.tokens for k in keys})

    return update


def waiting_gauge(
    metrics: CortexMetrics, waiting: Callable[[], dict[str, int]]
) -> Callable[[], None]:
    """A function for ``Registry.before_collect``: the lines, by model."""

    def update() -> None:
        show(metrics.model_waiting, {(model,): float(n) for model, n in waiting().items()})

    return update
