"""What a plan starts from: the operator's wishes and how memory is treated."""

from __future__ import annotations

from typing import Any

import msgspec

HOST = -1
"""The key of host memory in ``Plan.memory_mb``."""
MIN_CONTEXT = 512
SLOTS_CPU, SLOTS_GPU = 4, 8


class Wanted(msgspec.Struct, frozen=True):
    """What the operator asks for; None is decided here.

    Args:
        slots: Requests that run at once.
        ctx: Tokens of one slot; asked for, it is the least that is accepted.
        gpu_layers: Layers on the devices; None is all of them.
        kv_type: ``f16`` (default), ``q8_0`` or ``q4_0``.
        threads: CPU threads of the engine.
        batch: Prefill chunk in tokens.
        devices: Indices that may be used; None is all.
        max_devices: Most devices to spread over; None is as many as needed.
        unified: One pool of cells shared by the slots.
        cells: Most cells of that pool; None is a full context for every slot if it fits.
        ahead_cells: Cells per slot that the engine has beyond those that are granted.
        cache_ram_mb: Host memory for the prompt cache.
        prefill_tok_s: Measured or estimated; bounds the default context with ``target_secs``.
    """

    slots: int | None = None
    ctx: int | None = None
    gpu_layers: int | None = None
    kv_type: str | None = None
    threads: int | None = None
    batch: int = 512
    devices: tuple[int, ...] | None = None
    max_devices: int | None = None
    unified: bool = True
    cells: int | None = None
    ahead_cells: int = 0
    cache_ram_mb: int = 0
    prefill_tok_s: float | None = None
    embeddings: bool = False
    rerank: bool = False
    extra: dict[str, Any] = {}


class Room(msgspec.Struct, frozen=True):
    """How memory is treated.

    Args:
        headroom_mb: Left free on every device; at most a tenth of it (``headroom``).
        target_secs: A prompt that fills the context is prefilled within this.
        correction: Measured ÷ predicted memory of an earlier load of the same model.
    """

    headroom_mb: int = 2048
    target_secs: float = 120.0
    correction: float = 1.0


class Place(msgspec.Struct, frozen=True):
    """One memory: ``index`` is a device or ``HOST``; ``usable_mb`` is free less headroom."""

    index: int
    usable_mb: int
    free_mb: int

    @property
    def name(self) -> str:
        """What a message calls it."""
        return "host memory" if self.index == HOST else f"device {self.index}"


def room_of(total_mb: int, free_mb: int, headroom_mb: int) -> int:
    """MiB that may be planned with: a small device gives up a tenth, not two gigabytes."""
    return max(0, free_mb - min(headroom_mb, total_mb // 10))
