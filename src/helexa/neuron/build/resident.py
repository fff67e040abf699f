"""What surrounds one loaded model: its limit, its seats, its watchdog and its connections."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from helexa.core.fleet import Limit
from helexa.neuron.admission import Admission
from helexa.neuron.build.parts import Parts
from helexa.neuron.engines.base import Address, Host, Served
from helexa.neuron.limits import FreeMemory, PrefillRate, derive, floors
from helexa.neuron.plan.wanted import HOST
from helexa.neuron.registry.loader import Running
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.watchdog import Watchdog, least_s
from helexa.relay.pool import Origin, UpstreamPool


def assemble(parts: Parts, running: Running) -> ServedModel:
    """The served model around an engine that answers."""
    settings, plan, facts = parts.settings, running.plan, running.facts
    limits = settings.context_limit
    given = parts.given_mb[running.spec.model_id] = plan.memory_mb.get(HOST, 0)
    # Under a budget what a model was given is what its end frees.
    budgeted = given if settings.memory.host_mb is not None and not plan.devices else 0
    prefill = PrefillRate(running.prefill_tok_s or limits.bootstrap_prefill_tok_per_sec)

    def limit_at(prefill_tok_s: float) -> Limit:
        return derive(facts, plan, limits, prefill_tok_s, parts.clamps.max_prompt_tokens)

    limit = limit_at(prefill.tok_s)

    def make_pool(address: Address) -> UpstreamPool:
        origin = Origin(address.host, address.port, address.uds)
        return UpstreamPool(origin, parts.wheel, parts.loop, limit=4 * plan.slots + 8)

    return ServedModel(
        spec=running.spec,
        engine=running.engine,
        process=running.process,
        facts=facts,
        plan=plan,
        served=Served(running.spec.model_id, facts, plan, limit.output),
        limit=limit,
        admission=Admission(
            plan.slots,
            plan.kv_cells,
            plan.context,
            settings.admission,
            parts.loop.time,
            slice_tokens=settings.grants.slice_tokens // 2,
            changed=partial(parts.changes.figures.add, running.spec.model_id),
        ),
        prefill=prefill,
        watchdog=Watchdog(
            parts.loop.time,
            plan.batch,
            lambda: prefill.tok_s,
            least_s(
                settings.life.watchdog_secs,
                encodes_on_cpu=facts.projector is not None and not plan.gpu_layers,
            ),
        ),
        pool=make_pool(running.address),
        metrics=parts.metrics.model(running.spec.model_id),
        make_pool=make_pool,
        free_memory=_free_memory_of(parts, plan.devices),
        derive=limit_at,
        devices=list(plan.devices) or _host_device(parts),
        relisted=lambda: parts.changes.listings.add(running.spec.model_id),
        learned=running.learned,
        freed=lambda: parts.given_mb.pop(running.spec.model_id, None),
        memory_mb=max(running.memory_mb, budgeted),
        last_used=parts.loop.time(),
    )


def _host_device(parts: Parts) -> list[int]:
    """The index a host without GPUs is listed under."""
    return [device.index for device in parts.hardware.host().devices if device.kind == "cpu"]


def _free_memory_of(parts: Parts, devices: tuple[int, ...]) -> Callable[[], FreeMemory]:
    """Live free memory of the places a plan uses: its devices, or the host's."""
    seen, made = None, FreeMemory({}, {})

    def read() -> FreeMemory:
        nonlocal seen, made
        host = parts.hardware.host()
        if host is not seen:  # every request asks; a sample lasts longer
            seen, made = host, made_of(host)
        return made

    def made_of(host: Host) -> FreeMemory:
        if not devices:
            free, total = {-1: host.memory_free_mb}, {-1: host.memory_total_mb}
        else:
            free = {r.index: r.vram_free_mb for r in host.readings if r.index in devices}
            total = {d.index: d.vram_total_mb for d in host.devices if d.index in devices}
        least = parts.clamps.min_free_vram_mb if devices else None
        return FreeMemory(free, floors(total, parts.settings.context_limit, least))

    return read
