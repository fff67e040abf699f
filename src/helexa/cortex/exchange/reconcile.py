"""Requests that we believe to run and their node does not know: compared by level, ended.

A network that was cut, or a node that was restarted behind it, leaves connections that look alive
until their idle deadline, minutes later; each keeps a lease, a grant and a client waiting. So
whoever has been silent for a while is looked up in the node's own table, however it came to be
silent; what the node does not know, twice in a row, is over there. A node that is dead by its
polls denies nothing; of what is silent there, whatever has not begun to be answered is tried on
where the model is ready.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.fleet import RequestRecord
from helexa.core.logging import Logger
from helexa.cortex.fleet.client import NodeApi
from helexa.cortex.fleet.snapshot import FleetSnapshot
from helexa.wire.bodies import UNREADABLE

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange
    from helexa.cortex.ledger.base import RequestKey

SILENT_S = 5.0
"""Without a byte for so long, a request is looked up."""
TIMEOUT_S = 3.0


def unknown(silent: Iterable[RequestKey], records: Iterable[RequestRecord]) -> set[RequestKey]:
    """Those of ``silent`` that the node's table does not hold, or lost with its earlier life."""
    alive = {(r.request_id, r.attempt) for r in records if r.state != "node_lost"}
    return set(silent) - alive


def better_elsewhere(fleet: FleetSnapshot, node: str, model: str) -> bool:
    """Whether a node does not answer any more and another one has the model ready."""
    here = fleet.node(node)
    if here is None or here.reachable:
        return False
    states = [n.models.get(model) for n in fleet.reachable if not n.draining]
    return any(state is not None and state.ready for state in states)


class Reconciler:
    """Ends what its node does not know.

    Args:
        running: The exchanges under way.
        api: A node's management routes by name.
        fleet: The nodes as they are now.
        now: On the clock of ``Attempt.heard``.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[Exchange]],
        api: Callable[[str], NodeApi | None],
        fleet: Callable[[], FleetSnapshot],
        now: Callable[[], float],
        log: Logger,
        *,
        silent_s: float = SILENT_S,
    ) -> None:
        self._running = running
        self._api = api
        self._fleet = fleet
        self._now = now
        self._log = log
        self._silent_s = silent_s
        self._missed: set[RequestKey] = set()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(self._silent_s)
            await self.look()

    async def look(self) -> None:
        """Compare once, with every node that has somebody silent."""
        before, self._missed = self._missed, set()
        silent = self._silent()
        await asyncio.gather(*(self._ask(node, each, before) for node, each in silent.items()))

    def _silent(self) -> dict[str, dict[RequestKey, Exchange]]:
        found: dict[str, dict[RequestKey, Exchange]] = defaultdict(dict)
        since = self._now() - self._silent_s
        for exchange in self._running():
            attempt, placed = exchange.attempt, exchange.placed
            if attempt is None or placed is None or exchange.route.free:
                continue
            if not attempt.ended and 0 < attempt.heard < since:
                found[placed.node][exchange.request_id, exchange.attempts] = exchange
        return found

    async def _ask(
        self, node: str, silent: dict[RequestKey, Exchange], before: set[RequestKey]
    ) -> None:
        api = self._api(node)
        if api is None:
            return
        try:
            answer = await api.get("/requests", TIMEOUT_S)
            if answer.status != 200:
                self._pass_on(node, silent)
                return
            records = msgspec.json.decode(answer.body, type=list[RequestRecord])
        except (HelexaError, *UNREADABLE):
            self._pass_on(node, silent)
            return  # whoever cannot be asked has not denied anything
        for key in unknown(silent, records):
            exchange = silent[key]
            attempt = exchange.attempt
            if attempt is None or attempt.ended or exchange.attempts != key[1]:
                continue
            if key not in before:
                self._missed.add(key)
                continue
            self._log.warning("its node does not know it", request_id=key[0], node=node)
            attempt.lose()

    def _pass_on(self, node: str, silent: dict[RequestKey, Exchange]) -> None:
        """Try elsewhere what waits for the first byte of a node that is dead."""
        fleet = self._fleet()
        for (request_id, number), exchange in silent.items():
            attempt = exchange.attempt
            if attempt is None or attempt.ended or exchange.attempts != number:
                continue
            if not exchange.relaying and better_elsewhere(fleet, node, exchange.model):
                self._log.warning("its node is dead", request_id=request_id, node=node)
                attempt.lose()
