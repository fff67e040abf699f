"""Gauges of the fleet follow it, and what is gone is not exported any more."""

from __future__ import annotations

from helexa.core.fleet import DeviceReading, ModelEntry, ModelLoad
from helexa.core.metrics import exposition
from helexa.core.principal import Cap, Principal
from helexa.cortex.fleet.snapshot import FleetSnapshot, ModelState, NodeSnapshot
from helexa.cortex.fleet_metrics import derived_gauges
from helexa.cortex.ledger.book import Book
from helexa.cortex.metrics import CortexMetrics


class StandingFleet:
    def __init__(self) -> None:
        self.now = FleetSnapshot()

    def snapshot(self) -> FleetSnapshot:
        return self.now


def test_models_devices_and_grants_are_read_when_scraped() -> None:
    metrics, fleet, ledger = CortexMetrics(), StandingFleet(), Book(lambda: 0.0)
    metrics.registry.before_collect(derived_gauges(metrics, fleet, ledger))
    load = ModelLoad("m", in_flight=3, queue_depth=2, rejected_queue_full=7)
    node = NodeSnapshot(
        "one",
        "",
        answered=True,
        devices=(DeviceReading(0, vram_used_mb=5, vram_free_mb=6, temp_c=40.5),),
        models={"m": ModelState(ModelEntry("m", "loaded"), load)},
    )
    fleet.now = FleetSnapshot((node,))
    ledger.grant(Principal("acme", "k", caps=(Cap(100),)), "r", 1, 40)
    text = exposition(metrics.registry).decode()
    for line in (
        'cortex_model_in_flight{model="m",node="one"} 3',
        'cortex_model_queue_depth{model="m",node="one"} 2',
        'cortex_model_rejections_total{model="m",node="one",reason="queue_full"} 7',
        'cortex_device_vram_free_mb{node="one",device="0"} 6',
        'cortex_device_temp_c{node="one",device="0"} 40.5',
        'cortex_node_reachable{node="one"} 1',
        'cortex_grants_open{account="acme",key="k"} 1',
        'cortex_grants_tokens{account="acme",key="k"} 40',
    ):
        assert f"{line}\n" in text
    assert "cortex_device_utilization_pct{" not in text
    fleet.now = FleetSnapshot()
    text = exposition(metrics.registry).decode()
    assert "cortex_model_in_flight{" not in text
    assert "cortex_node_reachable{" not in text
