"""How llama.cpp will run a model on a host: threads, prefill chunk, and then what fits.

Pure. Memory is ``helexa.neuron.plan``'s business; what is llama.cpp's own is decided here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from helexa.core.errors import InsufficientVram
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan import Room, Wanted, fit

CANCEL_TARGET_S = 0.08
FLOPS_PER_CORE = 40e9
SMALL_MODEL_BYTES = 64 << 20
_DEEP = 8192
_BATCH_CPU, _BATCH_GPU = 512, 2048
_BATCH_MIN = 64
"""Below 64 rows llama.cpp's CPU attention takes another path: at 3,600 tokens of context spark
prefilled 1,150 tokens per CPU second in chunks of 64 and 430 in chunks of 32."""
SPIN = 300
"""Turns an OpenMP thread spins at a barrier before it sleeps: with none, one stream of a 0.6B
model decodes at 0.6 of the library's speed on two idle cores; with the library's own, at a quarter
of ours beside two busy neighbours (``benchmarks/engine_threads.py``)."""
AHEAD_CELLS = 32
"""In a shared pool: more than a slot makes while its last token is on its way to be counted."""
_BATCH_EMBED = 512
"""An input to embed has to fit one chunk, so there cancelling is the slower of the two."""
_WHOLE_CPU, _WHOLE_GPU = 2048, 8192
"""The longest input of a model that only makes vectors or scores, unless ``ctx`` asks for more:
its activations are all held at once, and grow with it."""


def make_plan(facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
    """The plan for ``wanted``: members of ``plan.Wanted`` and ``plan.Room``; None is unset.

    ``extra`` may hold ``batch``, ``unified``, ``cells``, ``max_devices`` and the members of
    ``config.ServerConfig`` that no plan has (``split_mode``, ``flash_attention``, …).

    Raises:
        InsufficientVram: With the figures and the nearest thing that would fit.
    """
    given: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    extra = given.get("extra", {})
    planned = ("unified", "cells", "max_devices")
    given |= {name: extra[name] for name in planned if name in extra}
    given.setdefault("rerank", facts.pooling == "rank")
    given.setdefault("embeddings", facts.pooling in ("mean", "cls", "last"))
    room = msgspec.convert(_members(given, Room), Room)
    asked = msgspec.convert(_members(given, Wanted), Wanted)
    threads = asked.threads or threads_for(facts, host.cores)
    asked = msgspec.structs.replace(asked, threads=threads)
    batch = extra.get("batch") or given.get("batch") or prefill_chunk(facts, host, asked)
    whole_chunks = asked.embeddings or asked.rerank or facts.projector is not None
    batch = max(int(batch), asked.slots or 1, _BATCH_EMBED if whole_chunks else 1)
    asked = msgspec.structs.replace(
        asked, batch=batch, ahead_cells=AHEAD_CELLS if asked.unified else 0
    )
    if takes_whole(facts, rerank=asked.rerank):
        return _fit_whole(facts, host, asked, room)
    return fit(facts, host, asked, room)


def takes_whole(facts: ModelFacts, *, rerank: bool) -> bool:
    """Whether the model does nothing but vectors or scores, each of an input that has to be
    computed in one piece; only pooling by the last token lets llama.cpp cut it."""
    return facts.pooling != "last" and (rerank or "text" not in facts.capabilities)


def longest_input(facts: ModelFacts, plan: Plan) -> int:
    """Tokens of the longest single input that the engine makes a vector or a score of."""
    return plan.context if facts.pooling == "last" else min(plan.context, plan.batch)


def _fit_whole(facts: ModelFacts, host: Host, asked: Wanted, room: Room) -> Plan:
    """One chunk holds the longest input, so the context is the chunk; half of it where memory is
    short, down to ``_BATCH_EMBED``.

    Raises:
        InsufficientVram: The weights, or a context that was asked for, do not fit.
    """
    gpus = any(device.kind != "cpu" for device in host.devices) and asked.gpu_layers != 0
    most = max(asked.batch, _WHOLE_GPU if gpus else _WHOLE_CPU)
    size = min(facts.context_native or _BATCH_EMBED, asked.ctx or most)
    while True:
        tried = msgspec.structs.replace(asked, ctx=size, batch=max(size, asked.slots or 1))
        try:
            return fit(facts, host, tried, room)
        except InsufficientVram:
            if asked.ctx is not None or size <= _BATCH_EMBED:
                raise
            size = max(_BATCH_EMBED, size // 2)


def _members(given: Mapping[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: given[name] for name in kind.__struct_fields__ if name in given}


def threads_for(facts: ModelFacts, cores: int) -> int:
    """CPU threads: one for a model whose token is cheaper than a barrier, else every core of two
    and all but one of more (``benchmarks/engine_threads.py``)."""
    if facts.weight_bytes < SMALL_MODEL_BYTES:
        return 1
    return max(1, cores if cores <= 2 else cores - 1)


def prefill_chunk(facts: ModelFacts, host: Host, wanted: Wanted) -> int:
    """Tokens between two looks at the queue, so that a cancelled prompt is noticed in time.

    ``rate × 80 ms`` at the end of the context, where a chunk takes longest, rounded down to a power
    of two. A token costs 2 FLOP per weight, and 4 per context token, head and element of a head in
    every layer. A measured rate is that of prompts which mostly are short; unmeasured CPUs are
    taken at 40 GFLOP/s per thread.
    """
    gpus = any(device.kind != "cpu" for device in host.devices)
    if gpus and wanted.gpu_layers != 0:
        return _BATCH_GPU
    context = min(facts.context_native or _DEEP, wanted.ctx or _DEEP, _DEEP)
    attention = 4 * context * facts.heads * facts.head_dim_k * facts.layers
    weights = 2 * max(1, facts.parameters)
    measured = wanted.prefill_tok_s or (wanted.threads or 1) * FLOPS_PER_CORE / weights
    rate = measured * weights / (weights + attention)
    chunk = 1 << max(0, int(rate * CANCEL_TARGET_S).bit_length() - 1)
    return max(_BATCH_MIN, min(_BATCH_CPU, chunk))
