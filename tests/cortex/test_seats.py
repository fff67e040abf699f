"""Requests per minute and open requests, per key."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.core.errors import RateLimitExceeded
from helexa.core.principal import Principal
from helexa.cortex.seats import KeySeats, RequestRoom, Seat


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_seat_comes_back_once_however_often_it_is_released() -> None:
    seats = KeySeats(Clock())
    key = Principal("a", "a", max_concurrent=2)
    first, second = seats.take(key), seats.take(key)
    with pytest.raises(RateLimitExceeded, match="2 requests open"):
        seats.take(key)
    first.release()
    first.release()
    assert seats.open(key) == 1
    seats.take(key)
    second.release()
    assert seats.open(key) == 1


def test_a_minutes_worth_may_come_at_once_and_no_more_within_any_minute() -> None:
    clock = Clock()
    seats = KeySeats(clock)
    key = Principal("a", "a", requests_per_minute=6)
    for _ in range(3):
        seats.take(key).release()
    clock.now += 20
    for _ in range(3):
        seats.take(key).release()
    with pytest.raises(RateLimitExceeded) as caught:
        seats.take(key)
    assert caught.value.retry_after_s == 40
    clock.now += 40
    for _ in range(3):
        seats.take(key)
    with pytest.raises(RateLimitExceeded) as caught:
        seats.take(key)
    assert caught.value.retry_after_s == 20


def test_what_is_left_of_a_minute_is_told_as_the_headers_want_it() -> None:
    clock = Clock()
    seats = KeySeats(clock)
    key = Principal("a", "a", requests_per_minute=3)
    assert seats.room(Principal("b", "b")) is None
    assert seats.room(key) == RequestRoom(3, 3, 0.0)
    seats.take(key)
    clock.now += 10
    seats.take(key)
    assert seats.room(key) == RequestRoom(3, 1, 60.0)
    clock.now += 50
    assert seats.room(key) == RequestRoom(3, 2, 10.0)


def test_a_limit_that_is_changed_counts_what_came_before() -> None:
    clock = Clock()
    seats = KeySeats(clock)
    for _ in range(4):
        seats.take(Principal("a", "a", requests_per_minute=4))
        clock.now += 1
    fewer = Principal("a", "a", requests_per_minute=2)
    with pytest.raises(RateLimitExceeded) as caught:
        seats.take(fewer)
    assert caught.value.retry_after_s == 58  # when the third and the fourth are the last two
    clock.now += 58
    seats.take(fewer)
    more = Principal("a", "a", requests_per_minute=5)
    assert seats.room(more) == RequestRoom(5, 3, 60.0)


def test_an_unlimited_key_leaves_no_trace() -> None:
    seats = KeySeats(Clock())
    key = Principal("a", "a")
    seats.take(key).release()
    assert seats.open(key) == 0
    assert not seats._states


class Limits(RuleBasedStateMachine):
    """A key that sends as it likes, against the rule in its plainest form."""

    rate, most = 5, 3

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.seats = KeySeats(self.clock)
        self.key = Principal("a", "a", requests_per_minute=self.rate, max_concurrent=self.most)
        self.taken: list[Seat] = []
        self.let_in: list[float] = []

    def counted(self, at: float) -> int:
        return sum(0 <= at - t < 60 for t in self.let_in)

    @rule()
    def ask(self) -> None:
        now = self.clock.now
        full = len(self.taken) >= self.most
        late = self.counted(now) >= self.rate
        if not full and not late:
            self.taken.append(self.seats.take(self.key))
            self.let_in.append(now)
            return
        with pytest.raises(RateLimitExceeded) as caught:
            self.seats.take(self.key)
        wait = caught.value.retry_after_s
        assert wait is not None
        if not full:
            # The truth: not a moment earlier, and then indeed.
            assert self.counted(now + wait - 0.002) >= self.rate
            assert self.counted(now + wait + 1e-6) < self.rate

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        seat = self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1)))
        seat.release()
        seat.release()

    @rule(seconds=st.one_of(st.integers(0, 130).map(lambda n: n / 2), st.just(60.0)))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def never_more_than_allowed(self) -> None:
        assert self.seats.open(self.key) == len(self.taken) <= self.most
        assert all(self.counted(t) <= self.rate for t in self.let_in)
        room = self.seats.room(self.key)
        assert room is not None
        assert room.remaining == self.rate - self.counted(self.clock.now)


TestLimits = Limits.TestCase
TestLimits.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
