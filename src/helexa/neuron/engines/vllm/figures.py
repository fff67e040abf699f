"""vLLM's Prometheus text, as far as a node wants to know it."""

from __future__ import annotations

import math

from helexa.neuron.engines.base import LoadFigures

_NAMES = {
    b"vllm:num_requests_running": "running",
    b"vllm:num_requests_waiting": "waiting",
    b"vllm:kv_cache_usage_perc": "kv_share",
    b"vllm:num_preemptions_total": "preemptions",
    b"vllm:prefix_cache_hits_total": "prefix_hits",
    b"vllm:prefix_cache_queries_total": "prefix_queries",
}


def read_figures(text: bytes) -> LoadFigures:
    """Figures of all its engines (data parallel has several), summed."""
    sums = dict.fromkeys(_NAMES.values(), 0.0)
    for line in text.splitlines():
        if line.startswith(b"vllm:"):
            name, _, rest = line.partition(b"{")
            known = _NAMES.get(name)
            if known is not None:
                sums[known] += _number(rest)
    running, waiting = int(sums.pop("running")), int(sums.pop("waiting"))
    return LoadFigures(running=running, waiting=waiting, extra=sums)


def _number(rest: bytes) -> float:
    """The value behind the labels; a label may hold a brace, a value cannot. It may be ``NaN``."""
    try:
        value = float(rest.rpartition(b" ")[2])
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
