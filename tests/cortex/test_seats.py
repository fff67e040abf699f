"""Requests per minute and open requests, per key."""

from __future__ import annotations

import pytest

from helexa.core.errors import RateLimitExceeded
from helexa.core.principal import Principal
from helexa.cortex.seats import KeySeats


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


def test_a_minutes_worth_may_come_at_once_and_then_a_steady_rate() -> None:
    clock = Clock()
    seats = KeySeats(clock)
    key = Principal("a", "a", requests_per_minute=6)
    for _ in range(6):
        seats.take(key).release()
    with pytest.raises(RateLimitExceeded) as caught:
        seats.take(key)
    assert caught.value.retry_after_s == 10
    clock.now += 10
    seats.take(key)
    with pytest.raises(RateLimitExceeded):
        seats.take(key)
    clock.now += 1000
    for _ in range(6):
        seats.take(key)
    with pytest.raises(RateLimitExceeded):
        seats.take(key)


def test_an_unlimited_key_leaves_no_trace() -> None:
    seats = KeySeats(Clock())
    key = Principal("a", "a")
    seats.take(key).release()
    assert seats.open(key) == 0
    assert not seats._states
