"""A gateway's ledger for tests, with a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from helexa.core.logging import get_logger
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger import lives
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.durable import Durable
from helexa.cortex.ledger.store import Store

LEASE_S = 60.0
START = 1_800_000_000.0


class Rig:
    """A gateway's ledger, with a clock of its own; several may share a place."""

    def __init__(self, url: str, gateway: str, epoch: int, clock: list[float]) -> None:
        self.clock = clock
        self.store = Store(url, asyncio.get_running_loop())
        self.life = self.store.at_once(lambda db: lives.begin(db, gateway, epoch, LEASE_S))
        self.lost: list[bool] = []
        self.durable = Durable(
            self.store,
            self.life,
            lease_s=LEASE_S,
            now=lambda: clock[0],
            log=get_logger(),
            lost=lambda: self.lost.append(True),
        )
        self.book = Book(lambda: clock[0], lease_s=LEASE_S, hold_wait_s=0.05, backing=self.durable)

    async def take(self, who: Principal, name: str, tokens: int) -> int | None:
        answer = self.book.grant(who, name, 1, tokens)
        return (answer if isinstance(answer, Grant) else await answer).tokens

    async def extend(self, name: str, used: int, to: int) -> int | None:
        answer = self.book.extend(name, 1, used, to)
        return await answer if isinstance(answer, Awaitable) else answer

    def end(self, name: str, prompt: int, completion: int = 0) -> int:
        settled = self.book.settle(Settlement(name, 1, prompt, completion, node="n", model="m"))
        assert settled is not None
        return settled.total

    async def stop(self, *, clean: bool) -> None:
        if clean:
            await self.durable.close(clean=True)
        await self.store.close()


Start = Callable[..., Rig]


def hard(tokens: int, key: str = "k") -> Principal:
    return Principal("acme", key, caps=(Cap(tokens),))


def rolling(tokens: int, seconds: int = 60) -> Principal:
    return Principal("acme", "k", caps=(Cap(tokens, Window("rolling", seconds)),))
