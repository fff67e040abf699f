"""A model whose places are all full gets one more, where memory is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cortex.residency.test_owner import calls, profile, residing, until

from helexa.cortex.fleet.snapshot import NodeSnapshot
from helexa.cortex.residency import spreading
from helexa.cortex.residency.choose import Hopeless
from helexa.cortex.residency.spreading import SETTLE_S, Busy, Debts, beyond_seats, due
from helexa.cortex.residency.world import Rules

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]

RULES = Rules(min_residency_s=0.0, max_wait_s=10.0)
FULL = {"max_in_flight": 2, "in_flight": 2, "queue_depth": 40, "max_queue_depth": 64}
EASY = {"max_in_flight": 2, "in_flight": 2, "queue_depth": 0, "max_queue_depth": 64}


def test_only_those_wait_who_find_every_place_full() -> None:
    assert beyond_seats([Busy(2, 5)]) == 3
    assert beyond_seats([Busy(2, 5), Busy(4, 1)]) == 0
    assert beyond_seats([Busy(2, 5), Busy(4, 4)]) == 3
    assert beyond_seats([Busy(2, 90), Busy(2, 0)]) == 0
    assert beyond_seats([Busy(0, 50)]) == 0  # it does not tell its seats
    assert beyond_seats([]) == 0


def test_a_queue_that_stays_pays_for_a_load_and_a_burst_does_not() -> None:
    debts = Debts()
    assert debts.note("m", 3, 0.0) == 0
    assert debts.note("m", 3, 1.0) == 3
    assert not due(debts.note("m", 3, 2.0), load_s=10.0)
    assert debts.note("m", 0, 5.0) == 3  # it is gone, and three seconds pay back as many
    assert due(debts.note("m", 4, 7.0), load_s=10.0)
    debts.paid("m", 8.0)
    assert debts.note("m", 4, 8.0 + SETTLE_S) == 0
    assert debts.note("m", 4, 9.0 + SETTLE_S) == 4


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.0, 100.0)), max_size=20))
def test_a_debt_is_never_negative_and_never_more_than_was_waited(
    looks: list[tuple[int, float]],
) -> None:
    debts, now, waited = Debts(), 0.0, 0.0
    for queued, passed in looks:
        now += passed
        waited += queued * passed
        assert 0.0 <= debts.note("m", queued, now) <= waited + 1e-6
    debts.forget(())
    assert debts.note("m", 1, now) == 0.0


def _free(node: NodeSnapshot) -> bool:
    """The gateway knows that the model has free seats there."""
    state = node.models.get("hot")
    return state is not None and state.ready and state.load.max_in_flight > 0


@pytest.mark.anyio
async def test_a_hot_model_gets_a_second_place_and_no_third_without_need(
    fake_node: Starter, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "LEAST_S", 0.2)
    monkeypatch.setattr(spreading, "SETTLE_S", 0.2)
    models = (profile("hot", vram_mb=4000), profile("calm", vram_mb=4000))
    async with (
        fake_node(model("hot"), model("calm")) as one,
        fake_node() as two,
        fake_node() as three,
    ):
        one.loads = {"hot": FULL, "calm": EASY}
        two.free_mb = three.free_mb = 12_000
        async with residing(one, two, three, models=models, rules=RULES) as residency:
            residency.learned.expects("n1", "hot", 0.2)
            residency.learned.expects("n2", "hot", 0.2)
            await until(lambda: calls(two, "/models/load") + calls(three, "/models/load"))
            for node in (two, three):
                node.loads = {name: {"max_in_flight": 2} for name in node.models}
            await until(lambda: any(_free(n) for n in residency._fleet.snapshot().nodes[1:]))
            for _ in range(3):  # what queues at the first place is nothing to a third one
                residency._ring()
                await asyncio.sleep(0.3)
            loaded = calls(two, "/models/load") + calls(three, "/models/load")
            assert loaded == ["hot"]
            assert not calls(one, "/models/load")


@pytest.mark.anyio
async def test_who_still_stands_in_line_for_a_hot_model_does_not_keep_it_from_a_second_place(
    fake_node: Starter, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "LEAST_S", 0.2)
    async with fake_node(model("hot")) as one, fake_node() as two:
        one.loads = {"hot": FULL}  # nobody in line is let go to it
        two.free_mb = 12_000
        models = (profile("hot", vram_mb=4000),)
        async with residing(one, two, models=models, rules=RULES) as residency:
            residency.learned.expects("n1", "hot", 0.2)
            waiter = residency.join("hot", residency.now() + 60)
            try:
                await until(lambda: calls(two, "/models/load"))
            finally:
                waiter.leave()


@pytest.mark.anyio
async def test_who_stands_in_line_for_a_hot_model_is_not_refused_for_want_of_a_second_place(
    fake_node: Starter, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "LEAST_S", 0.2)
    async with fake_node(model("hot")) as one, fake_node() as two:
        one.loads, two.free_mb = {"hot": FULL}, 100
        models = (profile("hot", vram_mb=4000),)
        async with residing(one, two, models=models, rules=RULES) as residency:
            residency.learned.expects("n1", "hot", 0.2)
            waiter = residency.join("hot", residency.now() + 60)
            told: list[str] = []
            hopeless = residency._wanting.hopeless

            def noted(name: str, why: Hopeless) -> None:
                told.append(name)
                hopeless(name, why)

            monkeypatch.setattr(residency._wanting, "hopeless", noted)
            await until(lambda: told)  # that there is no room for the copy
            turn = asyncio.ensure_future(waiter.turn())
            await asyncio.wait([turn], timeout=0.1)
            assert not turn.done()
            turn.cancel()
            waiter.leave()


@pytest.mark.anyio
@pytest.mark.parametrize("why", ["no more than one", "no room"])
async def test_a_copy_is_never_worth_an_eviction_and_never_beyond_the_operators_word(
    fake_node: Starter, model: Model, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    monkeypatch.setattr(spreading, "LEAST_S", 0.1)
    rules = Rules(min_residency_s=0.0, max_wait_s=10.0, max_copies=1 if why != "no room" else 0)
    models = (profile("hot", vram_mb=8000), profile("idle", vram_mb=8000))
    there = model("idle", vram_used_mb=20_000)
    async with fake_node(model("hot")) as one, fake_node(there) as two:
        one.loads = {"hot": FULL}
        two.free_mb = 4000 if why == "no room" else 20_000
        async with residing(one, two, models=models, rules=rules) as residency:
            residency.learned.expects("n1", "hot", 0.1)
            async with asyncio.timeout(30):
                for _ in range(5):  # a second each: a debt of two hundred request-seconds
                    residency._ring()
                    await asyncio.sleep(0.2)
            assert not calls(two, "/models/load")
            assert not calls(two, "/models/unload")
