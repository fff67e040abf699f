"""What goes on beside the requests: what counts as news, and that it goes on."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from helexa.core.fleet import DeviceReading
from helexa.core.logging import get_logger
from helexa.neuron.housekeeping import go_on, moved, tell_faults


@pytest.mark.parametrize(
    ("before", "now", "news"),
    [
        ([], [DeviceReading(0)], True),
        ([DeviceReading(0, 10, 100)], [DeviceReading(0, 12, 98)], False),
        ([DeviceReading(0, 10, 1000)], [DeviceReading(0, 900, 110)], True),
        ([DeviceReading(0, utilization_pct=5.0)], [DeviceReading(0, utilization_pct=90.0)], True),
        ([DeviceReading(0, utilization_pct=None)], [DeviceReading(0, utilization_pct=3.0)], False),
        ([DeviceReading(0)], [DeviceReading(0), DeviceReading(1)], True),
    ],
)
def test_only_what_a_gateway_would_decide_on_is_news(
    before: list[DeviceReading], now: list[DeviceReading], news: bool
) -> None:
    assert moved(before, now) is news


@pytest.mark.anyio
@pytest.mark.parametrize("trouble", [OSError("disk full"), KeyError("a bug")])
async def test_a_chore_that_fails_is_begun_anew(trouble: Exception) -> None:
    begun: list[int] = []
    done = asyncio.Event()

    async def chore() -> None:
        begun.append(1)
        if len(begun) < 3:
            raise trouble
        done.set()

    await asyncio.wait_for(go_on(chore, "watchdog", get_logger(), again_s=0.0), 30)
    assert (len(begun), done.is_set()) == (3, True)


@pytest.mark.anyio
async def test_a_driver_that_stops_answering_is_logged_once_and_so_is_its_return() -> None:
    reasons = iter([None, None, "it is lost", "it is lost", None, None])
    said: list[str] = []
    log: Any = SimpleNamespace(warning=said.append)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await tell_faults(lambda: next(reasons), log, every_s=0.0)
    assert said == ["it is lost", "the GPUs of this node can be used again"]
