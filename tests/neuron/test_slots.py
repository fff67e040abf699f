"""What an answer held is given back when its engine has let go of it, not when the node has."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.core.errors import HelexaError, UpstreamConnectionError, UpstreamTimeout
from helexa.neuron.slots import QUIET_S, Slots, pause_s, releasable

pytestmark = pytest.mark.anyio


@dataclass
class Engine:
    """Says how many slots are busy; what ``later`` holds it says first."""

    busy: int = 0
    now: float = 0.0
    later: list[int | HelexaError] = field(default_factory=list)
    asked: int = 0

    async def running(self) -> int:
        self.asked += 1
        await asyncio.sleep(0)
        said = self.later.pop(0) if self.later else self.busy
        if isinstance(said, HelexaError):
            raise said
        return said

    def slots(self) -> Slots:
        return Slots(self.running, lambda: self.now)


async def settled(slots: Slots) -> None:
    async with asyncio.timeout(30):
        while slots.leaving:
            await asyncio.sleep(0)


async def test_cells_of_a_cut_answer_are_kept_until_the_engine_has_let_go() -> None:
    engine, released = Engine(later=[2, 2, 1]), []
    slots = engine.slots()
    slots.take("goes on", 1)
    slots.take("cut", 1)
    slots.leave("cut", 1, lambda _: released.append(engine.asked))
    await settled(slots)
    assert released == [3]  # the third answer said one slot, and that is somebody's


async def test_those_that_left_first_are_free_first() -> None:
    engine, released = Engine(later=[3, 2, 1, 0]), []
    slots = engine.slots()
    for name in "abc":
        slots.leave(name, 1, lambda _, name=name: released.append((name, engine.asked)))  # type: ignore[misc]
    await settled(slots)
    assert released == [("a", 2), ("b", 3), ("c", 4)]


async def test_an_engine_that_is_gone_holds_nothing() -> None:
    engine, released = Engine(later=[UpstreamConnectionError("gone")]), []
    slots = engine.slots()
    slots.leave("a", 1, lambda _: released.append("a"))
    await settled(slots)
    assert released == ["a"]
    slots.leave("b", 1, lambda _: released.append("b"))
    slots.forget()  # it was restarted
    assert released == ["a", "b"]


async def test_an_engine_that_says_nothing_is_believed_to_be_busy_for_a_bounded_time() -> None:
    engine, released = Engine(busy=1, later=[UpstreamTimeout("busy")]), []
    slots = engine.slots()
    slots.leave("a", 1, lambda _: released.append("a"))
    async with asyncio.timeout(30):
        while engine.asked < 3:
            await asyncio.sleep(0)
    assert released == []
    engine.now += 60
    await settled(slots)
    assert released == ["a"]


async def test_an_engine_that_says_nothing_is_asked_on_when_nobody_waits_any_more() -> None:
    engine = Engine(later=[UpstreamTimeout("stuck")] * 4, busy=1)
    spoken: list[bool] = []
    slots = engine.slots()
    slots.leave("a", 1, spoken.append)
    engine.now += 60
    await settled(slots)
    assert spoken == [False]
    async with asyncio.timeout(30):
        while len(spoken) == 1:
            await asyncio.sleep(0)
    assert (spoken, engine.asked) == ([False, True], 5)


def test_an_engine_that_takes_long_to_let_go_is_left_alone_for_a_second_once() -> None:
    assert pause_s(0.5, 0.1, hushed=False) == 0.1  # an answer that is on its way comes at once
    assert pause_s(1.5, 0.1, hushed=False) == QUIET_S > 1
    assert pause_s(2.7, 0.1, hushed=True) == 0.1


async def test_an_answer_without_cells_waits_for_those_of_one_that_is_leaving() -> None:
    engine = Engine(later=[2, 1, 1, 0], busy=0)
    slots = engine.slots()
    slots.leave("a", 1, lambda _: None)
    slots.leave("b", 1, lambda _: None)
    async with asyncio.timeout(30):
        await slots.released(slots.releases)
    assert slots.leaving == 1
    await settled(slots)


async def test_whoever_left_before_the_waiting_began_is_not_waited_for() -> None:
    engine = Engine(later=[2, 1, *[1] * 50], busy=0)
    slots = engine.slots()
    slots.leave("a", 1, lambda _: None)
    slots.leave("b", 1, lambda _: None)
    decided = slots.releases
    async with asyncio.timeout(30):
        while slots.leaving == 2:
            await asyncio.sleep(0)
        await slots.released(decided)
        assert slots.leaving == 1
        await settled(slots)
        await slots.released(slots.releases)  # and nobody is left to wait for


@given(st.lists(st.integers(1, 4)), st.integers(-3, 20))
def test_what_stays_behind_covers_every_slot_that_still_runs(leaving: list[int], busy: int) -> None:
    count = releasable(leaving, busy)
    assert sum(leaving[count:]) >= min(busy, sum(leaving))
    if count < len(leaving):
        assert sum(leaving[count + 1 :]) < busy  # and no more than that
