"""The metric families that a gateway and a node have in common: one name and meaning, two prefixes.

A family is made here if both export it; what only one of them has is made in its own ``metrics``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from helexa.core.fleet import DeviceReading, ModelLoad
from helexa.core.metrics import (
    DURATION_BUCKETS,
    FIRST_TOKEN_BUCKETS,
    GAP_BUCKETS,
    LAG_BUCKETS,
    RATE_BUCKETS,
    Family,
    Gauge,
    Histogram,
    Registry,
)

AT = ("model", "node")


class RequestFamilies:
    """Of requests, by model and node.

    Args:
        gap: What ``inter_token_seconds`` lies between, where it is measured here.
        load: Who spends ``load_seconds``.
    """

    def __init__(self, registry: Registry, *, gap: str, load: str) -> None:
        counter, histogram = registry.counter, registry.histogram
        self.requests = counter("requests_total", "Requests that ended.", *AT)
        self.errors = counter("request_errors_total", "Requests that failed or were refused.", *AT)
        self.prompt_tokens = counter("prompt_tokens_total", "Prompt tokens, cached included.", *AT)
        self.completion_tokens = counter("completion_tokens_total", "Completion tokens.", *AT)
        self.cached_tokens = counter("cached_prompt_tokens_total", "Prompt tokens reused.", *AT)
        self.duration = histogram(
            "request_duration_seconds", "To the last byte.", *AT, bounds=DURATION_BUCKETS
        )
        self.first_token = histogram(
            "time_to_first_token_seconds", "To the first delta.", *AT, bounds=FIRST_TOKEN_BUCKETS
        )
        self.inter_token = histogram("inter_token_seconds", gap, *AT, bounds=GAP_BUCKETS)
        self.tokens_per_second = histogram(
            "tokens_per_second", "Decode rate of one answer.", *AT, bounds=RATE_BUCKETS
        )
        self.queue = histogram(
            "queue_seconds", "Waiting for a seat.", *AT, bounds=FIRST_TOKEN_BUCKETS
        )
        self.load = histogram("load_seconds", load, *AT, bounds=DURATION_BUCKETS)
        self.discarded = counter(
            "discarded_tokens_total", "Computed by an engine and not billed."
        ).labels()


class RequestMetrics:
    """The children of one (model, node); whoever counts keeps it."""

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

    def __init__(self, families: RequestFamilies, model: str, node: str) -> None:
        self.requests = families.requests.labels(model, node)
        self.errors = families.errors.labels(model, node)
        self.prompt_tokens = families.prompt_tokens.labels(model, node)
        self.completion_tokens = families.completion_tokens.labels(model, node)
        self.cached_tokens = families.cached_tokens.labels(model, node)
        self.duration = families.duration.labels(model, node)
        self.first_token = families.first_token.labels(model, node)
        self.inter_token = families.inter_token.labels(model, node)
        self.tokens_per_second = families.tokens_per_second.labels(model, node)
        self.queue = families.queue.labels(model, node)
        self.load = families.load.labels(model, node)


class ModelFamilies:
    """Of models as their nodes report them, by model and node."""

    def __init__(self, registry: Registry) -> None:
        self.in_flight = registry.gauge("model_in_flight", "Requests with a seat.", *AT)
        self.queue_depth = registry.gauge("model_queue_depth", "Requests waiting for one.", *AT)
        self.rejections = registry.counter(
            "model_rejections_total", "Rejected by the node's admission.", *AT, "reason"
        )

    def show(self, loads: Iterable[tuple[str, ModelLoad]]) -> None:
        """Show these, by node; what is gone disappears from the export, except its counts."""
        by = {(load.id, node): load for node, load in loads}
        show(self.in_flight, {at: load.in_flight for at, load in by.items()})
        show(self.queue_depth, {at: load.queue_depth for at, load in by.items()})
        for at, load in by.items():
            for reason in ("queue_full", "timeout", "principal", "too_long"):
                counted = getattr(load, f"rejected_{reason}")
                self.rejections.labels(*at, reason).value = counted


class DeviceFamilies:
    """Of devices, by node and index."""

    def __init__(self, registry: Registry) -> None:
        device = ("node", "device")
        self.used = registry.gauge("device_vram_used_mb", "MiB in use.", *device)
        self.free = registry.gauge("device_vram_free_mb", "MiB free.", *device)
        self.busy = registry.gauge("device_utilization_pct", "Utilisation.", *device)
        self.temp = registry.gauge("device_temp_c", "Temperature.", *device)

    def show(self, readings: Iterable[tuple[str, DeviceReading]]) -> None:
        """Show these, by node; what is gone or not known disappears from the export."""
        by = {(node, str(reading.index)): reading for node, reading in readings}
        show(self.used, {at: r.vram_used_mb for at, r in by.items()})
        show(self.free, {at: r.vram_free_mb for at, r in by.items()})
        busy = {at: r.utilization_pct for at, r in by.items()}
        temp = {at: r.temp_c for at, r in by.items()}
        show(self.busy, {at: pct for at, pct in busy.items() if pct is not None})
        show(self.temp, {at: celsius for at, celsius in temp.items() if celsius is not None})


def show(family: Family[Gauge], values: dict[tuple[str, ...], float]) -> None:
    """Export these label sets of a family, and no others."""
    for at in family.label_sets() - values.keys():
        family.forget(*at)
    for at, value in values.items():
        family.labels(*at).set(value)


def show_memory(registry: Registry) -> None:
    """Export how much memory this process has, read when somebody asks."""
    gauge = registry.gauge("process_resident_memory_bytes", "Resident memory.").labels()
    registry.before_collect(lambda: gauge.set(resident_bytes()))


def loop_lag(registry: Registry) -> Histogram:
    """How late the process's event loop is, which delays every stream; in seconds."""
    return registry.histogram(
        "event_loop_lag_seconds", "How late a timer fired.", bounds=LAG_BUCKETS
    ).labels()


def resident_bytes() -> int:
    """Resident memory of this process, 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
