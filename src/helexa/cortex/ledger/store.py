"""The ledger's threads: one writes, in groups, two read, one listens; the loop never waits.

::

    loop ──job──▶ ┌ writer: all that waits ─▶ one transaction ─▶ one sync ┐ ──outcomes──▶ loop
                  ├ reader: short queries, on a connection of its own     ┤
                  ├ reports: long ones, on another                        ┤
                  └ ear: what other gateways of a shared ledger say       ┘

What a job has written is durable when its outcome comes. If one job of a group fails, the group
is undone and each job is tried alone, so that nobody pays for another's mistake.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from helexa.core.errors import ServiceUnavailable
from helexa.core.settings import SettingsError
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.database import Database, LedgerUnavailable, connect
from helexa.cortex.ledger.reading import Reading
from helexa.cortex.ledger.schema import Step, migrate
from helexa.cortex.ledger.tables import STEPS
from helexa.cortex.ledger.worker import CLOSE_S, Done, Job, Work, Worker

T = TypeVar("T")

SILENT_S: Final = 30.0
"""Longer than anything that we write takes, and than anybody may keep us waiting with a lock."""

_LISTEN_S: Final = 0.25
_DEAF_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Undone:
    """A transaction that failed; ``began``: it was one of its jobs, or the end."""

    error: Exception
    began: bool


class Store:
    """An open ledger.

    Args:
        url: See ``database``.
        loop: Where outcomes are delivered.
        steps: The schema.
        alone: Nobody else uses the ledger, whatever it says.

    Attributes:
        mended: Told, on the loop, of what had to be brought back; see ``Database.mend``.

    Raises:
        SettingsError: The url is none of ours, or a newer helexa has used the ledger.
        LedgerUnavailable: It cannot be opened, or gateways of an older helexa serve from it.
    """

    def __init__(
        self,
        url: str,
        loop: asyncio.AbstractEventLoop,
        steps: Sequence[Step] = STEPS,
        *,
        alone: bool = False,
    ) -> None:
        self._url = url
        self._db = connect(url)
        try:
            migrate(self._db, steps, None if alone else lives.none_may_serve)
        except BaseException:
            self._db.close()
            raise
        self._loop = loop
        self._writer = Worker("ledger writer", loop, self._write)
        self._reader = Reading("ledger reader", url, loop)
        self._reporter = Reading("ledger reports", url, loop)
        self._closed = threading.Event()
        self._ear: threading.Thread | None = None
        self._hearing: Database | None = None
        self.mended: Callable[[str], object] = _nobody

    @property
    def shared(self) -> bool:
        """Whether other gateways may use the same ledger."""
        return self._db.shared

    def at_once(self, work: Callable[[Database], T]) -> T:
        """Run ``work`` here and now; only before anything else is asked for.

        Raises:
            LedgerUnavailable: The ledger cannot be written.
        """
        with self._db.transaction():
            return work(self._db)

    def submit(self, work: Work, done: Done) -> None:
        """Run ``work`` in the writer's next transaction.

        Args:
            work: Gets the connection, inside a transaction that may be shared with other jobs;
                may run a second time after it was undone, so it changes nothing but the ledger.
            done: Called on the loop once it is durable, with the result or the exception.
        """
        self._writer.put(Job(work, done))

    def awaited(self) -> AbstractContextManager[None]:
        """Inside, a request waits for what was submitted: the writer goes on with it though the
        loop never rests. It takes of the loop's time, so it is not for what may take a while."""
        return self._writer.handover.awaited()

    async def write(self, work: Callable[[Database], T]) -> T:
        """As ``submit``; waits, and raises what ``work`` raises.

        Raises:
            ServiceUnavailable: The ledger cannot be written just now.
        """
        return await self._result(self._writer, work)

    async def read(self, work: Callable[[Database], T]) -> T:
        """Run short queries on a connection of their own, one after the other.

        Raises:
            ServiceUnavailable: The ledger cannot be read just now.
        """
        return await self._result(self._reader.worker, work)

    async def report(self, work: Callable[[Database], T]) -> T:
        """As ``read``, for what may take minutes: nobody else waits for it."""
        return await self._result(self._reporter.worker, work)

    def listen(self, heard: Callable[[str], object]) -> None:
        """Tell ``heard``, on the loop, what gateways of this ledger say, on one more connection.

        A connection that breaks is made anew; what is said meanwhile is missed.
        """
        self._ear = threading.Thread(
            target=self._hear, args=(heard,), name="ledger ear", daemon=True
        )
        self._ear.start()

    def _hear(self, heard: Callable[[str], object]) -> None:
        while not self._closed.is_set():
            try:
                db = self._hearing = self._hearing or connect(self._url)
                for text in db.notified(_LISTEN_S):
                    self._loop.call_soon_threadsafe(heard, text)
            except (LedgerUnavailable, SettingsError):
                self._closed.wait(_DEAF_S)
            except RuntimeError:
                break  # the loop is closed
        if self._hearing is not None:
            self._hearing.close()

    @property
    def silent_s(self) -> float:
        """How long the writer has been at what it does; 0 while it has nothing to do."""
        since = self._writer.since
        return 0.0 if since is None else time.monotonic() - since

    def look_after(self) -> None:
        """To be called now and then: give up a server that has said nothing to the writer for too
        long, since one that hangs keeps its connections open and nothing would end the wait; and
        have a file brought back that was removed under us."""
        if self._db.moved():
            self.submit(_nobody, _nobody)
        if self.silent_s > SILENT_S:
            self._give_up()

    def _give_up(self) -> None:
        for silent in (self._db, self._reader, self._reporter, self._hearing):
            if silent is not None:
                silent.give_up()

    async def close(self) -> None:
        """Finish what was asked for and let go of the ledger; idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        if self.silent_s > CLOSE_S / 2:  # a server that hangs would be waited for thrice
            self._give_up()
        await self._writer.close()
        await self._reader.close()
        await self._reporter.close()
        if self._ear is not None:
            await asyncio.to_thread(self._ear.join, CLOSE_S)
        self._db.close()

    async def _result(self, worker: Worker, work: Callable[[Database], T]) -> T:
        future: asyncio.Future[T] = self._loop.create_future()

        def done(outcome: Any) -> None:
            if future.done():
                return  # whoever asked has left
            if isinstance(outcome, BaseException):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

        worker.put(Job(work, done))
        try:
            return await future
        except LedgerUnavailable as error:
            raise ServiceUnavailable(
                "The gateway's ledger cannot be used just now.", retry_after_s=2
            ) from error

    def _write(self, group: Sequence[Job]) -> list[Any]:
        outcomes = self._together(group)
        if not isinstance(outcomes, _Undone):
            return outcomes
        if len(group) == 1 or not outcomes.began:
            return [outcomes.error] * len(group)
        found: list[Any] = []
        for at, job in enumerate(group):
            alone = self._together([job])
            if not isinstance(alone, _Undone):
                found += alone
            elif alone.began:
                found.append(alone.error)
            else:  # nobody can write just now: the others need not wait to hear it, too
                return found + [alone.error] * (len(group) - at)
        return found

    def _together(self, group: Sequence[Job]) -> list[Any] | _Undone:
        """One transaction for all."""
        began = False
        try:
            self._mend()
            with self._db.transaction():
                began = True
                outcomes = [job.work(self._db) for job in group]
                self._writer.handover.ends()
            return outcomes
        except Exception as error:  # noqa: BLE001  # it is the outcome of somebody's job
            return _Undone(error, began)

    def _mend(self) -> None:
        done = self._db.mend()
        if done is not None:
            self._reader.outdated = self._reporter.outdated = True
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.mended, done)


def _nobody(_: object) -> None:
    """Nobody wants to know."""
