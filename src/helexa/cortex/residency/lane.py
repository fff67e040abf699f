"""What is under way on one node: at most one thing, so that its memory is never given twice.

::

    idle ─Load──────────────────────────────────────────────▶ loading ─▶ idle
      └──MakeRoom─▶ clearing ─victim idle─▶ unloading ─▶ reading ─┬─▶ loading
                       ▲                                          │
                       └──── still too little: the next victim ───┘
    clearing, nobody waits any more ──▶ idle (the victims go on)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Phase = Literal["clearing", "unloading", "reading", "loading"]


@dataclass(slots=True)
class Work:
    """One node's operation.

    Args:
        model: For whom; None when a model is ended for its own sake (idle too long).
        victims: Who is still to go, in order; they take no new requests.
        leaving: The model whose unload is under way.
        since: When this phase began.
        free_mb: What the node said last, by device, after an unload.
        load_s: What the load is expected to take.
    """

    phase: Phase
    model: str | None
    since: float
    victims: tuple[str, ...] = ()
    leaving: str | None = None
    free_mb: Mapping[int, int] | None = None
    load_s: float = 0.0
