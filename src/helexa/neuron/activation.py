"""Boot-time models: loaded in the background, one after the other, retried without end.

A model that cannot be loaded (no network yet, no memory yet) waits for its next attempt while
the others go on; the pause doubles from the first to the longest. One whose files have to be
fetched lets the next one begin after a moment. What only a person can change (no such quant, no
access) is said once and not tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.core.errors import HelexaError
from helexa.core.fleet import Activation, FailedActivation, LoadRequest

Load = Callable[[LoadRequest], Awaitable[object]]

HEAD_START_S = 5.0
"""So long the next model waits for one that is under way."""


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
        head_start_s: So long the next model waits for one that is under way.
    """

    def __init__(
        self,
        models: list[LoadRequest],
        load: Load,
        *,
        pauses: tuple[float, float],
        clock: Callable[[], float],
        head_start_s: float = HEAD_START_S,
    ) -> None:
        self._load = load
        self._head_start_s = head_start_s
        self._turn = asyncio.Lock()
        self._pauses = pauses
        self._clock = clock
        self._waiting = [_Waiting(spec, clock()) for spec in models]
        self._completed: list[str] = []
        self._given_up: dict[str, str] = {}
        self._running: list[str] = []

    def snapshot(self) -> Activation:
        """The ``activation`` member of ``/health``."""
        retried = {w.spec.model_id: w.error for w in self._waiting if w.failures}
        failed = self._given_up | retried
        pending = [w.spec.model_id for w in self._waiting if not w.failures]
        in_progress = next(iter(self._running), None)
        warming = pending or (in_progress is not None and in_progress not in failed)
        return Activation(
            state="pre_warming" if warming else "ready",
            pending=[model for model in pending if model != in_progress],
            in_progress=in_progress,
            completed=list(self._completed),
            failed=[FailedActivation(model, error) for model, error in failed.items()],
        )

    async def run(self) -> None:
        """Return when every model has been loaded once, or never can be."""
        async with asyncio.TaskGroup() as group:
            for waiting in list(self._waiting):
                group.create_task(self._bring(waiting))

    async def _bring(self, waiting: _Waiting) -> None:
        """Try one model until it is loaded or given up."""
        while waiting in self._waiting:
            await asyncio.sleep(max(0.0, waiting.due - self._clock()))
            async with asyncio.TaskGroup() as group, self._turn:
                attempt = group.create_task(self._attempt(waiting))
                await asyncio.wait([attempt], timeout=self._head_start_s)

    async def _attempt(self, waiting: _Waiting) -> None:
        self._running.append(waiting.spec.model_id)
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
            self._running.remove(waiting.spec.model_id)
