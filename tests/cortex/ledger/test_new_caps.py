"""Caps that change while requests run: what is granted from then on keeps to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cortex.ledger.rig import Rig, Start, hard, rolling

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger import outbox
from helexa.cortex.ledger.base import Grant
from helexa.cortex.ledger.verify import verify

pytestmark = pytest.mark.anyio
FREE = Principal("acme", "k")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """One store will do: a gateway's own picture is what is tested."""
    return f"sqlite://{tmp_path}/ledger.db"


def under(account: int, *own: Cap) -> Principal:
    return Principal("acme", "k", caps=own, account_caps=(Cap(account),))


async def test_what_ends_after_its_key_was_given_a_cap_counts_against_it_at_once(
    start: Start, look: Any
) -> None:
    rig = start()
    await rig.take(FREE, "a", 1)
    await rig.book.learn([FREE])
    rig.book.bind([hard(100)])
    rig.end("a", 70)
    assert rig.book.usage(hard(100)).available_tokens == 30
    assert await rig.take(hard(100), "b", 500) == 30
    assert look("SELECT tokens FROM blocks") == [(30,)]  # what was spent is not written yet
    await rig.book.written()
    rig.end("b", 0)
    rig.book.bind([hard(200)])
    assert await rig.take(hard(200), "c", 500) == 130


async def test_what_ends_without_a_cap_takes_from_what_was_free_under_it(start: Start) -> None:
    rig = start()
    await rig.take(FREE, "a", 1)
    rig.book.bind([hard(1000)])
    assert await rig.take(hard(1000), "b", 100) == 100  # and some more are free
    rig.end("a", 850)
    assert await rig.take(hard(1000), "c", 500) == 50
    with pytest.raises(RateLimitExceeded, match="held by"):
        await rig.take(hard(1000), "d", 500)


async def test_what_a_request_leaves_over_is_not_granted_again_under_a_lowered_cap(
    start: Start,
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 800)
    rig.end("a", 800)
    assert await rig.take(hard(1000), "b", 200) == 200
    rig.book.bind([hard(500)])
    rig.end("b", 10)
    with pytest.raises(InsufficientQuota):
        await rig.take(hard(500), "c", 1)


async def test_nothing_is_granted_under_a_new_window_before_it_is_known_what_was_spent_in_it(
    start: Start,
) -> None:
    rig = start()
    await rig.take(hard(100_000), "a", 500)  # and thousands are free
    rig.end("a", 280)
    await rig.book.written()
    rig.book.bind([rolling(300)])
    assert await rig.take(rolling(300), "b", 500) == 20


async def test_nor_under_other_caps_before_it_is_known_what_an_earlier_life_has_spent(
    start: Start,
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 43)
    rig.end("a", 43)
    await rig.stop(clean=True)
    again = start()
    first = asyncio.ensure_future(again.take(hard(1000), "b", 1))
    while not again.durable._asking:
        await asyncio.sleep(0)
    await asyncio.sleep(0)  # the question is out
    again.book.bind([hard(50)])
    assert await first == 1
    assert await again.take(hard(50), "c", 10) == 6


@pytest.mark.parametrize(("then", "tokens"), [(under(50, Cap(1000)), 50), (FREE, None)])
async def test_who_waits_for_a_grant_gets_it_under_the_caps_that_came_meanwhile(
    start: Start, then: Principal, tokens: int | None
) -> None:
    rig = start()
    asked = rig.book.grant(hard(1000), "a", 1, 100)
    assert isinstance(asked, Awaitable)
    rig.book.bind([then])
    assert await asked == Grant("a", 1, "acme", "k", tokens)


async def test_an_answer_goes_on_when_its_account_is_given_a_cap_that_has_room(
    start: Start, look: Any
) -> None:
    rig = start()
    assert await rig.take(hard(10_000), "a", 100) == 100
    rig.book.bind([under(5000, Cap(10_000))])
    asked = rig.book.scopes["account:acme"].leasing
    assert asked is not None
    await asked  # what it holds is in the account's block before anybody else gets it
    assert look("SELECT tokens >= 100 FROM blocks WHERE scope = 'account:acme'") == [(1,)]
    assert await rig.extend("a", 90, 600) == 600
    rig.book.bind([FREE])
    assert await rig.extend("a", 590, 600) == 600


async def test_a_cap_below_what_is_open_leaves_no_debt_that_a_later_request_is_paid(
    start: Start, look: Any
) -> None:
    """A debt in the store would be taken from what a dead gateway's next request has cost."""
    rig = start()
    await rig.take(hard(1000), "a", 900)
    rig.book.bind([under(100, Cap(1000))])
    await rig.extend("a", 850, 900)  # the store hears of it
    other = Principal("acme", "other", account_caps=(Cap(100),))
    with pytest.raises(RateLimitExceeded):
        await rig.take(other, "b", 10)
    rig.end("a", 900)
    with pytest.raises(InsufficientQuota):
        await rig.take(other, "c", 10)
    raised = Principal("acme", "other", account_caps=(Cap(950),))
    assert await rig.take(raised, "d", 100) == 50
    rig.end("d", 0)
    await rig.book.written()
    ((held,),) = look("SELECT tokens FROM blocks WHERE scope = 'account:acme'")
    assert 0 <= held <= 50
    assert rig.book.usage(other).spent_tokens == 900


class Walk:
    """Two keys of an account, whose caps change at random while they ask, go on and end."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.rng = random.Random(seed)
        self.names = ["one", "two"]
        self.caps: dict[str, tuple[Cap, ...]] = {"one": (), "two": (), "acme": ()}
        self.open: dict[str, tuple[str, int | None]] = {}
        self.spent = {"one": 0, "two": 0, "acme": 0}
        self.asked = 0

    def who(self, name: str) -> Principal:
        return Principal("acme", name, caps=self.caps[name], account_caps=self.caps["acme"])

    def within(self, name: str) -> None:
        """What has just been granted fits, whatever was granted and spent before."""
        for scope in (name, "acme"):
            found = [tokens or 0 for key, tokens in self.open.values() if scope in (key, "acme")]
            for cap in self.caps[scope]:
                assert self.spent[scope] + sum(found) <= cap.tokens

    async def ask(self) -> None:
        name, self.asked = self.rng.choice(self.names), self.asked + 1
        try:
            given = await self.rig.take(self.who(name), f"r{self.asked}", self.rng.choice(SIZES))
        except (InsufficientQuota, RateLimitExceeded):
            return
        self.open[f"r{self.asked}"] = (name, given)
        if given is not None:
            self.within(name)

    async def go_on(self) -> None:
        for request in self.rng.sample(sorted(self.open), min(1, len(self.open))):
            name, before = self.open[request]
            if before is not None:
                given = await self.rig.extend(request, 0, before + self.rng.choice(SIZES))
                assert given is not None
                self.open[request] = (name, given)
                if given > before:
                    self.within(name)

    async def end(self) -> None:
        for request in self.rng.sample(sorted(self.open), min(1, len(self.open))):
            name, tokens = self.open.pop(request)
            used = self.rng.randint(0, 2000 if tokens is None else tokens)
            assert self.rig.end(request, used) == used
            self.spent[name] += used
            self.spent["acme"] += used

    async def change(self) -> None:
        windows = (Window(), Window("rolling", 60), Window("rolling", 3600))
        name = self.rng.choice(["one", "two", "acme"])
        number = self.rng.choice([0, 1, 1, 2])
        made = [Cap(self.rng.choice(CAPS), self.rng.choice(windows)) for _ in range(number)]
        self.caps[name] = tuple(made)
        self.rig.book.bind(map(self.who, self.names))

    async def write(self) -> None:
        await self.rig.book.written()


SIZES = (1, 100, 700, 3000, 40_000)
CAPS = (50, 300, 1000, 5000, 30_000)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_caps_change_no_grant_goes_beyond_them_and_the_sums_are_right(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(outbox, "FLUSH_S", 0.001)
    rig = start()
    rig.book._hold_wait_s = 0.001
    walk = Walk(rig, seed)
    steps: list[Callable[[], Awaitable[None]]]
    steps = [walk.ask, walk.ask, walk.ask, walk.go_on, walk.end, walk.end, walk.change, walk.write]
    for _ in range(60):
        await walk.rng.choice(steps)()
    while walk.open:
        await walk.end()
    await rig.book.written()
    proof = await rig.store.read(verify)
    assert proof.ok, proof.checks
    spent = dict(look("SELECT scope, spent FROM scopes"))
    assert spent.get("account:acme", 0) == walk.spent["acme"]
    for scope in rig.book.scopes.values():
        assert scope.owed == 0 or scope.leasing is not None
        for cap in scope.caps if scope.known else ():
            assert cap.spent(rig.clock[0]) == walk.spent[scope.name.partition(":")[2]]
