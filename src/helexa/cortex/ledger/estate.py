"""What dead gateways have left: their lives, whose requests their keeper settles."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from helexa.core.fleet import RequestRecord
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.base import RequestKey
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.durable import GRACE_S
from helexa.cortex.ledger.lives import Life
from helexa.cortex.ledger.spend import Fenced, Line
from helexa.cortex.ledger.store import Store

Settle = tuple[Life, RequestRecord, str]
"""Whose it was, the node's record, and the node."""

_LOOK_S: Final = 2.0
_SLOW_S: Final = 2.0
"""A look that takes longer has met an outage."""


class Estate:
    """Lives that we keep beside our own.

    Args:
        mine: Our own life.
        named: Whether nobody else has our name, by the writer's connection as it is now: then
            its earlier lives are dead.
        now: Epoch seconds by the ledger's clock.
        monotonic: Seconds, of any beginning.
    """

    def __init__(
        self,
        store: Store,
        mine: Life,
        *,
        lease_s: float,
        now: Callable[[], float],
        named: Callable[[Database], bool] = lambda _: True,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._mine = mine
        self._named = named
        self._lease_s = lease_s
        self.now = now
        self._monotonic = monotonic
        self._looked = 0.0
        self._steady = monotonic()
        self._ahead: float | None = None  # the ledger's clock, of the monotonic one
        self._dead: list[Life] = []

    @property
    def mine(self) -> Life:
        """Our own life."""
        return self._mine

    async def dead(self) -> list[Life]:
        """Lives whose requests are ours to settle.

        Raises:
            ServiceUnavailable: The ledger cannot be used just now.
        """
        fresh = self._looked == 0.0 or self._store.shared
        if fresh and self._monotonic() - self._looked >= _LOOK_S:
            await self._look()
        return list(self._dead)

    async def _look(self) -> None:
        """Become the keeper of lives whose gateways have died.

        An outage of the database ends every gateway's lease, and so does a clock of its that is
        set forward, as by a failover; those who live must not take each other for dead then. So
        others' lives are left alone until the database has answered, with one clock, for as long
        as all who live need to renew theirs.
        """
        mine, lease_s = self._mine, self._lease_s
        alone, asked = not self._store.shared, self._monotonic()
        steady = asked - self._steady >= lease_s / 2 + GRACE_S

        def work(db: Database) -> tuple[list[Life], float]:
            ahead = db.now() - self._monotonic()
            late = self._monotonic() - asked > _SLOW_S
            grace_s = GRACE_S if steady and not late and not self._moved(ahead) else None
            name = mine.gateway if self._named(db) else None
            dead = lives.adopt(db, mine.life, name, lease_s, alone=alone, grace_s=grace_s)
            return dead, ahead

        try:
            self._dead, ahead = await self._store.write(work)
        except BaseException:
            self._steady = self._monotonic()
            raise
        self._looked = self._monotonic()
        if self._looked - asked > _SLOW_S or self._moved(ahead):
            self._steady = self._looked
        self._ahead = ahead

    def _moved(self, ahead: float) -> bool:
        """Whether the ledger's clock has been set since we last looked."""
        return self._ahead is not None and abs(ahead - self._ahead) > _SLOW_S

    async def late(self, records: Sequence[RequestRecord]) -> list[tuple[RequestRecord, int]]:
        """Which of these final records nobody will settle any more, each with what it says beyond
        what its request was settled at (tokens).

        Those are of lives that have ended: ours, or of gateways that are no more, of which the
        eldest gateway takes care. Of our name it is also what this ledger has never heard of.
        """
        mine = self._mine

        def work(db: Database) -> list[tuple[RequestRecord, int]]:
            states = lives.states(db, {record.gateway for record in records})
            living = {name for (name, _), state in states.items() if state == "live"}
            others = lives.eldest(db) == mine.life
            found = [
                record
                for record in records
                for state in (states.get((record.gateway, record.epoch)),)
                if state == "ended" or (state is None and record.gateway == mine.gateway)
                if record.gateway == mine.gateway or (others and record.gateway not in living)
            ]
            settled = lives.settled_at(db, [record.request_id for record in found])
            return [(record, _beyond(record, settled)) for record in found]

        return await self._store.read(work)

    async def settle(self, found: Sequence[Settle], *, final: bool = True) -> list[Line | None]:
        """Book what nodes have recorded; None for what had been settled before.

        Args:
            final: Otherwise it is the last count of what still runs somewhere.
        """
        at, keeper = int(self.now() * 1000), self._mine.life
        lines = [
            (life.life, line_of(life, record, node, at, final)) for life, record, node in found
        ]

        def work(db: Database) -> list[Line | None]:
            return [lives.settle_dead(db, keeper, dead, line) for dead, line in lines]

        return await self._store.write(work)

    async def end(self, life: Life, *, away: bool) -> int:
        """Close a life; see ``lives.end``."""
        at, keeper = int(self.now() * 1000), self._mine.life

        def work(db: Database) -> int:
            return lives.end(db, keeper, life.life, at, away=away)

        try:
            return await self._store.write(work)
        except Fenced:
            return 0  # somebody else has become its keeper
        finally:
            self._dead = [dead for dead in self._dead if dead.life != life.life]


def _beyond(record: RequestRecord, settled: Mapping[RequestKey, int | None]) -> int:
    tokens = settled.get((record.request_id, record.attempt), 0)
    return 0 if tokens is None else max(0, record.prompt + record.output - tokens)


def line_of(life: Life, record: RequestRecord, node: str, at: int, final: bool) -> Line:
    """A node's record as a row; nothing beyond the grant is billed."""
    granted = record.granted or None  # a node writes 0 for a key without caps
    reported = record.prompt + record.output
    billed = reported if granted is None else min(reported, granted)
    prompt = min(record.prompt, billed)
    return Line(
        record.request_id,
        record.attempt,
        life.life,
        "settled" if final else "expired",
        at,
        record.account_id,
        record.key_id,
        node,
        record.model,
        granted,
        billed,
        prompt,
        billed - prompt,
        record.cached,
        record.reasoning,
        reported - billed,
        int(not final),
    )
