"""What a gateway's life has to write down, on its way to the store.

::

    collecting ──every 250 ms, sooner if somebody waits─▶ a batch ─▶ writer ─▶ durable

One batch is on its way at a time; one that could not be written is tried again until it is.
Batches have numbers, so one whose answer was lost is not written twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from helexa.core.errors import ServiceUnavailable
from helexa.core.logging import Logger
from helexa.core.recurring import Recurring
from helexa.cortex.ledger import spend
from helexa.cortex.ledger.batches import Pending, batch_of
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.spend import Fenced
from helexa.cortex.ledger.store import Store

FLUSH_S: Final = 0.25
HURRY_S: Final = 0.05
"""Between two batches if somebody waits for one: a large batch costs half as much by the row."""

RETRY_S: Final = 0.5

MOST_UNWRITTEN: Final = 65_536
"""Requests that may wait to be written: of more than that a node keeps no records, so what we know
of them would be lost with us."""

FREED: Final = "freed"
"""What other gateways are told of a scope that they want, when we have given back some of it."""


class Outbox:
    """Batches of one life.

    Args:
        life: Ours.
        now_ms: Epoch milliseconds; never steps back.
        fenced: Called when another gateway keeps our life: nothing is written any more.

    Attributes:
        collecting: What the next batch will carry; whoever adds to it says how soon.
        armed: When it goes; None while nobody has said.
        trouble: While batches cannot be written.
    """

    def __init__(
        self,
        store: Store,
        life: int,
        now_ms: Callable[[], int],
        log: Logger,
        fenced: Callable[[], object],
    ) -> None:
        self._store = store
        self._life = life
        self._now_ms = now_ms
        self.trouble = Recurring(
            log,
            "ledger: cannot write what was settled; trying again",
            "ledger: what was settled is written",
        )
        self._fenced = fenced
        self._loop = asyncio.get_running_loop()
        self.collecting = Pending()
        self._writing: Pending | None = None
        self.armed: asyncio.TimerHandle | None = None
        self._flushed = 0.0
        self._number = 0
        self._over = False

    @property
    def unwritten(self) -> int:
        """Requests that wait to be written."""
        waiting = len(self.collecting.lines)
        if self._writing is not None:
            waiting += len(self._writing.lines)
        return waiting // spend.WIDTH

    def soon(self) -> None:
        """Nobody waits for what was added."""
        if self.armed is None:
            self.armed = self._loop.call_later(FLUSH_S, self._flush)

    def hurry(self) -> None:
        """Somebody waits for what is being collected."""
        if self.armed is not None:
            self.armed.cancel()
        soon = max(self._loop.time(), self._flushed + min(HURRY_S, FLUSH_S))
        self.armed = self._loop.call_at(soon, self._flush)

    def at_once(self) -> None:
        """Another gateway waits for what is being collected."""
        if self.armed is not None:
            self.armed.cancel()
        self.armed = self._loop.call_later(0, self._flush)

    async def written(self) -> None:
        """Wait until everything added so far is durable.

        Raises:
            ServiceUnavailable: It never will be; see ``close``.
        """
        if self._over:
            raise _taken_over()
        pending = self.collecting or self._writing
        if pending is not None:
            await self.promise(pending)

    def promise(self, pending: Pending) -> asyncio.Future[None]:
        """Done when ``pending`` is durable, which is hurried."""
        future: asyncio.Future[None] = self._loop.create_future()
        pending.waiters.append(future)
        self.hurry()
        return future

    def unheard(self, batch: int) -> Mapping[str, int] | None:
        """What the batch under way pays, by the name of a scope, if the store has it and we have
        not heard so; else None.

        Args:
            batch: The number of the last batch that the store has.
        """
        pending = self._writing
        if pending is None or batch < self._number:
            return None
        return {scope.name: tokens for scope, tokens in pending.paid.items()}

    def close(self) -> None:
        """Write nothing any more, and disappoint whoever waits for it."""
        self._over = True
        for pending in (self._writing, self.collecting):
            for future in pending.waiters if pending is not None else ():
                if not future.done():
                    future.set_exception(_taken_over())

    def _flush(self) -> None:
        self.armed = None
        if self._writing is not None or not self.collecting or self._over:
            return
        self._flushed = self._loop.time()
        self._writing, self.collecting = self.collecting, Pending()
        self._writing.close()
        self._number += 1
        self._write()

    def _write(self) -> None:
        pending, number, at, life = self._writing, self._number, self._now_ms(), self._life
        if pending is None:
            return

        def work(db: Database) -> None:
            spend.write_batch(db, life, batch_of(pending, number, at, life))
            for scope in pending.wanted:
                db.notify(f"{life} {FREED} {scope}")

        self._store.submit(work, self._wrote)

    def _wrote(self, outcome: object) -> None:
        pending = self._writing
        if pending is None:
            return
        if isinstance(outcome, Fenced):
            self._fenced()
        elif isinstance(outcome, BaseException):
            self.trouble.failed(outcome)
            self._loop.call_later(RETRY_S, self._write)
        else:
            self.trouble.succeeded()
            self._writing = None
            for scope, found in pending.sums.items():
                scope.written(found.requests, found.prompt, found.completion)
            for scope, tokens in pending.paid.items():
                scope.owed -= tokens
            for future in pending.waiters:
                if not future.done():
                    future.set_result(None)
            if self.collecting.wanted:
                self.at_once()
            elif self.collecting.waiters:
                self.hurry()
            elif self.collecting:
                self.soon()


def _taken_over() -> ServiceUnavailable:
    return ServiceUnavailable("Another gateway keeps this one's ledger now.", retry_after_s=5)
