"""The collector's arrangement: young collections are short, old ones wait for a quiet moment."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from helexa.relay.process import collect_when_quiet, freeze_heap, raise_descriptor_limit


class Cycle:
    def __init__(self) -> None:
        self.me = self


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    freeze_heap()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def old_cycle() -> weakref.ref[Cycle]:
    cycle = Cycle()
    gc.collect()  # it is of the old generation now
    return weakref.ref(cycle)


async def collected(
    cycle: weakref.ref[Cycle], busy: int, longest: float, within_s: float = 30.0
) -> bool:
    task = asyncio.create_task(collect_when_quiet(lambda: busy, 0.005, longest))
    try:
        async with asyncio.timeout(within_s):
            while cycle() is not None:
                await asyncio.sleep(0.005)
    except TimeoutError:
        return False
    finally:
        task.cancel()
    return True


@pytest.mark.usefixtures("collector")
def test_old_garbage_is_collected_while_nothing_runs() -> None:
    assert asyncio.run(collected(old_cycle(), busy=0, longest=60.0))


@pytest.mark.usefixtures("collector")
def test_a_busy_process_is_not_made_to_stand_still_for_it() -> None:
    assert not asyncio.run(collected(old_cycle(), busy=1, longest=60.0, within_s=0.3))


@pytest.mark.usefixtures("collector")
def test_a_process_that_is_always_busy_is_collected_in_the_end() -> None:
    assert asyncio.run(collected(old_cycle(), busy=1, longest=0.05))


@pytest.mark.usefixtures("collector")
def test_young_collections_are_small() -> None:
    assert gc.get_threshold()[0] <= 5_000
    assert gc.get_freeze_count() > 1_000


def test_the_descriptor_limit_is_raised_to_what_the_system_allows() -> None:
    assert raise_descriptor_limit() >= 1024
