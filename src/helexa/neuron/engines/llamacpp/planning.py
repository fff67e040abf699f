"""How llama.cpp will run a model on a host: slots, context, threads, prefill chunk, devices.

Pure. What the operator wants is obeyed; the rest is the most that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from helexa.core.errors import InsufficientVram
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.models.facts import ModelFacts

HOST = -1
CANCEL_TARGET_S = 0.08
FLOPS_PER_CORE = 40e9
SMALL_MODEL_BYTES = 64 << 20
MIN_CONTEXT = 512
_SLOTS_CPU, _SLOTS_GPU = 4, 8
_BATCH_MIN, _BATCH_CPU, _BATCH_GPU = 16, 512, 2048


class Wanted(msgspec.Struct, frozen=True):
    """What the operator and the node ask for; None is decided here.

    Args:
        ctx: Tokens of one slot.
        devices: Indices to use; None is all of them.
        prefill_tok_s: Measured in an earlier life, sizes the prefill chunk.
        reserve_mb: Memory to leave free on every device and on the host.
        extra: ``split_mode, flash_attention, tensor_split, mmproj, batch, poll, mlock, unified``.
    """

    slots: int | None = None
    ctx: int | None = None
    gpu_layers: int | None = None
    kv_type: str | None = None
    threads: int | None = None
    embeddings: bool | None = None
    rerank: bool | None = None
    devices: tuple[int, ...] | None = None
    cache_ram_mb: int = 0
    prefill_tok_s: float | None = None
    reserve_mb: int = 512
    extra: dict[str, Any] = {}


def threads_for(facts: ModelFacts, cores: int) -> int:
    """CPU threads: one for a model whose token is cheaper than a barrier, else all but one core
    of four or more. (``benchmarks/engine_threads.py``.)"""
    if facts.weight_bytes < SMALL_MODEL_BYTES:
        return 1
    return max(1, cores if cores <= 2 else cores - 1)


def prefill_chunk(facts: ModelFacts, host: Host, wanted: Wanted, slots: int, gpu: bool) -> int:
    """Tokens between two looks at the queue, so that a cancelled prompt is noticed in time.

    ``rate × 80 ms``, rounded down to a power of two. Unmeasured CPUs are taken at 40 GFLOP/s per
    core and 2 FLOP per weight and token.
    """
    asked = wanted.extra.get("batch")
    if isinstance(asked, int):
        return max(asked, slots)
    if gpu:
        return max(_BATCH_GPU, slots)
    threads = wanted.threads or threads_for(facts, host.cores)
    rate = wanted.prefill_tok_s or threads * FLOPS_PER_CORE / (2.0 * max(1, facts.parameters))
    chunk = 1 << max(0, int(rate * CANCEL_TARGET_S).bit_length() - 1)
    return max(_BATCH_MIN, slots, min(_BATCH_CPU, chunk))


class Placement(msgspec.Struct, frozen=True):
    """Where the weights go: devices with their shares (sum 1), and how much of the model."""

    devices: tuple[int, ...] = ()
    shares: tuple[float, ...] = ()
    gpu_layers: int = 0
    on_gpu: float = 0.0


def place(facts: ModelFacts, host: Host, wanted: Wanted) -> Placement:
    """All layers on the wanted devices, in proportion to what is free there; else the CPU."""
    gpus = [device.index for device in host.devices if device.kind != "cpu"]
    chosen = [index for index in gpus if wanted.devices is None or index in wanted.devices]
    layers = facts.layers + 1  # the output layer counts as one
    gpu_layers = layers if wanted.gpu_layers is None else min(layers, max(0, wanted.gpu_layers))
    if not chosen or gpu_layers == 0:
        return Placement()
    free = {reading.index: float(reading.vram_free_mb) for reading in host.readings}
    split = wanted.extra.get("tensor_split") or [free.get(index, 0.0) for index in chosen]
    total = sum(split) or 1.0
    shares = tuple(part / total for part in split)
    return Placement(tuple(chosen), shares, gpu_layers, gpu_layers / layers)


Predict = Callable[[int, int, bool], tuple[int, int, int]]
"""Cells of one slot or of the pool, slots, unified → weights, KV and rest in MiB."""


def needed(parts: tuple[int, int, int], at: Placement, cache_ram_mb: int) -> dict[int, int]:
    """MiB per device index, ``HOST`` for host memory."""
    weights, kv, rest = parts
    if not at.devices:
        return {HOST: weights + kv + rest + cache_ram_mb}
    moved = (weights + kv) * at.on_gpu
    need = {
        index: int(moved * share) + rest for index, share in zip(at.devices, at.shares, strict=True)
    }
    need[HOST] = int((weights + kv) * (1 - at.on_gpu)) + rest + cache_ram_mb
    return need


def shortage(need: Mapping[int, int], host: Host, reserve_mb: int) -> tuple[int, int, int] | None:
    """The first place where it does not fit: index, needed, usable (MiB)."""
    free = {reading.index: reading.vram_free_mb for reading in host.readings}
    free[HOST] = host.memory_free_mb
    for index, amount in sorted(need.items()):
        usable = free.get(index, 0) - reserve_mb
        if amount > usable:
            return index, amount, max(0, usable)
    return None


def make_plan(facts: ModelFacts, host: Host, wanted: Wanted, predict: Predict) -> Plan:
    """The plan with the most cells that fit.

    Raises:
        InsufficientVram: Not even the least does; the message has the figures and what would fit.
    """
    at = place(facts, host, wanted)
    slots = wanted.slots or (_SLOTS_GPU if at.devices else _SLOTS_CPU)
    native = facts.context_native or 4096
    most = min(wanted.ctx or native, native)
    least = most if wanted.ctx else min(most, MIN_CONTEXT)
    unified = bool(wanted.extra.get("unified", True))
    for context, cells in _candidates(most, least, slots, unified):
        need = needed(
            predict(cells if unified else context, slots, unified), at, wanted.cache_ram_mb
        )
        if shortage(need, host, wanted.reserve_mb) is None:
            return _plan(facts, host, wanted, at, slots, context, cells, need)
    raise _does_not_fit(facts, host, wanted, at, slots, least, unified, predict)


def _candidates(most: int, least: int, slots: int, unified: bool) -> list[tuple[int, int]]:
    """(context, cells) from the best down: first fewer shared cells, then a shorter context."""
    found = []
    context = most
    while True:
        cells = context * slots
        while unified and cells > context:
            found.append((context, cells))
            cells = max(context, cells // 2)
        found.append((context, cells if unified else context * slots))
        if context <= least:
            return found
        context = max(least, context // 2)


def _plan(
    facts: ModelFacts,
    host: Host,
    wanted: Wanted,
    at: Placement,
    slots: int,
    context: int,
    cells: int,
    need: dict[int, int],
) -> Plan:
    return Plan(
        context=context,
        slots=slots,
        kv_cells=cells,
        unified=bool(wanted.extra.get("unified", True)),
        kv_type=wanted.kv_type or "f16",
        devices=at.devices,
        tensor_split=at.shares if len(at.devices) > 1 else (),
        gpu_layers=at.gpu_layers,
        threads=wanted.threads or threads_for(facts, host.cores),
        batch=prefill_chunk(facts, host, wanted, slots, bool(at.devices)),
        memory_mb=need,
        cache_ram_mb=wanted.cache_ram_mb,
        embeddings=bool(wanted.embeddings),
        rerank=bool(wanted.rerank),
        extra=wanted.extra,
    )


def _does_not_fit(
    facts: ModelFacts,
    host: Host,
    wanted: Wanted,
    at: Placement,
    slots: int,
    context: int,
    unified: bool,
    predict: Predict,
) -> InsufficientVram:
    need = needed(predict(context, slots, unified), at, wanted.cache_ram_mb)
    index, amount, usable = shortage(need, host, wanted.reserve_mb) or (HOST, 0, 0)
    where = "host memory" if index == HOST else f"device {index}"
    shorter = context
    nearest = "nothing of this model would fit; use a smaller one or a smaller quantisation"
    while shorter > MIN_CONTEXT:
        shorter //= 2
        if shortage(needed(predict(shorter, 1, unified), at, 0), host, wanted.reserve_mb) is None:
            nearest = f"one slot with a context of {shorter} tokens would fit"
            break
    return InsufficientVram(
        f"{facts.model_id} needs {amount} MiB of {where} for {slots} slots sharing a context of "
        f"{context} tokens, {usable} MiB can be used; {nearest}.",
        needed_mb=amount,
        usable_mb=usable,
    )
