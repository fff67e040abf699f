"""A thread of the ledger, with the queue in front of it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from helexa.cortex.handover import Handover
from helexa.cortex.ledger.database import Database

Work: TypeAlias = Callable[[Database], Any]
Done: TypeAlias = Callable[[Any], object]
"""Gets a job's result, or the exception it raised."""

CLOSE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Job:
    """Something to be done in a thread, and who is told of its outcome."""

    work: Work
    done: Done


class Worker:
    """A thread with a connection, and a queue in front of it.

    Args:
        perform: Does a group of jobs; one outcome each.

    Attributes:
        handover: By which the loop lets it have the interpreter.
        since: When it began what it does (monotonic); None while it waits for something to do.
    """

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        perform: Callable[[Sequence[Job]], list[Any]],
    ) -> None:
        self._loop = loop
        self.handover = Handover()
        self.since: float | None = None
        self._perform = perform
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._under_way = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, job: Job) -> None:
        if not self._under_way:  # it sleeps, and cannot say so itself without the interpreter
            self.handover.begins()
        self._under_way += 1
        self._jobs.put(job)

    async def close(self) -> None:
        """Finish what waits and end the thread."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join, CLOSE_S)

    def _run(self) -> None:
        over = False
        while not over:
            first = self._jobs.get()
            group = [] if first is None else [first]
            over = first is None
            with contextlib.suppress(queue.Empty):
                while True:
                    job = self._jobs.get_nowait()
                    if job is None:
                        over = True
                    else:
                        group.append(job)
            if group:
                self.handover.begins()
                self.since = time.monotonic()
                outcomes = self._perform(group)
                self.since = None
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is waiting
                    self._loop.call_soon_threadsafe(self._deliver, group, outcomes)
                self.handover.ends()

    def _deliver(self, group: Sequence[Job], outcomes: Sequence[Any]) -> None:
        self._under_way -= len(group)
        for job, outcome in zip(group, outcomes, strict=True):
            try:
                job.done(outcome)
            except Exception as error:  # noqa: BLE001  # a bug; the others want to know theirs
                what = {"message": "ledger: an outcome could not be taken in", "exception": error}
                self._loop.call_exception_handler(what)
