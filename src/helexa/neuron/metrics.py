"""The node's metrics: the names of the contract with the prefix ``neuron_``.

``model`` gives out a bundle of children; whoever serves the model keeps it and adds to plain
slots. Gauges are read from the node when somebody collects.
"""

from __future__ import annotations

import os
from pathlib import Path

from helexa.core.fleet import DeviceReading, ModelLoad
from helexa.core.metrics import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    GAP_BUCKETS,
    RATE_BUCKETS,
    Registry,
)


class ModelMetrics:
    """Children of one model on this node."""

    __slots__ = (
        "cached_tokens",
        "completion_tokens",
        "duration",
        "errors",
        "first_token",
        "inter_token",
        "load",
        "prompt_tokens",
        "queue",
        "requests",
        "tokens_per_second",
    )

    def __init__(self, families: NeuronMetrics, *labels: str) -> None:
        self.requests = families.requests.labels(*labels)
        self.errors = families.errors.labels(*labels)
        self.prompt_tokens = families.prompt_tokens.labels(*labels)
        self.completion_tokens = families.completion_tokens.labels(*labels)
        self.cached_tokens = families.cached_tokens.labels(*labels)
        self.duration = families.duration.labels(*labels)
        self.first_token = families.first_token.labels(*labels)
        self.inter_token = families.inter_token.labels(*labels)
        self.tokens_per_second = families.tokens_per_second.labels(*labels)
        self.queue = families.queue.labels(*labels)
        self.load = families.load.labels(*labels)


class NeuronMetrics:
    """Every family of the node.

    Args:
        node: The node's name, a label of everything.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self.registry = registry = Registry("neuron_")
        counter, gauge, histogram = registry.counter, registry.gauge, registry.histogram
        at = ("model", "node")
        self.requests = counter("requests_total", "Requests that ended.", *at)
        self.errors = counter("request_errors_total", "Requests that failed or were refused.", *at)
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
            "inter_token_seconds", "Mean gap between tokens of one answer.", *at, bounds=GAP_BUCKETS
        )
        self.tokens_per_second = histogram(
            "tokens_per_second", "Decode rate of one answer.", *at, bounds=RATE_BUCKETS
        )
        self.queue = histogram(
            "queue_seconds", "Waiting for a seat.", *at, bounds=FIRST_TOKEN_BUCKETS
        )
        self.load = histogram("load_seconds", "Loading the model.", *at, bounds=DURATION_BUCKETS)
        self.in_flight = gauge("model_in_flight", "Requests with a seat.", *at)
        self.queue_depth = gauge("model_queue_depth", "Requests waiting for a seat.", *at)
        self.rejections = gauge("model_rejections_total", "Refused by admission.", *at, "reason")
        self.kv_used = gauge("model_kv_used_tokens", "KV cells granted.", *at)
        device = ("node", "device")
        self.device_used = gauge("device_vram_used_mb", "MiB in use.", *device)
        self.device_free = gauge("device_vram_free_mb", "MiB free.", *device)
        self.device_busy = gauge("device_utilization_pct", "Utilisation.", *device)
        self.device_temp = gauge("device_temp_c", "Temperature.", *device)
        self.discarded = counter(
            "discarded_tokens_total", "Computed by an engine and not billed."
        ).labels()
        self.engine_restarts = counter("engine_restarts_total", "Engines that died.", *at)
        self.open_requests = gauge("open_requests", "Requests on the node.").labels()
        self.records_lost = gauge(
            "request_records_lost_total", "Finished records given up before a gateway took them."
        ).labels()
        self.rss = gauge("process_resident_memory_bytes", "Resident memory.").labels()
        self._models: dict[str, ModelMetrics] = {}

    def model(self, model_id: str) -> ModelMetrics:
        """The bundle of one model."""
        bundle = self._models.get(model_id)
        if bundle is None:
            bundle = self._models[model_id] = ModelMetrics(self, model_id, self._node)
        return bundle

    def collect(
        self,
        models: list[ModelLoad],
        devices: list[DeviceReading],
        open_requests: int,
        records_lost: int = 0,
    ) -> None:
        """Set the gauges from the node's own snapshots."""
        for model in models:
            self._model_gauges(model)
        for device in devices:
            self._device_gauges(device)
        self.open_requests.set(open_requests)
        self.records_lost.set(records_lost)
        self.rss.set(resident_bytes())

    def _model_gauges(self, model: ModelLoad) -> None:
        at = (model.id, self._node)
        self.in_flight.labels(*at).set(model.in_flight)
        self.queue_depth.labels(*at).set(model.queue_depth)
        self.kv_used.labels(*at).set(model.kv_used_tokens)
        for reason in ("queue_full", "timeout", "principal", "too_long"):
            count = getattr(model, f"rejected_{reason}")
            self.rejections.labels(*at, reason).set(count)

    def _device_gauges(self, device: DeviceReading) -> None:
        at = (self._node, str(device.index))
        self.device_used.labels(*at).set(device.vram_used_mb)
        self.device_free.labels(*at).set(device.vram_free_mb)
        if device.utilization_pct is not None:
            self.device_busy.labels(*at).set(device.utilization_pct)
        if device.temp_c is not None:
            self.device_temp.labels(*at).set(device.temp_c)


def resident_bytes() -> int:
    """Resident memory of this process, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
