"""A coroutine on its caller's stack: when it runs, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from helexa.relay.errand import Errand, Signal, in_task

pytestmark = pytest.mark.anyio


class Log(list[str]):
    """What happened, in order."""

    async def waits(self, signal: Signal | asyncio.Future[Any]) -> None:
        try:
            self.append("begun")
            await signal
            self.append("woken")
        except asyncio.CancelledError:
            self.append("cancelled")
            raise
        finally:
            self.append("ended")


async def test_it_runs_at_once_up_to_its_first_wait_and_on_where_the_signal_fires() -> None:
    log, signal = Log(), Signal()
    errand = Errand(log.waits(signal))
    assert (log, errand.done) == (["begun"], False)
    signal.set_result(None)
    assert log == ["begun", "woken", "ended"]
    assert errand.done
    assert signal.done()


async def test_a_signal_that_has_fired_is_not_waited_for() -> None:
    log, signal = Log(), Signal()
    signal.set_result(None)
    assert Errand(log.waits(signal)).done
    assert log == ["begun", "woken", "ended"]


async def test_a_signal_may_carry_an_exception() -> None:
    signal = Signal()
    caught: list[BaseException] = []

    async def run() -> None:
        try:
            await signal
        except OSError as error:
            caught.append(error)

    errand = Errand(run())
    signal.set_exception(OSError("lost"))
    assert errand.done
    assert [str(error) for error in caught] == ["lost"]


async def test_cancelled_at_a_signal_it_ends_at_once_and_a_late_signal_wakes_nobody() -> None:
    log, signal = Log(), Signal()
    errand = Errand(log.waits(signal))
    errand.cancel()
    assert log == ["begun", "cancelled", "ended"]
    assert errand.done
    errand.cancel()
    signal.set_result(None)
    assert log == ["begun", "cancelled", "ended"]


async def test_it_waits_for_futures_and_tasks_as_a_task_would() -> None:
    log = Log()
    future = asyncio.get_running_loop().create_future()
    errand = Errand(log.waits(future))
    future.set_result(None)
    assert (log, errand.done) == (["begun"], False)  # the loop wakes it, not the future
    await asyncio.sleep(0)
    assert log == ["begun", "woken", "ended"]

    async def naps() -> None:
        await asyncio.sleep(0)
        await in_task(asyncio.sleep(0.001))
        log.append("rested")

    errand = Errand(naps())
    async with asyncio.timeout(2):
        while not errand.done:
            await asyncio.sleep(0.001)
    assert log[-1] == "rested"


async def test_cancelled_at_a_future_the_future_is_cancelled_with_it() -> None:
    log = Log()
    future = asyncio.get_running_loop().create_future()
    errand = Errand(log.waits(future))
    errand.cancel()
    assert future.cancelled()
    await asyncio.sleep(0)
    assert errand.done
    assert log == ["begun", "cancelled", "ended"]


async def test_cancelled_in_a_task_it_started_the_task_ends_first() -> None:
    log = Log()
    forever = asyncio.Event()

    async def inner() -> None:
        try:
            await forever.wait()
        finally:
            log.append("inner")

    async def outer() -> None:
        try:
            await in_task(inner())
        finally:
            log.append("outer")

    errand = Errand(outer())
    await asyncio.sleep(0)
    errand.cancel()
    async with asyncio.timeout(2):
        while not errand.done:
            await asyncio.sleep(0)
    assert log == ["inner", "outer"]


async def test_cancelled_while_its_result_was_on_the_way_it_ends_at_its_next_wait() -> None:
    log, signal = Log(), Signal()
    future = asyncio.get_running_loop().create_future()

    async def run() -> None:
        await future
        log.append("got it")
        await log.waits(signal)

    errand = Errand(run())
    future.set_result(None)
    errand.cancel()
    await asyncio.sleep(0)
    assert log == ["got it", "begun", "cancelled", "ended"]
    assert errand.done


async def test_cancelled_from_inside_it_ends_at_its_next_wait() -> None:
    log, signal = Log(), Signal()
    held: list[Errand] = []
    first = Signal()

    async def run() -> None:
        await first
        held[0].cancel()
        log.append("still here")
        await log.waits(signal)

    held.append(Errand(run()))
    first.set_result(None)
    assert log == ["still here", "begun", "cancelled", "ended"]
    assert held[0].done


async def test_cancelled_at_a_bare_yield_it_ends_at_the_next_turn() -> None:
    log = Log()

    async def run() -> None:
        try:
            await asyncio.sleep(0)
            log.append("ran on")
        finally:
            log.append("ended")

    errand = Errand(run())
    errand.cancel()
    await asyncio.sleep(0)
    assert log == ["ended"]
    assert errand.done


async def test_what_it_raises_is_reported_and_reaches_nobody() -> None:
    loop = asyncio.get_running_loop()
    reported: list[dict[str, Any]] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: reported.append(context))
    try:
        signal = Signal()

        async def run() -> None:
            await signal
            raise ValueError("a bug")

        errand = Errand(run())
        signal.set_result(None)
    finally:
        loop.set_exception_handler(before)
    assert errand.done
    assert [str(context["exception"]) for context in reported] == ["a bug"]


async def test_cancelling_may_be_refused_by_cleaning_up_and_nothing_hangs() -> None:
    log, signal = Log(), Signal()

    async def run() -> None:
        try:
            await signal
        except asyncio.CancelledError:
            log.append("swallowed")

    errand = Errand(run())
    errand.cancel()
    assert errand.done
    assert log == ["swallowed"]


async def test_in_task_runs_in_place_when_there_is_a_task() -> None:
    async def who() -> object:
        return asyncio.current_task()

    assert await in_task(who()) is asyncio.current_task()
    found: list[object] = []

    async def run() -> None:
        found.append(asyncio.current_task())
        found.append(await in_task(who()))

    # The loop's own callbacks run outside of any task.
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def begin() -> None:
        Errand(run())
        loop.call_later(0.01, done.set)

    loop.call_soon(begin)
    await done.wait()
    assert found[0] is None
    assert found[1] is not None
