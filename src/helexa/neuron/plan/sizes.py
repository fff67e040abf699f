"""One planning: what is wanted, in cells, and what a number of cells needs where.

What is spread over devices goes in proportion to what is free on each; the tightest decides.
"""

from __future__ import annotations

from helexa.neuron.engines.base import Host, Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.plan.memory import MIB, kv_bytes, mib, predict_memory
from helexa.neuron.plan.wanted import (
    HOST,
    MIN_CONTEXT,
    SLOTS_CPU,
    SLOTS_GPU,
    Place,
    Room,
    Wanted,
    room_of,
)

DEVICE_BASE_MB = 500
"""A CUDA context and the backend's scratch memory, per device."""
_KV_SHARE_CPU = 0.5


class Sizes:
    """One planning: what is wanted, in cells, and what a number of cells needs where."""

    def __init__(self, facts: ModelFacts, host: Host, wanted: Wanted, room: Room) -> None:
        self.facts, self.host, self.wanted, self.room = facts, host, wanted, room
        self.host_place = Place(
            HOST,
            room_of(host.memory_total_mb, host.memory_free_mb, room.headroom_mb),
            host.memory_free_mb,
        )
        self.gpus = _gpus(host, wanted, room)
        self.layers = facts.layers + 1  # the output layer counts as one
        on_device = self.layers if wanted.gpu_layers is None else wanted.gpu_layers
        self.gpu_layers = max(0, min(self.layers, on_device)) if self.gpus else 0
        self.slots = wanted.slots or (SLOTS_GPU if self.gpu_layers else SLOTS_CPU)
        self.kv_type = wanted.kv_type or "f16"
        self.context = min(wanted.ctx or _default_context(facts, wanted, room), native(facts))
        self.least = self.context if wanted.ctx else min(self.context, MIN_CONTEXT)
        self.target = self.context * (self.slots if wanted.unified else 1)
        if wanted.cells is not None and wanted.unified:
            self.target = max(self.least, min(self.target, wanted.cells))

    def choices(self) -> list[tuple[Place, ...]]:
        """Sets of places to try: one device, two, …, each set the freest; or the host."""
        if not self.gpu_layers:
            return [(self.host_place,)]
        most = min(len(self.gpus), self.wanted.max_devices or len(self.gpus))
        return [self.gpus[:count] for count in range(1, most + 1)]

    def need(self, cells: int, places: tuple[Place, ...]) -> dict[int, int]:
        """MiB per place for ``cells`` (of the pool, or of each slot when not unified)."""
        ahead = self.wanted.ahead_cells * self.slots
        estimate = predict_memory(
            self.facts,
            context=cells + ahead,
            slots=self.slots,
            kv_type=self.kv_type,
            unified=self.wanted.unified,
            batch=self.wanted.batch,
        )
        cache, correction = self.wanted.cache_ram_mb, self.room.correction
        if places[0].index == HOST:
            return {HOST: mib_of(estimate.total_mb * correction) + cache}
        embedding = self.facts.embedding_bytes / MIB
        # A tied embedding is held twice: for lookup by the host, as output layer by a device.
        weights = estimate.weights_mb - (0 if self.facts.tied else embedding)
        part = self.gpu_layers / self.layers
        moved = (weights + estimate.kv_mb) * part
        activations = estimate.compute_mb - estimate.process_mb
        shares = shares_of(places)
        # Layers are whole: a device may get one more than its share.
        whole_layer = moved / max(1, self.gpu_layers) if len(places) > 1 else 0.0
        need = {
            place.index: mib_of((moved * share + whole_layer + activations) * correction)
            + DEVICE_BASE_MB
            for place, share in zip(places, shares, strict=True)
        }
        rest = (weights + estimate.kv_mb) * (1 - part) + embedding + estimate.process_mb
        need[HOST] = mib_of(rest * correction) + cache
        return need

    def shortage(self, cells: int, places: tuple[Place, ...]) -> tuple[Place, int] | None:
        """The place that is short by most and what it needs; None when all is well."""
        need = self.need(cells, places)
        known = {place.index: place for place in (*places, self.host_place)}
        short = [
            (amount - known[index].usable_mb, index, amount)
            for index, amount in need.items()
            if amount > known[index].usable_mb
        ]
        if not short:
            return None
        _, index, amount = max(short)
        return known[index], amount

    def most_cells(self, places: tuple[Place, ...]) -> int:
        """The most cells up to the target that fit, in steps of 256; 0 when none do."""
        if self._fits(self.target, places):
            return self.target
        low, high = 0, self.target // 256
        while low < high:
            middle = (low + high + 1) // 2
            if self._fits(middle * 256, places):
                low = middle
            else:
                high = middle - 1
        return low * 256

    def _fits(self, cells: int, places: tuple[Place, ...]) -> bool:
        # A CPU host has other things to do: half of what the weights leave is the most for KV,
        # unless the operator asked for the context and thereby for its price.
        if not self.gpu_layers and self.wanted.ctx is None and cells > self.least:
            left = self.host_place.usable_mb - mib(self.facts.weight_bytes)
            keeps = kv_bytes(
                self.facts,
                context=cells,
                slots=self.slots,
                kv_type=self.kv_type,
                unified=self.wanted.unified,
                batch=self.wanted.batch,
            )
            if mib(keeps) > left * _KV_SHARE_CPU:
                return False
        return self.shortage(cells, places) is None

    def plan(self, cells: int, places: tuple[Place, ...]) -> Plan:
        wanted, on_gpu = self.wanted, bool(self.gpu_layers)
        shares = tuple(round(share, 4) for share in shares_of(places))
        return Plan(
            context=min(self.context, cells),
            slots=self.slots,
            kv_cells=cells if wanted.unified else cells * self.slots,
            unified=wanted.unified,
            kv_type=self.kv_type,
            ahead_cells=wanted.ahead_cells,
            devices=tuple(place.index for place in places) if on_gpu else (),
            tensor_split=shares if on_gpu and len(places) > 1 else (),
            gpu_layers=self.gpu_layers,
            threads=wanted.threads or max(1, self.host.cores),
            batch=wanted.batch,
            memory_mb=self.need(cells, places),
            cache_ram_mb=wanted.cache_ram_mb,
            embeddings=wanted.embeddings,
            rerank=wanted.rerank,
            extra=wanted.extra,
        )


def shares_of(places: tuple[Place, ...]) -> list[float]:
    """Each place's part of what is spread, by what is usable there; equal if nothing is."""
    total = sum(place.usable_mb for place in places)
    return [place.usable_mb / total if total else 1 / len(places) for place in places]


def native(facts: ModelFacts) -> int:
    """The model's own maximum; a header without one is taken for 4,096."""
    return facts.context_native or 4096


def mib_of(amount: float) -> int:
    """A figure in MiB, rounded up."""
    return int(-(-amount // 1))


def _default_context(facts: ModelFacts, wanted: Wanted, room: Room) -> int:
    """The model's maximum, or what can be prefilled in the target time if that is less."""
    if wanted.prefill_tok_s is None:
        return native(facts)
    reachable = int(wanted.prefill_tok_s * room.target_secs) // 256 * 256
    return min(native(facts), max(MIN_CONTEXT, reachable))


def _gpus(host: Host, wanted: Wanted, room: Room) -> tuple[Place, ...]:
    """The devices that may be used, the freest first."""
    free = {reading.index: reading.vram_free_mb for reading in host.readings}
    allowed = [
        Place(
            d.index,
            room_of(d.vram_total_mb, free.get(d.index, 0), room.headroom_mb),
            free.get(d.index, 0),
        )
        for d in host.devices
        if d.kind != "cpu" and (wanted.devices is None or d.index in wanted.devices)
    ]
    return tuple(sorted(allowed, key=lambda place: (-place.usable_mb, place.index)))
