"""A plan's memory by kind and place, for people to see; pure.

What a plan counts for a place is the truth; how it divides into weights, KV and the rest is told
from the model's own sizes, and the rest is what is left.
"""

from __future__ import annotations

from helexa.core.outlook import MemoryUse
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.ggml import KV_TYPES
from helexa.neuron.plan.memory import MIB, kv_bytes
from helexa.neuron.plan.wanted import HOST, MIN_CONTEXT, room_of


def uses_of(facts: ModelFacts, plan: Plan, host: Host, headroom_mb: int) -> list[MemoryUse]:
    """What a plan takes of each place it uses, devices first."""
    weights, kv = (facts.weight_bytes + facts.projector_bytes) / MIB, _kv_mb(facts, plan)
    devices = {i: mb for i, mb in plan.memory_mb.items() if i != HOST}
    if not devices:
        return [_use(host, HOST, headroom_mb, plan.memory_mb.get(HOST, 0), weights, kv, plan)]
    embedding = facts.embedding_bytes / MIB
    part = min(1.0, plan.gpu_layers / (facts.layers + 1)) if plan.gpu_layers else 1.0
    moved = (weights - (0 if facts.tied else embedding)) * part
    total = sum(devices.values()) or 1
    found = [
        _use(host, index, headroom_mb, mb, moved * mb / total, kv * part * mb / total)
        for index, mb in sorted(devices.items())
    ]
    if HOST in plan.memory_mb:
        rest = max(0.0, weights - moved)
        whole = plan.memory_mb[HOST]
        found.append(_use(host, HOST, headroom_mb, whole, rest, kv * (1 - part), plan))
    return found


def short_of(
    facts: ModelFacts, host: Host, headroom_mb: int, device: int, needed_mb: int
) -> list[MemoryUse]:
    """What is needed of the place that is short, at the least context."""
    weights = min(facts.weight_bytes / MIB, needed_mb)
    kv = kv_bytes(facts, context=MIN_CONTEXT, slots=1, kv_type="f16", unified=True, batch=0) / MIB
    return [_use(host, device, headroom_mb, needed_mb, weights, kv)]


def _use(
    host: Host,
    index: int,
    headroom_mb: int,
    needed_mb: int,
    weights: float,
    kv: float,
    plan: Plan | None = None,
) -> MemoryUse:
    name, total, free = _place(host, index)
    cache = plan.cache_ram_mb if plan is not None and needed_mb > plan.cache_ram_mb else 0
    left = needed_mb - cache
    # A plan may have learned that a model takes less than its sizes say.
    scale = min(1.0, left / (weights + kv)) if weights + kv > 0 else 0.0
    weights_mb, kv_mb = int(weights * scale), int(kv * scale)
    return MemoryUse(
        index, name, total, free, room_of(total, free, headroom_mb),
        weights_mb, kv_mb, cache, max(0, left - weights_mb - kv_mb),
    )  # fmt: skip


def _place(host: Host, index: int) -> tuple[str, int, int]:
    """Name, total and free memory of a device or the host."""
    if index == HOST:
        return "host memory", host.memory_total_mb, host.memory_free_mb
    device = next((d for d in host.devices if d.index == index), None)
    reading = next((r for r in host.readings if r.index == index), None)
    total = device.vram_total_mb if device is not None else 0
    name = device.name if device is not None and device.name else f"device {index}"
    return name, total, reading.vram_free_mb if reading is not None else 0


def _kv_mb(facts: ModelFacts, plan: Plan) -> float:
    kind = plan.kv_type if plan.kv_type in KV_TYPES else "f16"
    cells = plan.kv_cells if plan.unified else plan.context
    ahead = plan.ahead_cells * plan.slots if plan.unified else 0
    return (
        kv_bytes(
            facts,
            context=cells + ahead,
            slots=plan.slots,
            kv_type=kind,
            unified=plan.unified,
            batch=plan.batch,
        )
        / MIB
    )
