"""The one owner of kept responses: a thread that does one thing after the other.

::

    loop ── keep ──▶ │ queue │ ──▶ thread ──▶ shelf        nobody waits
    loop ── ask ───▶ │ queue │ ──▶ thread ──▶ shelf ──▶ future

What is kept before something is asked is found by it: both go through one queue. On a loop that
never rests the thread needs it to stand still now and then: while somebody asks, and while more
waits to be kept than should.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from helexa.core.errors import ServiceUnavailable
from helexa.core.logging import Logger
from helexa.core.principal import Principal
from helexa.core.recurring import Recurring
from helexa.cortex.handover import Handover
from helexa.cortex.responses.base import Kept, Shelf

T = TypeVar("T")

_MOST_WAITING = 1000
_MANY_WAITING = 50
_LOOK_S = 0.05
_SWEEP_S = 600.0
_CLOSE_S = 5.0
ANSWER_S = 10.0
"""Whoever asks for what is kept is told to come again after so long."""
SILENT_S = 30.0
"""A database that has not answered for so long hangs, and nothing else would end the wait."""

Job = Callable[[], None]


class Keeper:
    """Keeps responses of keys on one shelf and those of the anonymous on another.

    Args:
        keys: Opens the shelf of the keys; called in the thread that then owns it.
        anonymous: Likewise; in memory.
        log: Told of what could not be kept.
        count: Called for each such response, in any thread.

    Attributes:
        lost: Responses that could not be kept.
    """

    def __init__(
        self,
        keys: Callable[[], Shelf],
        anonymous: Callable[[], Shelf],
        log: Logger,
        count: Callable[[], None],
    ) -> None:
        self.lost = 0
        self._open = (keys, anonymous)
        self._log = log
        self._count = count
        self._jobs: queue.Queue[Job | None] = queue.Queue(_MOST_WAITING)
        self._handover = Handover()
        self._catching_up: asyncio.Task[None] | None = None
        self._keys: Shelf | None = None
        self._anonymous: Shelf | None = None
        self._thread: threading.Thread | None = None
        self._since: float | None = None  # when the thread began what it does
        self._trouble = Recurring(log, "responses are not kept", "responses are kept again")

    def keep(self, principal: Principal, make: Callable[[], Kept]) -> None:
        """Keep what ``make`` gives, in a while; never waits. A response may be lost where the disk
        does not keep up or fails; that is logged and counted."""

        def job() -> None:
            try:
                self._shelf(principal).put(principal.key_id, make())
                self._trouble.succeeded()
            except OSError as error:
                self._miss(str(error))
            except Exception as error:  # noqa: BLE001 - a bug; those who ask wait for this thread
                self._miss(f"{type(error).__name__}: {error}")

        try:
            self._put(job)
        except queue.Full:
            self._miss("the store does not keep up")
        behind = self._jobs.qsize() >= _MANY_WAITING
        if behind:
            self._look_after()
        if behind and (self._catching_up is None or self._catching_up.done()):
            self._catching_up = asyncio.ensure_future(self._catch_up())

    async def _catch_up(self) -> None:
        with self._handover.awaited():
            while not self._jobs.empty():  # noqa: ASYNC110 - its thread has other things to do
                await asyncio.sleep(_LOOK_S)

    async def ask(self, principal: Principal, work: Callable[[Shelf, str], T]) -> T:
        """The result of ``work`` on the principal's shelf, given the owner's name.

        Raises:
            ServiceUnavailable: The shelf cannot be reached, or there is a crowd before it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                found = work(self._shelf(principal), principal.key_id)
            except Exception as error:  # noqa: BLE001 - raised where it is awaited
                loop.call_soon_threadsafe(_fail, future, error)
            else:
                loop.call_soon_threadsafe(_give, future, found)

        try:
            self._put(job)
            with self._handover.awaited():
                async with asyncio.timeout(ANSWER_S):
                    return await future
        except (queue.Full, OSError) as error:  # a timeout is one, too
            self._look_after()
            why = str(error) or "it does not keep up"
            self._log.warning("kept responses cannot be read", reason=why)
            raise ServiceUnavailable(
                "Kept responses cannot be read at the moment.", retry_after_s=5
            ) from error

    def _look_after(self) -> None:
        since = self._since
        if since is not None and time.monotonic() - since > SILENT_S:
            for shelf in (self._keys, self._anonymous):
                if shelf is not None:
                    shelf.give_up()

    async def aclose(self) -> None:
        """Write what is waiting, within bounds, and let go."""
        if self._catching_up is not None:
            self._catching_up.cancel()  # the loop rests by now
        if self._thread is None:
            return
        try:
            self._jobs.put(None, timeout=1)
        except queue.Full:
            return  # the thread is a daemon: it ends with us
        await asyncio.to_thread(self._thread.join, _CLOSE_S)

    def _put(self, job: Job) -> None:
        """Hand a job to the thread, which begins with the first one."""
        self._handover.begins()
        self._jobs.put_nowait(job)
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="responses", daemon=True)
            self._thread.start()

    # ── in the thread ───────────────────────────────────────────────────────────────────────

    def _work(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=_SWEEP_S)
            except queue.Empty:
                job = self._sweep
            if job is None:
                break
            self._since = time.monotonic()
            job()
            self._since = None
            if self._jobs.empty():
                self._handover.ends()
        for shelf in (self._keys, self._anonymous):
            if shelf is not None:
                shelf.close()

    def _shelf(self, principal: Principal) -> Shelf:
        """The shelf; one that could not be opened is tried again with each job."""
        if principal.anonymous:
            if self._anonymous is None:
                self._anonymous = self._open[1]()
            return self._anonymous
        if self._keys is None:
            self._keys = self._open[0]()
        return self._keys

    def _sweep(self) -> None:
        for shelf in (self._keys, self._anonymous):
            if shelf is not None:
                try:
                    shelf.sweep()
                except Exception as error:  # noqa: BLE001 - as in ``keep``
                    self._log.warning("old responses cannot be removed", reason=str(error))

    def _miss(self, why: str) -> None:
        self.lost += 1
        self._count()
        self._trouble.failed(why)


def _give(future: asyncio.Future[T], found: T) -> None:
    if not future.done():
        future.set_result(found)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
