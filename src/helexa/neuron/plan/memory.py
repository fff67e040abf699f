"""How much memory a model takes with given slots and context, from its header alone.

::

    weights ─ every tensor as stored; the image encoder, with what it computes in
    KV      ─ cells × elements × bytes, windowed layers their window, states per slot
    compute ─ one prefill chunk's activations and mask, logits, and the process itself

The terms and constants are llama.cpp's with flash attention on, found by varying one dimension of
synthetic models at a time and reading its buffer sizes; ``benchmarks/memory_plan.py`` holds the
sum to within a tenth of what the process really has.
"""

from __future__ import annotations

import msgspec

from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.ggml import KV_TYPES

MIB = 1 << 20
_PAD = 256
_PROCESS_MB = 34.0
_VOCAB_BYTES = 200
_MERGE_BYTES = 210
_FLOAT = 4


class MemoryEstimate(msgspec.Struct, frozen=True):
    """MiB, rounded up.

    Args:
        weights_mb: All tensors, and the image encoder.
        kv_mb: Keys and values, and the states of recurrent layers.
        compute_mb: Activations, mask, logits and the process.
        total_mb: Their sum.
        process_mb: The part of ``compute_mb`` that stays in host memory beside a GPU.
    """

    weights_mb: int
    kv_mb: int
    compute_mb: int
    total_mb: int
    process_mb: int


def predict_memory(
    facts: ModelFacts, *, context: int, slots: int, kv_type: str, unified: bool, batch: int
) -> MemoryEstimate:
    """Predict what a model takes once it serves; pure.

    Args:
        context: Tokens of one slot, or of the whole pool when ``unified``.
        slots: Requests that run at once.
        kv_type: ``f16``, ``q8_0`` or ``q4_0``.
        unified: The slots share one pool of ``context`` cells.
        batch: Tokens of one prefill chunk.

    Returns:
        Figures for all devices and the host together.
    """
    process = _process_bytes(facts)
    compute = _compute_bytes(facts, batch, _padded(context)) + slots * facts.vocab * _FLOAT
    parts = (
        facts.weight_bytes + facts.projector_bytes,
        kv_bytes(
            facts, context=context, slots=slots, kv_type=kv_type, unified=unified, batch=batch
        ),
        compute + process,
    )
    weights_mb, kv_mb, compute_mb = (mib(part) for part in parts)
    total_mb = weights_mb + kv_mb + compute_mb
    return MemoryEstimate(weights_mb, kv_mb, compute_mb, total_mb, mib(process))


def kv_bytes(
    facts: ModelFacts, *, context: int, slots: int, kv_type: str, unified: bool, batch: int
) -> int:
    """Bytes of all that sequences keep: growing layers, windows, states.

    A windowed layer keeps the window of every sequence of its stream and one chunk.
    """
    storage = KV_TYPES[kv_type]
    streams, sharing = (1, slots) if unified else (slots, 1)
    cells = _padded(context)
    window = min(cells, _padded((facts.sliding_window or 0) * sharing + batch))
    elements = facts.elements_per_token() * cells + facts.window_elements * window
    return storage.bytes_for(elements) * streams + facts.state_bytes * slots


def tokens_in(facts: ModelFacts, mb: int, kv_type: str) -> int:
    """Tokens of prompts whose keys and values fit into so many MiB; 0 if there are none to keep.

    Windows and states are left out: a kept prompt has one of each, however long it is.
    """
    per_token = KV_TYPES[kv_type].bytes_for(facts.elements_per_token()) if mb else 0
    return mb * MIB // per_token if per_token else 0


def mib(size: float) -> int:
    """Bytes as MiB, rounded up."""
    return int(-(-size // MIB))


def _compute_bytes(facts: ModelFacts, batch: int, cells: int) -> int:
    """Activations of one chunk (floats) and the attention mask (f16, one row of cells a token).

    The peak is the feed-forward (normed input, residual, gate, up and their product) or the
    attention projections, whichever is wider.
    """
    query = facts.heads * facts.head_dim_k
    keys = facts.kv_heads * facts.head_dim_k
    hidden = facts.embedding_dim
    wide = max(5 * hidden + 3 * facts.feed_forward, 3 * query + 2 * keys + hidden)
    return batch * (_FLOAT * wide + 2 * cells)


def _process_bytes(facts: ModelFacts) -> float:
    return _PROCESS_MB * MIB + facts.vocab * _VOCAB_BYTES + facts.merges * _MERGE_BYTES


def _padded(tokens: int) -> int:
    return -(-tokens // _PAD) * _PAD
