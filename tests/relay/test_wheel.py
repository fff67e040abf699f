"""Deadlines are never early, at most two ticks late, and cost nothing once they are over."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.relay.wheel import Wheel

TICK = 0.05


@dataclass
class FakeTimer:
    loop: FakeLoop
    when: float
    callback: Callable[[], None]

    def cancel(self) -> None:
        self.loop.timers.remove(self)


class FakeLoop:
    """Time that moves when told; timers ring when they are due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[FakeTimer] = []
        self.soon: list[Callable[[], None]] = []
        self.errors: list[dict[str, Any]] = []
        self.callbacks = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        self.timers.append(FakeTimer(self, when, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def iterate(self) -> None:
        ready, self.soon = self.soon, []
        for callback in ready:
            self.callbacks += 1
            callback()

    def run(self, until: float) -> None:
        while True:
            while self.soon:
                self.iterate()
            if not self.timers:
                break
            self.timers.sort(key=lambda t: t.when)
            if self.timers[0].when > until:
                break
            timer = self.timers.pop(0)
            self.now = timer.when
            self.callbacks += 1
            timer.callback()
        self.now = until


def made() -> tuple[FakeLoop, Wheel]:
    loop = FakeLoop()
    return loop, Wheel(cast(asyncio.AbstractEventLoop, loop), TICK)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(-1, 5)), min_size=1, max_size=40))
def test_an_entry_is_never_early_and_at_most_two_ticks_late(
    entries: list[tuple[float, float]],
) -> None:
    loop, wheel = made()
    asked: list[tuple[float, float]] = []

    def entry(due: float) -> Callable[[float], None]:
        return lambda now: asked.append((due, now))

    start = loop.now
    for at, after in sorted(entries):
        loop.run(start + at)
        due = loop.now + after
        wheel.at(due, entry(max(due, loop.now)))
    loop.run(start + 20)
    assert len(asked) == len(entries)
    for due, now in asked:
        assert due <= now <= due + 2 * TICK + 1e-6
    assert len(wheel) == 0
    assert not loop.timers  # an empty wheel does not turn


def test_what_was_due_in_the_past_is_asked_at_the_next_turn() -> None:
    loop, wheel = made()
    asked: list[float] = []
    wheel.at(loop.now + 10, lambda _: None)
    loop.run(loop.now + 1)
    wheel.at(loop.now - 5, asked.append)
    loop.run(loop.now + 0.11)
    assert len(asked) == 1


def test_an_entry_is_asked_again_when_it_says_and_forgotten_when_it_says_none() -> None:
    loop, wheel = made()
    start = loop.now
    asked: list[float] = []

    def entry(now: float) -> float | None:
        asked.append(now - start)
        return now + 1 if len(asked) < 3 else None

    wheel.at(start + 1, entry)
    loop.run(start + 10)
    assert [round(t) for t in asked] == [1, 2, 3]
    assert len(wheel) == 0


def test_a_wheel_with_nothing_due_sleeps() -> None:
    loop, wheel = made()
    asked: list[float] = []
    wheel.at(loop.now + 60, asked.append)
    loop.run(loop.now + 30)
    assert loop.callbacks == 0
    wheel.at(loop.now + 1, asked.append)  # sooner than what it sleeps for
    loop.run(loop.now + 40)
    assert len(asked) == loop.callbacks == 2


def test_what_was_due_in_the_past_puts_nothing_else_off() -> None:
    loop, wheel = made()
    asked: list[float] = []
    wheel.at(loop.now, asked.append)
    loop.run(loop.now + 0.04)
    wheel.at(loop.now - 5, asked.append)
    loop.run(loop.now + 0.03)
    assert len(asked) == 2


def test_a_full_slot_is_worked_off_in_batches() -> None:
    loop, wheel = made()
    asked: list[int] = []
    for _ in range(1000):
        wheel.at(loop.now + 0.01, lambda _: asked.append(loop.callbacks))
    loop.run(loop.now + 0.2)
    assert len(asked) == 1000
    assert max(asked.count(c) for c in asked) <= 400


def test_a_bad_entry_stops_no_other_deadline() -> None:
    loop, wheel = made()
    asked: list[float] = []

    def bad(now: float) -> None:
        raise ZeroDivisionError

    wheel.at(loop.now + 0.1, bad)
    wheel.at(loop.now + 0.1, asked.append)
    wheel.at(loop.now + 0.5, asked.append)
    loop.run(loop.now + 1)
    assert len(asked) == 2
    assert isinstance(loop.errors[0]["exception"], ZeroDivisionError)


def test_a_watched_object_is_not_kept_alive_by_its_deadline() -> None:
    loop, wheel = made()
    asked: list[str] = []

    class Thing:
        def __init__(self, name: str) -> None:
            self.name = name

        def watch(self, now: float) -> float | None:
            asked.append(self.name)
            return now + 1

    kept, dropped = Thing("kept"), Thing("dropped")
    wheel.watch(loop.now + 1, kept)
    wheel.watch(loop.now + 1, dropped)
    gc.disable()
    try:
        del dropped
        loop.run(loop.now + 2.5)
    finally:
        gc.enable()
    assert asked == ["kept", "kept"]
    assert len(wheel) == 1
