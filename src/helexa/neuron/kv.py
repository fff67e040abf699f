"""Who holds how many KV cells of one model. One cell is one token of one request.

::

    0            used                                total
    ├──── held by requests ────┼──────── free ─────────┤
         prompt + one slice       slices, while it runs

The engine must never meet its own limit: with a shared pool, running out there fails every
running request, here it ends one answer. Counting only; the waiting is admission's.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class CellLedger:
    """Cells of one model.

    Args:
        total: Cells of the pool.
        per_request: Most cells one request may hold: the context of a slot.

    Invariant: ``used`` is the sum of what is held, and grants never take it above ``total``.
    (``resize`` may leave it above, until enough has been released.)
    """

    total: int
    per_request: int
    used: int = 0
    _held: dict[Hashable, int] = field(default_factory=dict)

    @property
    def free(self) -> int:
        """Cells nobody holds."""
        return max(0, self.total - self.used)

    def held(self, request: Hashable) -> int:
        """Cells ``request`` holds."""
        return self._held.get(request, 0)

    def ever_fits(self, cells: int) -> bool:
        """Whether a request of ``cells`` cells could run if it were alone."""
        return cells <= min(self.total, self.per_request)

    def fits(self, cells: int, spare: int = 0) -> bool:
        """Whether ``cells`` can be granted now, leaving ``spare`` for those that run."""
        return cells <= self.per_request and cells + spare <= self.free

    def grant(self, request: Hashable, cells: int, spare: int = 0) -> bool:
        """Give ``request`` its first cells and leave ``spare``; False, and nothing changes, when
        there are too few."""
        free = max(0, self.total - self.used)
        if cells > self.per_request or cells + spare > free or request in self._held:
            return False
        self._held[request] = cells
        self.used += cells
        return True

    def extend(self, request: Hashable, cells: int) -> bool:
        """Give ``request`` ``cells`` more; False when none are left or its context is full."""
        held = self._held.get(request)
        if held is None or cells > self.free or held + cells > self.per_request:
            return False
        self._held[request] = held + cells
        self.used += cells
        return True

    def shrink(self, request: Hashable, cells: int) -> bool:
        """Take back what ``request`` holds beyond ``cells``; False when it holds no more."""
        held = self._held.get(request, 0)
        if held <= cells:
            return False
        self._held[request] = cells
        self.used -= held - cells
        return True

    def release(self, request: Hashable) -> int:
        """Take back everything ``request`` holds; idempotent."""
        cells = self._held.pop(request, 0)
        self.used -= cells
        return cells

    def resize(self, total: int, per_request: int) -> None:
        """The engine came back with another pool; nothing that is held is taken away."""
        self.total, self.per_request = total, per_request

    def check_integrity(self) -> None:
        """Assert the invariant; for tests and for idle moments."""
        if self.used != sum(self._held.values()) or any(n < 0 for n in self._held.values()):
            raise AssertionError(f"cells leaked: {self.used} used, {self._held} held")
