"""Opens the ledger that the settings name, as a whole: book, store, threads, our life in it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from helexa.core.errors import ServiceUnavailable
from helexa.core.folders import user_folder
from helexa.core.logging import Logger
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.condition import Condition
from helexa.cortex.ledger.database import sqlite_path, sqlite_url
from helexa.cortex.ledger.durable import Durable
from helexa.cortex.ledger.estate import Estate
from helexa.cortex.ledger.sqlite import hold_alone
from helexa.cortex.ledger.store import Store

MEMORY: Final = "memory:"
"""Keeps nothing beyond the process; for tests and measurements."""

AGAIN_S: Final = 1.0
"""Between a failure of what looks after our life and its next beginning."""

_CLOSE_S: Final = 10.0


class LedgerLost(Exception):
    """Another gateway keeps what was ours: it took us for dead after an outage of the ledger."""


class SharedClock:
    """Epoch seconds by the database's clock, by which all gateways of a ledger count.

    It goes on with the monotonic clock from when the database was last asked: this machine's own
    time may be wrong, and may be set while we run.

    Args:
        ahead: Of the monotonic clock, in seconds.
    """

    __slots__ = ("_ahead",)

    def __init__(self, ahead: float) -> None:
        self._ahead = ahead

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def set(self, ahead: float) -> None:
        """The database has been asked anew."""
        self._ahead = ahead


class OpenLedger:
    """An open ledger.

    Attributes:
        book: What requests are granted from.
        store: Its database; None in memory.
        life: Ours; None in memory.
        estate: What dead gateways have left; None in memory.
        failures: How often what looks after our life has failed and was begun anew.
    """

    def __init__(
        self,
        url: str,
        *,
        gateway: str,
        epoch: int,
        lease_s: float,
        hold_wait_s: float,
        log: Logger,
    ) -> None:
        """Open ``url``; called before anything is served, so it may take a moment.

        Raises:
            SettingsError: The url is none of ours, or a newer helexa has used the ledger.
            LedgerUnavailable: It cannot be opened, or another gateway uses it.
        """
        self.store: Store | None = None
        self.life: lives.Life | None = None
        self.estate: Estate | None = None
        self._durable: Durable | None = None
        self._lock: int | None = None
        self._lost = asyncio.Event()
        self._log = log
        self.failures = 0
        now: Callable[[], float] = time.time
        if url != MEMORY:
            if url.startswith("sqlite:"):
                self._lock = hold_alone(sqlite_path(url))
            alone = self._lock is not None
            store = self.store = Store(url, asyncio.get_running_loop(), alone=alone)
            self.life, ahead, _ = store.at_once(
                lambda db: (
                    lives.begin(db, gateway, epoch, lease_s),
                    db.now() - time.monotonic(),
                    db.hold(gateway),
                )
            )
            clock = SharedClock(ahead)
            now = clock if store.shared else time.time
            self._durable = Durable(
                store, self.life, lease_s=lease_s, now=now, log=log, lost=self._lost.set,
                set_clock=clock.set,
            )  # fmt: skip
            self.estate = Estate(
                store, self.life, lease_s=lease_s, now=now, named=lambda db: db.holds(gateway)
            )
        self.now = now
        self.book = Book(now, lease_s=lease_s, hold_wait_s=hold_wait_s, backing=self._durable)

    def condition(self) -> Condition:
        """How it does, now."""
        return Condition() if self._durable is None else self._durable.condition()

    async def run(self) -> None:
        """Look after our life until cancelled.

        Raises:
            LedgerLost: It is not ours any more; only a new process can go on.
        """
        if self._durable is None:
            return
        chore = asyncio.ensure_future(self._look_after(self._durable))
        try:
            await self._lost.wait()
        finally:
            chore.cancel()
            await asyncio.wait([chore])
        raise LedgerLost(
            "another gateway has taken over this one's part of the ledger; start it again"
        )

    async def _look_after(self, durable: Durable) -> None:
        """What fails is told and begun anew; if it goes on failing, our lease ends in time and
        nothing more is granted where others may think us dead."""
        while True:
            try:
                await durable.run(lambda: self.book.scopes)
            except Exception:  # noqa: BLE001  # a bug must not end what our lease rests on
                self.failures += 1
                self._log.exception("ledger: what looks after our life has failed; begun anew")
            await asyncio.sleep(AGAIN_S)

    async def close(self, *, clean: bool) -> None:
        """Write what is left and let go; idempotent.

        Args:
            clean: Every node's last word is in.
        """
        if self.store is None:
            return
        clean = clean and not self.book.snapshot().grants
        if self._durable is not None:
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._durable.close(clean=clean)
            except (TimeoutError, ServiceUnavailable):
                pass  # our next life finds it in the nodes' records
        await self.store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def default_url(environ: Mapping[str, str]) -> str:
    """``ledger.db`` in the state directory: the service manager's, the user's, or root's."""
    given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        folder = Path(given)
    elif os.geteuid() == 0 and not environ.get("XDG_STATE_HOME"):
        folder = Path("/var/lib/cortex")
    else:
        folder = user_folder("XDG_STATE_HOME", ".local/state", environ) / "helexa"
    return sqlite_url(folder.absolute() / "ledger.db")
