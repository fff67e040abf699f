"""A grant is never overshot, never lowered, and waits at its edge only so long."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helexa.neuron.grants import Grant, GrantGate


def test_take_stops_at_the_grant_to_the_token() -> None:
    gate = GrantGate(100)
    assert gate.take(99) == 99
    assert gate.take(5) == 1
    assert gate.take(1) == 0
    assert (gate.used, gate.left) == (100, 0)


def test_a_caller_without_a_grant_is_unlimited_and_never_low() -> None:
    gate = GrantGate(None)
    assert gate.take(10**9) == 10**9
    assert not gate.low()
    assert not gate.raise_to(5)


def test_low_fires_once_per_grant_when_half_a_slice_is_left() -> None:
    gate = GrantGate(1000, low_water=256)
    gate.take(743)
    assert not gate.low()
    gate.take(1)
    assert gate.low()
    assert not gate.low()
    gate.raise_to(1512)
    assert not gate.low()
    gate.take(512)
    assert gate.low()


def test_what_is_calm_neither_becomes_low_nor_meets_the_edge() -> None:
    gate = GrantGate(1000, low_water=256)
    assert gate.calm == 743
    gate.take(743)
    assert gate.calm == 0
    assert not gate.low()
    gate.take(1)
    assert gate.low()
    assert gate.calm == gate.left == 256
    assert GrantGate(None).calm is None


def test_a_lower_or_repeated_grant_changes_nothing() -> None:
    gate = GrantGate(100)
    assert not gate.raise_to(100)
    assert not gate.raise_to(50)
    assert gate.raise_to(101)
    assert gate.granted == 101


@given(st.lists(st.tuples(st.sampled_from(["take", "raise"]), st.integers(0, 2000)), max_size=60))
@settings(max_examples=100, deadline=None)
def test_what_was_allowed_adds_up_to_what_was_used(steps: list[tuple[str, int]]) -> None:
    gate, total = GrantGate(512), 0
    for kind, n in steps:
        if kind == "take":
            total += gate.take(n)
        else:
            gate.raise_to(n)
    assert total == gate.used


class GateMachine(RuleBasedStateMachine):
    """Any order of takes and raises: used ≤ granted, granted never falls."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = GrantGate(512)
        self.highest = 512
        self.lows = 0
        self.levels = 1

    @rule(n=st.integers(0, 700))
    def take(self, n: int) -> None:
        before = self.gate.left or 0
        assert self.gate.take(n) == min(n, before)
        self.lows += self.gate.low()

    @rule(n=st.integers(0, 5000))
    def raise_to(self, n: int) -> None:
        grew = self.gate.raise_to(n)
        assert grew == (n > self.highest)
        self.highest = max(self.highest, n)
        self.levels += grew

    @invariant()
    def never_overshot_and_never_lowered(self) -> None:
        assert self.gate.granted == self.highest
        assert 0 <= self.gate.used <= self.highest
        assert self.lows <= self.levels


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


@pytest.mark.anyio
async def test_a_raise_wakes_the_request_at_its_edge() -> None:
    grant = Grant(GrantGate(10))
    grant.gate.take(10)
    waiting = asyncio.create_task(grant.room_for(5, wait_s=5.0))
    await asyncio.sleep(0)
    grant.raise_to(12)
    await asyncio.sleep(0)
    assert not waiting.done()
    grant.raise_to(15)
    assert await waiting


@pytest.mark.anyio
async def test_the_edge_gives_up_after_its_wait() -> None:
    grant = Grant(GrantGate(10))
    grant.gate.take(10)
    assert not await grant.room_for(1, wait_s=0.01)


@pytest.mark.anyio
async def test_a_gateway_that_says_nothing_is_waited_for_and_its_no_is_taken() -> None:
    grant = Grant(GrantGate(10))
    grant.gate.take(10)
    waiting = asyncio.create_task(grant.room_for(1, wait_s=0.01, patient_s=60.0))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    grant.raise_to(9)  # an older word
    await asyncio.sleep(0.1)
    assert not waiting.done()
    grant.raise_to(10)
    assert not await asyncio.wait_for(waiting, 30)
    late = asyncio.create_task(grant.room_for(1, wait_s=30.0, patient_s=60.0))
    await asyncio.sleep(0)
    grant.raise_to(10)  # what it says to an earlier question does not end it
    await asyncio.sleep(0)
    grant.raise_to(11)
    assert await late


@pytest.mark.anyio
async def test_all_who_wait_at_the_edge_of_one_grant_hear_a_no() -> None:
    grant = Grant(GrantGate(10))
    grant.gate.take(10)
    waiting = [asyncio.create_task(grant.room_for(1, wait_s=0.01, patient_s=60.0)) for _ in "ab"]
    await asyncio.sleep(0)
    grant.raise_to(10)
    assert await asyncio.wait_for(asyncio.gather(*waiting), 30) == [False, False]


@pytest.mark.anyio
async def test_a_raise_that_is_not_enough_is_all_there_is() -> None:
    grant = Grant(GrantGate(10))
    waiting = asyncio.create_task(grant.room_for(30, wait_s=0.01, patient_s=60.0))
    await asyncio.sleep(0)
    grant.raise_to(20)
    assert not await asyncio.wait_for(waiting, 30)
