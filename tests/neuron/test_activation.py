"""Boot-time models load in the background and are retried until they work."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from helexa.core.errors import HelexaError, ModelNotFound, UpstreamConnectionError
from helexa.core.fleet import LoadRequest
from helexa.neuron.activation import Activator

pytestmark = pytest.mark.anyio


@dataclass
class Loads:
    """A load that fails as often as it is told to."""

    failures: dict[str, int] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    error: HelexaError = field(default_factory=lambda: UpstreamConnectionError("no network"))

    async def __call__(self, spec: LoadRequest) -> None:
        self.order.append(spec.model_id)
        if self.failures.get(spec.model_id, 0) > 0:
            self.failures[spec.model_id] -= 1
            raise self.error


def activator(loads: Loads, *models: str) -> Activator:
    return Activator(
        [LoadRequest(model, quant="q8_0") for model in models],
        loads,
        pauses=(0.001, 0.004),
        clock=asyncio.get_running_loop().time,
    )


async def test_models_are_loaded_in_order() -> None:
    loads = Loads()
    work = activator(loads, "a", "b")
    assert work.snapshot().state == "pre_warming"
    assert work.snapshot().pending == ["a", "b"]
    await work.run()
    assert loads.order == ["a", "b"]
    assert (work.snapshot().state, work.snapshot().completed) == ("ready", ["a", "b"])


async def test_a_model_that_fails_does_not_stop_the_others_and_is_tried_again() -> None:
    loads = Loads(failures={"a": 6})
    work = activator(loads, "a", "b")
    running = asyncio.create_task(work.run())
    while "b" not in work.snapshot().completed:
        await asyncio.sleep(0)
    snapshot = work.snapshot()
    assert snapshot.state == "ready"
    assert [(f.model_id, f.error) for f in snapshot.failed] == [("a", "no network")]
    async with asyncio.timeout(30):
        await running
    assert loads.order.count("a") == 7
    assert work.snapshot().completed == ["b", "a"]
    assert work.snapshot().failed == []


async def test_pauses_between_attempts_double_up_to_the_longest() -> None:
    now = asyncio.get_running_loop().time
    tried: list[float] = []

    async def load(_spec: LoadRequest) -> None:
        tried.append(now())
        if len(tried) < 5:
            raise UpstreamConnectionError("no network")

    work = Activator([LoadRequest("a")], load, pauses=(0.02, 0.08), clock=now)
    async with asyncio.timeout(30):
        await work.run()
    waited = [later - before for before, later in pairwise(tried)]
    # A timer of this loop counts whole milliseconds.
    assert all(w > least - 0.002 for w, least in zip(waited, (0.02, 0.04, 0.08, 0.08), strict=True))


async def test_the_model_in_progress_is_named() -> None:
    door = asyncio.Event()

    async def load(spec: LoadRequest) -> None:
        await door.wait()

    work = Activator([LoadRequest("a")], load, pauses=(1, 1), clock=asyncio.get_running_loop().time)
    running = asyncio.create_task(work.run())
    while work.snapshot().in_progress is None:
        await asyncio.sleep(0)
    assert (work.snapshot().in_progress, work.snapshot().pending) == ("a", [])
    assert work.snapshot().state == "pre_warming"
    door.set()
    await running


async def test_what_only_a_person_can_change_is_said_and_not_tried_again() -> None:
    loads = Loads(failures={"a": 99}, error=ModelNotFound("no such quant"))
    work = activator(loads, "a", "b")
    async with asyncio.timeout(30):
        await work.run()
    assert loads.order == ["a", "b"]
    snapshot = work.snapshot()
    assert (snapshot.state, snapshot.completed) == ("ready", ["b"])
    assert [(f.model_id, f.error) for f in snapshot.failed] == [("a", "no such quant")]


async def test_a_model_that_takes_long_lets_the_next_one_begin() -> None:
    door = asyncio.Event()
    order: list[str] = []

    async def load(spec: LoadRequest) -> None:
        order.append(spec.model_id)
        if spec.model_id == "far":
            await door.wait()

    work = Activator(
        [LoadRequest("far"), LoadRequest("near")],
        load,
        pauses=(1, 1),
        clock=asyncio.get_running_loop().time,
        head_start_s=0.01,
    )
    running = asyncio.create_task(work.run())
    async with asyncio.timeout(30):
        while work.snapshot().completed != ["near"]:
            await asyncio.sleep(0.001)
    assert (work.snapshot().in_progress, work.snapshot().state) == ("far", "pre_warming")
    door.set()
    async with asyncio.timeout(30):
        await running
    assert order == ["far", "near"]
    assert work.snapshot().completed == ["near", "far"]


async def test_stopping_ends_every_attempt() -> None:
    ended: list[str] = []

    async def load(spec: LoadRequest) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(spec.model_id)

    work = Activator(
        [LoadRequest("a"), LoadRequest("b")],
        load,
        pauses=(1, 1),
        clock=asyncio.get_running_loop().time,
        head_start_s=0.001,
    )
    running = asyncio.create_task(work.run())
    async with asyncio.timeout(30):
        while len(work._running) < 2:
            await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.wait([running])
    assert sorted(ended) == ["a", "b"]
