"""What a gateway asks its store, and what it makes of answers that come late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from helexa.core.principal import Cap, Window
from helexa.cortex.ledger.backing import Neighbours
from helexa.cortex.ledger.base import RequestKey
from helexa.cortex.ledger.blocks import Blocks
from helexa.cortex.ledger.scope import Account, Leased, Scope, ScopeState
from helexa.cortex.ledger.window import bucket_of

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.0


class Told:
    """A store that answers when the test says so."""

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared
        self.life = 5
        self.full = False
        self.asked: list[tuple[int | None, Callable[[Leased | Exception], None]]] = []
        self.returned: list[tuple[str, int]] = []
        self.neighbours: Neighbours | None = None

    def may_grant(self) -> bool:
        return True

    def hear(self, neighbours: Neighbours) -> None:
        self.neighbours = neighbours

    def lease(
        self,
        scope: Scope,
        need: int | None,
        done: Callable[[Leased | Exception], None],
    ) -> None:
        self.asked.append((need, done))

    def awaited(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def give_back(self, scope: Scope) -> None:
        self.returned.append((scope.name, scope.owed))
        scope.owed = 0  # it knows at once

    def settled(self, *ended: object) -> None:
        raise AssertionError(ended)

    def discarded(self, *ended: object) -> None:
        raise AssertionError(ended)

    def heard(self, key: RequestKey, account: Account, granted: int, used: int) -> None:
        raise AssertionError((key, account, granted, used))

    async def written(self) -> None:
        """Nothing is kept."""

    async def answer(self, tokens: int | None, state: ScopeState | None) -> None:
        """Answer the oldest question, once it has been asked."""
        while not self.asked:
            await asyncio.sleep(0)
        self.asked.pop(0)[1](Leased(tokens, state))
        await asyncio.sleep(0)


@pytest.fixture
def store() -> Told:
    return Told()


async def test_news_that_come_while_a_question_is_out_are_asked_for_again(store: Told) -> None:
    blocks = Blocks(lambda: NOW, store)
    scope = blocks.scope("key", "k", (Cap(100),))
    await asyncio.sleep(0)
    blocks.refresh()  # a dead gateway's life has ended; the question is older than that
    await store.answer(0, ScopeState(others=64))
    known = [scope.known]
    await store.answer(0, ScopeState(others=0))
    assert [*known, scope.known] == [False, True]
    assert scope.held == 0
    assert not store.asked


async def test_an_answer_about_other_caps_tells_nothing_of_those_that_are(store: Told) -> None:
    blocks = Blocks(lambda: NOW, store)
    scope = blocks.scope("key", "k", (Cap(100),))
    await asyncio.sleep(0)
    blocks.scope("key", "k", (Cap(60), Cap(50, Window("rolling", 60))))
    await store.answer(80, ScopeState())
    assert not scope.known  # nobody had asked about the window yet
    assert scope.free == 0  # what was spent in it may be more than it allows
    await asyncio.sleep(0)
    ((need, answer),) = store.asked
    assert need == 0
    answer(Leased(0, ScopeState(buckets={60: ((bucket_of(int(NOW * 1000), 60), 20),)}), 80))
    assert (scope.known, scope.free) == (True, 30)
    assert store.returned == [("key:k", 50)]  # more than the caps of now leave is not ours


async def test_who_is_short_gets_what_is_free_and_the_older_of_two_keeps_its_own() -> None:
    store = Told(shared=True)
    blocks = Blocks(lambda: NOW, store)
    scope = blocks.scope("key", "k", (Cap(100),))
    await store.answer(40, ScopeState(others=60))
    scope.wanted = 90  # one of ours is short of it as well
    blocks.wanted("key:k", by=9)
    assert store.returned == []
    blocks.wanted("key:k", by=2)
    assert store.returned == [("key:k", 40)]
    scope.wanted, scope.free = 0, 7
    blocks.left(scope)  # a moment later one of our requests has left something
    assert store.returned[1:] == [("key:k", 7)]
    blocks.wanted("key:unknown", by=2)
