"""When an engine counts as stuck."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from helexa.neuron.watchdog import Watchdog, deadline_s, least_s


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dog(clock: Clock) -> Watchdog:
    return Watchdog(clock, 512, lambda: 100.0)


def test_the_deadline_is_four_chunks_and_at_least_a_minute() -> None:
    assert deadline_s(512, 800) == 60
    assert deadline_s(512, 10) == pytest.approx(204.8)
    assert deadline_s(512, 0) > 1e5


def test_an_idle_engine_is_never_stuck(dog: Watchdog, clock: Clock) -> None:
    clock.now += 1e6
    assert not dog.expired()


def test_silence_of_everything_that_runs_is_stuck(dog: Watchdog, clock: Clock) -> None:
    dog.begin("a")
    clock.now += 59
    assert not dog.expired()
    clock.now += 1
    assert dog.expired()


def test_progress_of_one_request_counts_for_all(dog: Watchdog, clock: Clock) -> None:
    dog.begin("a")
    dog.begin("b")
    clock.now += 50
    dog.moved = True
    assert not dog.expired()
    clock.now += 50
    assert not dog.expired()
    clock.now += 10
    assert dog.expired()


def test_the_first_request_after_a_pause_starts_a_fresh_deadline(
    dog: Watchdog, clock: Clock
) -> None:
    dog.begin("a")
    dog.end("a")
    clock.now += 1000
    dog.begin("b")
    assert not dog.expired()


def test_a_request_that_leaves_is_progress_for_those_that_stay(dog: Watchdog, clock: Clock) -> None:
    dog.begin("a")
    dog.begin("b")
    clock.now += 59
    dog.end("a")
    assert not dog.expired()
    clock.now += 60
    dog.end("a")
    assert dog.expired()


def test_a_long_batch_of_which_nothing_is_heard_is_given_its_time(
    dog: Watchdog, clock: Clock
) -> None:
    dog.begin("chat")
    dog.begin("vectors", 10_000)
    clock.now += 399
    assert not dog.expired()
    clock.now += 1
    assert dog.expired()
    dog.end("vectors")
    assert not dog.expired()
    clock.now += 60
    assert dog.expired()  # what is left says something all the time


def test_a_restart_forgets_what_ran(dog: Watchdog, clock: Clock) -> None:
    dog.begin("a")
    clock.now += 100
    dog.restarted()
    assert not dog.expired()


def test_a_picture_that_a_cpu_encodes_is_given_its_time() -> None:
    assert least_s(60, encodes_on_cpu=True) >= 600
    assert least_s(900, encodes_on_cpu=True) == 900
    assert least_s(5, encodes_on_cpu=False) == 5
