"""A place's work: what is open, what is still to be prefilled, how fast it is."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.cortex.routing.breaker import CLOSED, failed
from helexa.cortex.routing.work import SHUT, Lease, Work


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_prefills_queue_up_and_are_done_one_after_the_other() -> None:
    work, clock = Work(), Clock()
    first, second = Lease(work, clock, 2.0), Lease(work, clock, 1.0)
    assert work.ready_at == 103.0
    clock.now = 102.0
    first.started()
    assert work.ready_at == 103.0
    clock.now = 103.0
    second.started()
    assert (work.waiting, work.ready_at, work.open) == (0, 0.0, 2)


def test_a_first_token_that_comes_late_delays_whoever_is_behind_it_once() -> None:
    work, clock = Work(), Clock()
    leases = [Lease(work, clock, 1.0) for _ in range(3)]
    clock.now = 101.5  # half a second late
    leases[0].started()
    assert work.ready_at == 103.5
    clock.now = 102.5  # as late as the first: nothing new
    leases[1].started()
    assert work.ready_at == 103.5


def test_a_client_that_leaves_before_its_turn_takes_its_prefill_along() -> None:
    work, clock = Work(), Clock()
    leases = [Lease(work, clock, 1.0) for _ in range(3)]
    leases[1].release()
    assert work.ready_at == 102.0
    leases[0].release()
    leases[2].release()
    assert (work.open, work.waiting, work.ready_at) == (0, 0, 0.0)


def test_rates_are_learned_from_prefills_that_say_something() -> None:
    work = Work()
    work.learn_rate(5, 10.0)
    work.learn_rate(1000, 0.0)
    assert not work.measured
    work.learn_rate(1000, 0.5)
    assert work.per_token == pytest.approx(1 / 2000)
    for _ in range(60):
        work.learn_rate(1000, 1.0)
    assert work.per_token == pytest.approx(1 / 1000, rel=0.01)


def test_of_requests_for_a_place_that_was_shut_one_tries_it_and_the_others_stay_away() -> None:
    work, clock = Work(), Clock()
    for _ in range(2):
        work.judge(failed(work.breaker, "connection", 99.0))
    assert work.stand(99.9) is SHUT
    assert work.stand(clock.now) is not SHUT
    Lease(work, clock)
    assert work.stand(clock.now) is SHUT
    work.judge(CLOSED)  # it was answered
    Lease(work, clock)
    assert work.stand(clock.now) is not SHUT


def test_how_long_a_seat_is_held_is_learned() -> None:
    work, clock = Work(), Clock()
    for _ in range(40):
        lease = Lease(work, clock)
        clock.now += 8.0
        lease.release()
    assert work.service_s == pytest.approx(8.0, rel=0.01)


class LeaseModel(RuleBasedStateMachine):
    """Whatever order things happen in, counters agree with the leases that are held."""

    def __init__(self) -> None:
        super().__init__()
        self.work, self.clock = Work(), Clock()
        self.leases: list[Lease] = []
        self.begun: set[int] = set()
        self.taken = 0

    @rule(prefill=st.floats(0.0, 5.0))
    def a_request_is_sent(self, prefill: float) -> None:
        self.leases.append(Lease(self.work, self.clock, prefill))
        self.taken += 1

    @rule(seconds=st.floats(0.0, 10.0))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def a_first_token_comes(self, data: st.DataObject) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        lease.started()
        self.begun.add(id(lease))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), times=st.integers(1, 3))
    def a_request_ends(self, data: st.DataObject, times: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        for _ in range(times):
            lease.release()
        lease.started()  # an event that comes too late
        self.leases.remove(lease)
        self.begun.discard(id(lease))

    @invariant()
    def counters_are_the_leases(self) -> None:
        work = self.work
        assert work.open == len(self.leases)
        assert work.waiting == len(self.leases) - len(self.begun)
        assert work.taken == self.taken

    @invariant()
    def how_it_stands_is_no_old_news(self) -> None:
        work, now = self.work, self.clock.now
        known, work.standing = work.standing, None
        assert work.stand(now) == known or known is None

    @invariant()
    def nothing_is_predicted_where_nothing_waits(self) -> None:
        if not self.work.waiting:
            assert self.work.ready_at == 0.0


TestLeases = LeaseModel.TestCase
TestLeases.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
