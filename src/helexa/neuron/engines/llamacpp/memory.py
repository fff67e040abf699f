"""Predicted memory of a llama.cpp server, from the model's header alone."""

from __future__ import annotations

import msgspec

from helexa.neuron.models.facts import ModelFacts

_KV_BYTES = {"f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_BASE_MB = 45


class MemoryEstimate(msgspec.Struct, frozen=True):
    """MiB: weights, KV cells, and the rest (compute buffers, logits, the process)."""

    weights_mb: int
    kv_mb: int
    compute_mb: int
    total_mb: int


def predict_memory(
    facts: ModelFacts, *, context: int, slots: int, kv_type: str, unified: bool, batch: int
) -> MemoryEstimate:
    """Memory for ``slots`` slots of ``context`` tokens each (``unified``: one pool, all cells)."""
    cells = context if unified else context * slots
    per_layer = facts.kv_heads * (facts.head_dim_k + facts.head_dim_v) * _KV_BYTES[kv_type]
    windowed = min(cells, (facts.sliding_window or 0) * slots + batch)
    kv = per_layer * (facts.kv_layers * cells + facts.windowed_layers * windowed)
    compute = batch * (4 * facts.vocab + 24 * facts.embedding_dim) + 2 * batch * cells
    parts = [facts.weight_bytes / 2**20, kv / 2**20, compute / 2**20 + _BASE_MB]
    weights_mb, kv_mb, compute_mb = (int(part) + 1 for part in parts)
    return MemoryEstimate(weights_mb, kv_mb, compute_mb, weights_mb + kv_mb + compute_mb)
