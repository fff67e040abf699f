"""Settling for gateways that have died: our own earlier lives, or others whose lease ran out.

::

    adopt ─▶ ask every node ─▶ settle its final records ─▶ acknowledge
               ▲    │                                        │
               └────┴── until no node knows of any more ─────┴─▶ end the life, give its room back
                        or one stays away past the lease: the last count that was heard stands

A record is settled once, whoever reads it how often. Until a life has ended its blocks stay held,
so nothing a node may still report can pass a cap.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import Ack, RequestRecord
from helexa.core.logging import Logger
from helexa.core.recurring import Recurring
from helexa.cortex.exchange.settling import FINAL
from helexa.cortex.fleet.client import NodeApi
from helexa.cortex.ledger.base import Settled
from helexa.cortex.ledger.estate import Estate, Settle
from helexa.cortex.ledger.lives import Life
from helexa.cortex.ledger.spend import Fenced
from helexa.wire.bodies import UNREADABLE

_TIMEOUT_S = 3.0
_CLEAR = 2
"""So many rounds in a row without a trace: it is not merely on its way."""
_SELDOM = 60
"""Rounds between looks for records of lives that have ended, of nodes that came back late."""

Records = dict[str, list[RequestRecord] | None]
"""By node; None for one that did not answer."""


class Recovery:
    """Looks after dead lives until cancelled.

    Args:
        nodes: Names of the configured nodes.
        api: Their management routes.
        booked: Told of every settlement that was made here.
        counted: Told of the records of it, once each.
        freed: Told when a life has ended: there may be room.
        estimated: Told of tokens that were settled without a final count.
        late: Told, by node, of records that came after that, and of their tokens beyond it.
    """

    def __init__(
        self,
        estate: Estate,
        nodes: Callable[[], Iterable[str]],
        api: Callable[[str], NodeApi | None],
        *,
        booked: Callable[[Settled], object],
        counted: Callable[[RequestRecord], object],
        freed: Callable[[], object],
        estimated: Callable[[int], object],
        late: Callable[[str, int, int], object],
        log: Logger,
    ) -> None:
        self._estate = estate
        self._nodes = nodes
        self._api = api
        self._booked = booked
        self._counted = counted
        self._freed = freed
        self._estimated = estimated
        self._late = late
        self._log = log
        self._trouble = Recurring(log, "recovery: trying again", "recovery: it goes on")
        self._clear: Counter[int] = Counter()

    async def run(self, every_s: float = 0.5) -> None:
        """Look, settle, acknowledge, end; until cancelled."""
        number = 0
        while True:
            try:
                dead = await self._estate.dead()
                if dead or number % _SELDOM == 0:
                    await self._round(dead)
            except (HelexaError, Fenced) as error:
                self._trouble.failed(error)
            else:
                self._trouble.succeeded()
            number += 1
            await asyncio.sleep(every_s)

    async def _round(self, dead: Sequence[Life]) -> None:
        names = list(self._nodes())
        answers = await asyncio.gather(*(self._ask(name) for name in names))
        found: Records = dict(zip(names, answers, strict=True))
        by_name = {(life.gateway, life.epoch): life for life in dead}
        final, running = _sorted(found, by_name)
        await self._settle(final)
        await self._forget(found, dead)
        for life in dead:
            await self._end_if_done(life, found, [s for s in running if s[0] == life])

    async def _settle(self, final: Sequence[Settle]) -> None:
        if not final:
            return
        lines = await self._estate.settle(final)
        for line, (_, record, _) in zip(lines, final, strict=True):
            if line is not None:
                self._counted(record)
                self._booked(
                    Settled(
                        line.account_id, line.key_id, line.prompt, line.completion, line.overrun
                    )
                )
        for node in {node for _, _, node in final}:
            await self._acknowledge(node, [record for _, record, at in final if at == node])

    async def _end_if_done(self, life: Life, found: Records, running: Sequence[Settle]) -> None:
        # Who has no nodes cannot know; ``all`` of none would say that no node knows of it.
        away = not found or any(records is None for records in found.values())
        if not away and not running:
            self._clear[life.life] += 1
            if self._clear[life.life] < _CLEAR:
                return
        else:
            self._clear[life.life] = 0
            if self._estate.now() < life.lease_until:
                return
            last = await self._estate.settle(running, final=False) if running else []
            self._estimated(sum(line.total for line in last if line is not None))
        tokens = await self._estate.end(life, away=away)
        self._estimated(tokens)
        self._log.info("recovered", gateway=life.gateway, epoch=life.epoch, estimated=tokens)
        del self._clear[life.life]
        self._freed()

    async def _forget(self, found: Records, dead: Sequence[Life]) -> None:
        """Acknowledge what came too late: it has been settled at an estimate, or is unknown."""
        mine = self._estate.mine
        known = {(life.gateway, life.epoch) for life in (mine, *dead)}
        for node, records in found.items():
            final = [
                record
                for record in records or ()
                if record.state in FINAL and (record.gateway, record.epoch) not in known
            ]
            late = await self._estate.late(final) if final else []
            if late:
                await self._acknowledge(node, [record for record, _ in late])
                self._late(node, len(late), sum(tokens for _, tokens in late))

    async def _ask(self, node: str) -> list[RequestRecord] | None:
        api = self._api(node)
        if api is None:
            return None
        try:
            answer = await api.get("/requests", _TIMEOUT_S)
            if answer.status != 200:
                return None
            return msgspec.json.decode(answer.body, type=list[RequestRecord])
        except (HelexaError, *UNREADABLE):
            return None

    async def _acknowledge(self, node: str, records: Sequence[RequestRecord]) -> None:
        """Let a node forget; one that does not hear it is told again in the next round."""
        api = self._api(node)
        if api is None:
            return
        body = [Ack(record.request_id, record.attempt) for record in records]
        try:
            await api.post("/requests/ack", body, _TIMEOUT_S)
        except HelexaError as error:
            self._log.warning("recovery: could not acknowledge", node=node, why=error.message)


def _sorted(
    found: Records, by_name: dict[tuple[str, int], Life]
) -> tuple[list[Settle], list[Settle]]:
    """Records of dead lives: those that are final, and those that still run."""
    final: list[Settle] = []
    running: list[Settle] = []
    for node, records in found.items():
        for record in records or ():
            life = by_name.get((record.gateway, record.epoch))
            if life is not None:
                (final if record.state in FINAL else running).append((life, record, node))
    return final, running
