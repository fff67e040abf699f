"""A connection of its own for what is asked beside the data plane: keys, reports, exports.

Its thread waits for the disk; neither the loop nor the ledger's writer does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from helexa.core.errors import ServiceUnavailable
from helexa.cortex.ledger.database import Database, LedgerUnavailable

T = TypeVar("T")

SOON_S = 5.0


class Aside:
    """Runs one piece of work after the other.

    Args:
        connect: Opens the connection, in the thread, when it is first needed.
    """

    def __init__(self, connect: Callable[[], Database]) -> None:
        self._connect = connect
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger-aside")
        self._db: Database | None = None

    async def run(self, work: Callable[[Database], T]) -> T:
        """What ``work`` makes of the connection.

        Raises:
            ServiceUnavailable: The ledger cannot be used just now; the cause says why.
        """
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)
        except LedgerUnavailable as error:
            raise ServiceUnavailable(
                "The ledger cannot be used just now.", retry_after_s=SOON_S
            ) from error

    def close(self) -> None:
        """Let go of the connection, after what runs."""
        self._thread.submit(self._drop)
        self._thread.shutdown(wait=True)

    def _do(self, work: Callable[[Database], T]) -> T:
        if self._db is None:
            self._db = self._connect()
        return work(self._db)

    def _drop(self) -> None:
        if self._db is not None:
            self._db.close()
