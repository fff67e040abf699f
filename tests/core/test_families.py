from __future__ import annotations

from helexa.core.families import DeviceFamilies, ModelFamilies
from helexa.core.fleet import DeviceReading, ModelLoad
from helexa.core.metrics import Registry, exposition
from helexa.cortex.metrics import CortexMetrics
from helexa.neuron.metrics import NeuronMetrics


def kinds(registry: Registry, prefix: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Kind and labels of each family, by its name without the prefix."""
    families = registry._families.values()
    return {f.name.removeprefix(prefix): (f.kind, f.label_names) for f in families}


def test_gateway_and_node_mean_the_same_by_the_same_name() -> None:
    gateway = kinds(CortexMetrics().registry, "cortex_")
    node = kinds(NeuronMetrics("n").registry, "neuron_")
    both = gateway.keys() & node.keys()
    assert {name: gateway[name] for name in both} == {name: node[name] for name in both}
    assert {"requests_total", "model_in_flight", "device_temp_c", "load_seconds"} <= both


def test_what_a_node_does_not_know_or_no_longer_has_is_not_exported() -> None:
    registry = Registry("")
    models, devices = ModelFamilies(registry), DeviceFamilies(registry)
    models.show([("one", ModelLoad("m", in_flight=3, rejected_timeout=2))])
    devices.show([("one", DeviceReading(0, vram_free_mb=7, temp_c=40.0))])
    text = exposition(registry).decode()
    assert 'model_in_flight{model="m",node="one"} 3\n' in text
    assert 'device_temp_c{node="one",device="0"} 40\n' in text
    assert "device_utilization_pct" not in text
    models.show([])
    devices.show([])
    text = exposition(registry).decode()
    assert "device_" not in text
    assert "model_in_flight" not in text
    assert 'model_rejections_total{model="m",node="one",reason="timeout"} 2\n' in text
