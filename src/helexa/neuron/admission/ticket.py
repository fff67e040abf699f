"""What asks for a seat, and what it is told while it waits."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that wants to run. Each is its own: two with equal fields are two.

    Args:
        principal: Who is charged; the key's public name.
        cells: KV cells it needs to begin: prompt and one slice for each of its answers.
        anonymous: Nobody in particular: served from what is left over.
        max_wait_s: The caller's own deadline; only ever shortens the configured wait.
        seats: Slots of the engine it takes at once: one for each answer (``n``).
        priority: Of its principal; the higher is seated first, whoever's turn it is.
        begun: Of an answer that has begun: it takes its turn, however long that is, and is not
            refused for want of room. There are no more of these than answers that were seated.
        arrived: When it came (the owner's clock).
        passed: How often another was seated because this one's cells or seats were not free.
    """

    principal: str
    cells: int
    anonymous: bool = False
    max_wait_s: float | None = None
    seats: int = 1
    priority: int = 0
    begun: bool = False
    arrived: float = 0.0
    passed: int = 0


class Standing(msgspec.Struct, frozen=True):
    """Where a waiting request stands: ``place`` 1 is next; ``eta_s`` None is unknown."""

    place: int
    eta_s: float | None = None


@dataclass(slots=True)
class Refusals:
    """How many were refused, by reason."""

    queue_full: int = 0
    timeout: int = 0
    principal: int = 0
    too_long: int = 0
