"""Which of an engine's slots are taken, also by answers that ended here before they did there.

::

    accepted ──▶ taken ──▶ last word of the engine ──▶ free
                   └─ cut, cancelled: connection dropped ─▶ leaving ─▶ the engine says so ─▶ free

An engine notices a dropped connection at its next write and lets go of the slot a step or two
later. Until then its KV cells are not free, whatever the node thinks: given on at once they would
be granted twice, and an engine that runs out of cells fails everyone. So what such an answer held
is given back when the engine reports fewer running slots than that.

llama.cpp also looks at its connections after a second in which nobody was answered, and a report is
an answer: asked all the time, it begins another chunk of a prompt that nobody waits for. So it is
left alone for that second, once for each who leaves, where a chunk takes longer than that anyway.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from helexa.core.errors import HelexaError, UpstreamConnectionError

FIRST_PAUSE_S, MOST_PAUSE_S = 0.002, 0.1
QUIET_AFTER_S, QUIET_S = 1.2, 1.1
MOST_LEAVING_S = 20.0
"""An engine that has not let go by then is the watchdog's business, not that of who waits."""

Release = Callable[[bool], None]
"""Gives back what an answer held, if it still holds it; told whether the engine has spoken since.
Where it has not, it is called again when it has."""


@dataclass(slots=True, eq=False)
class _Leaving:
    """An answer the engine may still be busy with."""

    slots: int
    since: float
    release: Release


@dataclass(slots=True)
class Slots:
    """The slots of one loaded model, as the node knows them.

    Args:
        running: Asks the engine how many of its slots are busy.
        clock: Monotonic seconds.
        most_s: How long an answer may be leaving.
        quiet_after_s: When the engine is left alone for a second; ``inf`` is never.

    Attributes:
        releases: Times that somebody who was leaving has left.
    """

    running: Callable[[], Awaitable[int]]
    clock: Callable[[], float]
    most_s: float = MOST_LEAVING_S
    quiet_after_s: float = QUIET_AFTER_S
    releases: int = 0
    _taken: dict[object, int] = field(default_factory=dict)
    _leaving: list[_Leaving] = field(default_factory=list)
    _overdue: list[_Leaving] = field(default_factory=list)  # released, and not by the engine
    _bell: asyncio.Event = field(default_factory=asyncio.Event)
    _asking: asyncio.Task[None] | None = None
    _hushed: float = float("-inf")

    @property
    def leaving(self) -> int:
        """Slots whose answers have ended here, and perhaps not yet there."""
        return sum(entry.slots for entry in self._leaving)

    def take(self, request: object, slots: int) -> None:
        """The engine has accepted ``request`` and runs it in as many slots."""
        self._taken[request] = slots

    def free(self, request: object) -> None:
        """The engine's own last word about ``request``; idempotent."""
        self._taken.pop(request, None)

    def leave(self, request: object, slots: int, release: Release) -> None:
        """We went first: ``release`` is called when the engine has let go, or says nothing."""
        self.free(request)
        self._leaving.append(_Leaving(slots, self.clock(), release))
        if self._asking is None or self._asking.done():
            self._asking = asyncio.get_running_loop().create_task(self._ask(), name="slots")

    async def released(self, since: int) -> None:
        """Return when somebody has left since ``releases`` was ``since``, or nobody is leaving.

        The number is read when it is decided to wait, which is before the waiting begins: who
        left in between would be waited for in vain.
        """
        while self.releases == since and self._leaving:
            await self._bell.wait()

    def forget(self) -> None:
        """The engine is gone, and with it everything that ran there."""
        self._taken.clear()
        self._spoken()
        self._release(len(self._leaving), spoken=True)

    async def _ask(self) -> None:
        """Ask until nobody is leaving any more."""
        pause = FIRST_PAUSE_S
        while self._leaving or self._overdue:
            asked, known = len(self._leaving), sum(self._taken.values())
            running = await self._busy()
            # What ended or began while the answer was on its way is counted as it was before.
            asked = min(asked, len(self._leaving))
            others = min(known, sum(self._taken.values()))
            free = 0
            if running is not None:
                self._spoken()
                free = releasable([e.slots for e in self._leaving[:asked]], running - others)
            late = self.clock() - self.most_s
            while free < asked and self._leaving[free].since <= late:
                free += 1
            self._release(free, spoken=running is not None)
            await asyncio.sleep(self._pause_s(pause))
            pause = min(MOST_PAUSE_S, 2 * pause) if not free else FIRST_PAUSE_S

    def _pause_s(self, usual: float) -> float:
        """How long to wait before the engine is asked again."""
        if not self._leaving or self._taken:  # answers to others wake it all the same
            return usual
        now, last = self.clock(), self._leaving[-1].since
        waited, hushed = now - last, self._hushed >= last
        pause = pause_s(waited, usual, hushed=hushed, after_s=self.quiet_after_s)
        if pause == QUIET_S:
            self._hushed = now
        return pause

    async def _busy(self) -> int | None:
        """None where nothing was learned."""
        try:
            return await self.running()
        except UpstreamConnectionError:
            return 0  # nobody is there
        except HelexaError:
            return None

    def _spoken(self) -> None:
        overdue, self._overdue = self._overdue, []
        for entry in overdue:
            entry.release(True)

    def _release(self, count: int, *, spoken: bool) -> None:
        gone, self._leaving[:count] = self._leaving[:count], []
        for entry in gone:
            entry.release(spoken)
        if not spoken:
            self._overdue += gone
        if gone:
            self.releases += 1
            self._bell.set()
            self._bell.clear()


def pause_s(waited: float, usual: float, *, hushed: bool, after_s: float = QUIET_AFTER_S) -> float:
    """Seconds until the engine is asked again; pure.

    Args:
        waited: Since the last of those who are leaving left.
        hushed: It was left alone since then.
        after_s: Least ``waited`` for that.
    """
    return QUIET_S if waited >= after_s and not hushed else usual


def releasable(leaving: list[int], still_running: int) -> int:
    """How many of ``leaving`` (slots each, oldest first) are surely free; pure.

    Args:
        still_running: Busy slots that belong to nobody else we know of.
    """
    rest = sum(leaving)
    for count, slots in enumerate(leaving):
        rest -= slots
        if rest < still_running:
            return count
    return len(leaving)
