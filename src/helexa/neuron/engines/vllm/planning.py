"""How vLLM will run a model on a host: devices, slots, and the cells that fit.

Pure. vLLM takes the KV pool it is told to take, at once, so what is planned here is what it uses::

    device memory = weights ÷ ranks + activations and graphs + KV pool ÷ ranks
    host memory   = the processes (server, scheduler, one worker per rank) [+ all of it, on a CPU]

Ranks are tensor parallel × pipeline parallel; only those on this host are planned for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from helexa.core.errors import InsufficientVram
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.engines.vllm.options import Given
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan import HOST, room_of
from helexa.neuron.plan.memory import MIB, mib
from helexa.neuron.plan.wanted import MIN_CONTEXT

SLOTS_CPU, SLOTS_GPU = 4, 32
BATCH_CPU, BATCH_GPU = 512, 8192
BLOCK_CPU, BLOCK_GPU = 128, 16
"""Cells are handed out in blocks: a sequence may leave all but one of its last block unused."""
PROCESS_MB, WORKER_MB = 1300, 700
"""Server and scheduler, and one worker (Python, torch and vLLM itself), on a CPU."""
GRAPHS_MB = 2000
"""CUDA context, captured graphs, NCCL and the allocator's slack, per device."""
KV_SHARE_CPU = 0.5
"""A CPU host has other things to do: the most of what the weights leave that is taken for KV."""
SMALL_BYTES = 64 << 20
"""A model whose token is cheaper than a barrier between threads."""
_RETRY_AFTER_S = 30.0
_FLOAT = 4


class Asked(msgspec.Struct, frozen=True):
    """What a load and the node's settings say; None is decided here.

    Args:
        max_devices: The load's ``tensor_parallel``.
        devices: Indices that may be used.
        headroom_mb: Left free on every device; at most a tenth of it.
        cache_ram_mb: Host memory for prompts that may come again; on a CPU a part of the pool.
    """

    max_devices: int | None = None
    devices: tuple[int, ...] | None = None
    headroom_mb: int = 2048
    target_secs: float = 120.0
    prefill_tok_s: float | None = None
    cache_ram_mb: int = 0
    slots: int | None = None
    ctx: int | None = None
    embeddings: bool | None = None


class Needs(msgspec.Struct, frozen=True):
    """A model in bytes: ``token`` for one cell of all ranks, ``chunk`` for a prefill's floats."""

    weights: int
    token: int
    chunk: int


def make_plan(
    facts: ModelFacts, host: Host, wanted: Mapping[str, object], given: Given, *, cpu: bool
) -> Plan:
    """The plan with the most cells that fit, on the fewest devices that hold a full context.

    Args:
        given: The operator's arguments, which bind.
        cpu: The installed vLLM can use nothing else.

    Raises:
        InsufficientVram: With the figures.
    """
    asked = _asked(wanted)
    gpus = () if cpu else _gpus(host, asked)
    slots = given.number("max-num-seqs") or asked.slots or (SLOTS_GPU if gpus else SLOTS_CPU)
    batch = given.number("max-num-batched-tokens") or (BATCH_GPU if gpus else BATCH_CPU)
    batch = max(batch, slots)
    context = given.number("max-model-len") or _context(facts, asked)
    pooled = asked.embeddings or facts.pooling in ("mean", "cls", "last")
    if pooled or facts.pooling == "rank":
        batch = max(batch, context)  # an input to embed is computed in one piece
    shape = Plan(
        context=context,
        slots=slots,
        kv_cells=0,
        kv_type="fp8" if given.values.get("kv-cache-dtype", "").startswith("fp8") else "f16",
        batch=batch,
        threads=max(1, host.cores),
        embeddings=bool(pooled),
        rerank=facts.pooling == "rank",
    )
    if gpus:
        return _on_gpus(facts, shape, gpus, asked, given)
    return _on_cpu(facts, shape, host, asked, given)


def ranks_of(plan: Plan) -> int:
    """Tensor parallel ranks of a plan of ours."""
    return int(str(plan.extra["tensor_parallel"]))


def _asked(wanted: Mapping[str, object]) -> Asked:
    known: dict[str, Any] = {
        name: wanted[name] for name in Asked.__struct_fields__ if wanted.get(name) is not None
    }
    return msgspec.convert(known, Asked)


def _context(facts: ModelFacts, asked: Asked) -> int:
    """The model's maximum, or what can be prefilled in the target time if that is less."""
    native = facts.context_native or 4096
    if asked.ctx is not None:
        return min(asked.ctx, native)
    if asked.prefill_tok_s is None:
        return native
    reachable = int(asked.prefill_tok_s * asked.target_secs) // 256 * 256
    return min(native, max(MIN_CONTEXT, reachable))


def _gpus(host: Host, asked: Asked) -> tuple[tuple[int, int, int], ...]:
    """Devices that may be used, the freest first: index, free and total MiB."""
    free = {reading.index: reading.vram_free_mb for reading in host.readings}
    found = [
        (d.index, free.get(d.index, 0), d.vram_total_mb)
        for d in host.devices
        if d.kind != "cpu" and (asked.devices is None or d.index in asked.devices)
    ]
    return tuple(sorted(found, key=lambda gpu: (-gpu[1], gpu[0])))


def needs_of(facts: ModelFacts, plan: Plan, ranks: int) -> Needs:
    """What a model takes; KV heads are repeated where there are more ranks than heads."""
    size = 1 if plan.kv_type == "fp8" else 2
    repeated = max(1, ranks // max(1, facts.kv_heads))
    elements = facts.elements_per_token() + facts.window_elements
    wide = 5 * facts.embedding_dim + 3 * facts.feed_forward
    chunk = plan.batch * wide * _FLOAT + plan.slots * facts.vocab * _FLOAT
    return Needs(facts.weight_bytes, max(1, elements * size * repeated), chunk)


def _on_cpu(facts: ModelFacts, shape: Plan, host: Host, asked: Asked, given: Given) -> Plan:
    ranks = given.number("tensor-parallel-size") or asked.max_devices or 1
    needs = needs_of(facts, shape, ranks)
    usable = room_of(host.memory_total_mb, host.memory_free_mb, asked.headroom_mb)
    fixed = mib(needs.weights + needs.chunk) + PROCESS_MB + WORKER_MB * ranks
    spare = shape.slots * BLOCK_CPU
    most = int(max(0, usable - fixed) * KV_SHARE_CPU * MIB) // needs.token - spare
    cells = _cells(shape, most, given, needs)
    cache = min(asked.cache_ram_mb, max(0, usable - fixed - mib((cells + spare) * needs.token)))
    if cells < min(shape.context, MIN_CONTEXT):
        least = mib((min(shape.context, MIN_CONTEXT) + spare) * needs.token)
        raise _short(facts, "host memory", HOST, fixed + 2 * least, usable, host.memory_free_mb)
    # Every rank allocates what it is told, and holds its share of the heads.
    pool = given.number("kv-cache-memory-bytes") or (
        ((cells + spare) * needs.token + cache * MIB) // ranks
    )
    return msgspec.structs.replace(
        shape,
        context=min(shape.context, cells),
        kv_cells=cells,
        threads=1 if facts.weight_bytes < SMALL_BYTES else max(1, host.cores // ranks),
        memory_mb={HOST: fixed + mib(pool * ranks)},
        cache_ram_mb=cache,
        extra={"tensor_parallel": ranks, "kv_bytes": pool},
    )


def _on_gpus(
    facts: ModelFacts,
    shape: Plan,
    gpus: tuple[tuple[int, int, int], ...],
    asked: Asked,
    given: Given,
) -> Plan:
    """On one device, two, four …: the first count that holds a full context, else the best."""
    best: Plan | None = None
    for ranks in _counts(facts, len(gpus), asked, given):
        plan = _on(facts, shape, gpus[: min(ranks, len(gpus))], ranks, asked, given)
        if best is None or plan.kv_cells > best.kv_cells:
            best = plan
        if plan.kv_cells >= shape.context:
            break
    if best is None or best.kv_cells < min(shape.context, MIN_CONTEXT):
        index, free, total = gpus[0]
        ranks = ranks_of(best) if best is not None else 1
        needs = needs_of(facts, shape, ranks)
        needed = mib(needs.weights // ranks + needs.chunk) + GRAPHS_MB
        usable = room_of(total, free, asked.headroom_mb)
        raise _short(facts, f"device {index}", index, needed, usable, free)
    return best


def _counts(facts: ModelFacts, most: int, asked: Asked, given: Given) -> list[int]:
    """Tensor parallel sizes to try: what was asked for, or powers of two that divide the heads."""
    fixed = given.number("tensor-parallel-size") or asked.max_devices
    if fixed is not None:
        return [fixed]
    if given.has("distributed-executor-backend") or given.has("pipeline-parallel-size"):
        return [1]  # the operator lays ranks out
    sizes = [1 << n for n in range(most.bit_length())]
    return [size for size in sizes if size <= most and facts.heads % size == 0] or [1]


def _on(
    facts: ModelFacts,
    shape: Plan,
    gpus: tuple[tuple[int, int, int], ...],
    ranks: int,
    asked: Asked,
    given: Given,
) -> Plan:
    parts = ranks * (given.number("pipeline-parallel-size") or 1)
    needs = needs_of(facts, shape, ranks)
    share = given.fraction("gpu-memory-utilization")
    rooms = [
        min(free, int(total * share)) if share is not None
        else room_of(total, free, asked.headroom_mb)
        for _, free, total in gpus
    ]  # fmt: skip
    fixed = mib(needs.weights // parts + needs.chunk) + GRAPHS_MB
    left = max(0, min(rooms) - fixed) * MIB * parts
    spare = shape.slots * BLOCK_GPU
    cells = _cells(shape, left // needs.token - spare, given, needs, all_of_it=True)
    pool = given.number("kv-cache-memory-bytes") or (cells + spare) * needs.token // parts
    used = fixed + mib(pool)
    widest = max((used / total for _, _, total in gpus if total), default=0.0)
    return msgspec.structs.replace(
        shape,
        context=min(shape.context, max(cells, 0)),
        kv_cells=max(cells, 0),
        devices=tuple(index for index, _, _ in gpus),
        gpu_layers=facts.layers + 1,
        memory_mb={index: used for index, _, _ in gpus} | {HOST: PROCESS_MB + WORKER_MB * ranks},
        extra={
            "tensor_parallel": ranks,
            "kv_bytes": pool,
            "utilization": round(min(0.98, share if share is not None else widest), 4),
        },
    )


def _cells(shape: Plan, most: int, given: Given, needs: Needs, *, all_of_it: bool = False) -> int:
    """Cells of the pool: a context for every slot, or what fits; a GPU's free memory has no
    better use than more of them, for they keep prefixes too."""
    told = given.number("kv-cache-memory-bytes")
    if told is not None:
        return told // needs.token
    target = shape.slots * shape.context
    return max(0, most) if all_of_it else max(0, min(target, most))


def _short(
    facts: ModelFacts, name: str, index: int, needed: int, usable: int, free: int
) -> InsufficientVram:
    return InsufficientVram(
        f"{facts.model_id} needs {needed} MiB of {name}: {mib(facts.weight_bytes)} MiB of weights "
        f"in all, vLLM itself, and keys and values. {free} MiB are free there, {usable} MiB after "
        "the headroom. Free memory, use more devices (tensor_parallel), or a quantised model.",
        retry_after_s=_RETRY_AFTER_S,
        needed_mb=needed,
        usable_mb=usable,
        free_mb=free,
        device=index,
        nearest={},
    )
