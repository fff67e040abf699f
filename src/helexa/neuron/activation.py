"""Boot-time models: loaded in the background, one after the other, retried without end.

A model that cannot be loaded (no network yet, no memory yet) waits for its next attempt while
the others go on; the pause doubles from the first to the longest. What only a person can change
(no such quant, no access) is said once and not tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.core.errors import HelexaError
from helexa.core.fleet import Activation, FailedActivation, LoadRequest

Load = Callable[[LoadRequest], Awaitable[object]]


@dataclass(slots=True)
class _Waiting:
    spec: LoadRequest
    due: float
    failures: int = 0
    error: str = ""


class Activator:
    """Works through ``models`` and keeps score for ``/health``.

    Args:
        load: Loads one model or raises why not.
        pauses: First and longest pause between attempts at one model (seconds).
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        models: list[LoadRequest],
        load: Load,
        *,
        pauses: tuple[float, float],
        clock: Callable[[], float],
    ) -> None:
        self._load = load
        self._pauses = pauses
        self._clock = clock
        self._waiting = [_Waiting(spec, clock()) for spec in models]
        self._completed: list[str] = []
        self._given_up: dict[str, str] = {}
        self._in_progress: str | None = None

    def snapshot(self) -> Activation:
        """The ``activation`` member of ``/health``."""
        retried = {w.spec.model_id: w.error for w in self._waiting if w.failures}
        failed = self._given_up | retried
        pending = [w.spec.model_id for w in self._waiting if not w.failures]
        warming = pending or (self._in_progress is not None and self._in_progress not in failed)
        return Activation(
            state="pre_warming" if warming else "ready",
            pending=[model for model in pending if model != self._in_progress],
            in_progress=self._in_progress,
            completed=list(self._completed),
            failed=[FailedActivation(model, error) for model, error in failed.items()],
        )

    async def run(self) -> None:
        """Return when every model has been loaded once, or never can be."""
        while self._waiting:
            next_up = min(self._waiting, key=lambda waiting: waiting.due)
            await asyncio.sleep(max(0.0, next_up.due - self._clock()))
            await self._attempt(next_up)

    async def _attempt(self, waiting: _Waiting) -> None:
        self._in_progress = waiting.spec.model_id
        try:
            await self._load(waiting.spec)
        except HelexaError as error:
            first, longest = self._pauses
            waiting.error = error.message
            waiting.due = self._clock() + min(longest, first * 2.0 ** min(waiting.failures, 30))
            waiting.failures += 1
            if error.lasting:
                self._waiting.remove(waiting)
                self._given_up[waiting.spec.model_id] = error.message
        else:
            self._waiting.remove(waiting)
            self._completed.append(waiting.spec.model_id)
        finally:
            self._in_progress = None
