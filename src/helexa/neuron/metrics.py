"""The node's metrics: the names of the contract with the prefix ``neuron_``.

``model`` gives out a bundle of children; whoever serves the model keeps it and adds to plain
slots. Gauges are read from the node when somebody collects.
"""

from __future__ import annotations

from helexa.core.families import (
    AT,
    DeviceFamilies,
    ModelFamilies,
    RequestFamilies,
    RequestMetrics,
    loop_lag,
    show,
    show_memory,
)
from helexa.core.fleet import DeviceReading, ModelLoad
from helexa.core.metrics import Registry


class NeuronMetrics:
    """Every family of the node.

    Args:
        node: The node's name, a label of everything.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self.registry = registry = Registry("neuron_")
        gauge = registry.gauge
        self.of_requests = RequestFamilies(
            registry,
            gap="Mean gap between tokens of one answer.",
            load="From a model's files to serving it.",
        )
        self.of_models = ModelFamilies(registry)
        self.of_devices = DeviceFamilies(registry)
        self.kv_used = gauge("model_kv_used_tokens", "KV cells granted.", *AT)
        self.discarded = self.of_requests.discarded
        self._deaths = registry.counter("engine_restarts_total", "Engines that died.", *AT)
        self.open_requests = gauge("open_requests", "Requests on the node.").labels()
        self.records_lost = gauge(
            "request_records_lost_total", "Finished records given up before a gateway took them."
        ).labels()
        show_memory(registry)
        self.lag = loop_lag(registry)
        self._models: dict[str, RequestMetrics] = {}

    def model(self, model_id: str) -> RequestMetrics:
        """The bundle of one model."""
        bundle = self._models.get(model_id)
        if bundle is None:
            bundle = self._models[model_id] = RequestMetrics(self.of_requests, model_id, self._node)
            self._deaths.labels(model_id, self._node)  # a rise can only be seen from 0
        return bundle

    def engine_died(self, model_id: str) -> None:
        """Count a death of the engine behind a model; it is started again."""
        self._deaths.labels(model_id, self._node).inc()

    def collect(
        self,
        models: list[ModelLoad],
        devices: list[DeviceReading],
        open_requests: int,
        records_lost: int = 0,
    ) -> None:
        """Set the gauges from the node's own snapshots."""
        node = self._node
        self.of_models.show((node, load) for load in models)
        self.of_devices.show((node, device) for device in devices)
        show(self.kv_used, {(load.id, node): load.kv_used_tokens for load in models})
        self.open_requests.set(open_requests)
        self.records_lost.set(records_lost)
