"""Queries on a connection of their own, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from helexa.cortex.ledger.database import Database, connect
from helexa.cortex.ledger.worker import Job, Work, Worker


class Reading:
    """A thread that reads; it connects when it is first asked.

    Attributes:
        outdated: Set, from any thread, when what it is connected to is not the ledger any more.
    """

    def __init__(self, name: str, url: str, loop: asyncio.AbstractEventLoop) -> None:
        self._url = url
        self._db: Database | None = None
        self.outdated = False
        self.worker = Worker(name, loop, self._read)

    def give_up(self) -> None:
        """See ``Database.give_up``."""
        if self._db is not None:
            self._db.give_up()

    async def close(self) -> None:
        """Finish what was asked for and let go."""
        await self.worker.close()
        if self._db is not None:
            self._db.close()

    def _read(self, group: Sequence[Job]) -> list[Any]:
        return [self._query(job.work) for job in group]

    def _query(self, work: Work) -> Any:
        try:
            if self.outdated and self._db is not None:
                self.outdated = False
                self._db.close()
                self._db = None
            if self._db is None:
                # A new file in the place of one that was removed could not be told from a backup.
                self._db = connect(self._url, create=False)
            return work(self._db)
        except Exception as error:  # noqa: BLE001  # it is the outcome of somebody's query
            return error
