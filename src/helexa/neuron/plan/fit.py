"""The decision itself, and its refusal with the nearest thing that would fit."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import InsufficientVram
from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan.memory import mib
from helexa.neuron.plan.sizes import Sizes
from helexa.neuron.plan.wanted import MIN_CONTEXT, Place, Room, Wanted

_RETRY_AFTER_S = 30.0


def fit(facts: ModelFacts, host: Host, wanted: Wanted, room: Room | None = None) -> Plan:
    """The plan with the most cells that fit, on the fewest devices that hold them.

    Raises:
        InsufficientVram: Extras ``needed_mb, usable_mb, device`` and ``nearest`` (settings that
            would fit, or nothing).
    """
    room = room or Room()
    sizes = Sizes(facts, host, wanted, room)
    best: tuple[int, tuple[Place, ...]] | None = None
    for places in sizes.choices():
        cells = sizes.most_cells(places)
        if best is None or cells > best[0]:
            best = (cells, places)
        if cells >= sizes.target:
            break
    if best is None or best[0] < sizes.least:
        raise _refusal(sizes, best[1] if best else (sizes.host_place,))
    return sizes.plan(*best)


def _refusal(sizes: Sizes, places: tuple[Place, ...]) -> InsufficientVram:
    place, needed = sizes.shortage(sizes.least, places) or (places[0], 0)
    nearest = _nearest(sizes)
    advice = (
        f"It would fit with {', '.join(f'{k} = {v}' for k, v in nearest.items())}"
        if nearest
        else "No context of it fits: use a smaller quantisation, or free memory"
    )
    return InsufficientVram(
        f"{sizes.facts.model_id} needs {needed} MiB of {place.name}: "
        f"{mib(sizes.facts.weight_bytes)} MiB of weights in all, {sizes.least} tokens of "
        f"{sizes.kv_type} KV, {sizes.slots} slots. {place.free_mb} MiB are free there, "
        f"{place.usable_mb} MiB after the headroom. {advice}.",
        retry_after_s=_RETRY_AFTER_S,
        needed_mb=needed,
        usable_mb=place.usable_mb,
        free_mb=place.free_mb,
        device=place.index,
        nearest=nearest,
    )


def _nearest(sizes: Sizes) -> dict[str, object]:
    """The smallest step away from what was asked that fits; empty when nothing does.

    In this order: the same context in a smaller KV type; a shorter context; one slot; fewer
    layers on the devices.
    """
    wanted, facts, host, room = sizes.wanted, sizes.facts, sizes.host, sizes.room
    smaller = [k for k in ("q8_0", "q4_0") if sizes.kv_type not in (k, "q4_0")]
    for kv_type in smaller:
        if _feasible(facts, host, _with(wanted, kv_type=kv_type, ctx=sizes.least), room):
            return {"kv_type": kv_type, "ctx": sizes.least}
    for slots in dict.fromkeys((sizes.slots, 1)):
        tried = _with(wanted, ctx=sizes.context, slots=slots)
        found = _longest(Sizes(facts, host, tried, room))
        if found >= MIN_CONTEXT:
            shorter: dict[str, object] = {"ctx": min(found, sizes.context)}
            return shorter if slots == sizes.slots else {**shorter, "slots": slots}
    for layers in range(sizes.gpu_layers - 1, 0, -1):
        if _feasible(facts, host, _with(wanted, gpu_layers=layers, ctx=MIN_CONTEXT), room):
            return {"gpu_layers": layers, "ctx": MIN_CONTEXT}
    return {}


def _longest(sizes: Sizes) -> int:
    return max((sizes.most_cells(places) for places in sizes.choices()), default=0)


def _feasible(facts: ModelFacts, host: Host, wanted: Wanted, room: Room) -> bool:
    sizes = Sizes(facts, host, wanted, room)
    return any(sizes.most_cells(places) >= sizes.least for places in sizes.choices())


def _with(wanted: Wanted, **changes: Any) -> Wanted:
    return msgspec.structs.replace(wanted, **changes)
