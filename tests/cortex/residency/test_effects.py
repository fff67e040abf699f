"""Loads on a real node, as the gateway waits for them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from tests.cortex.fake_node import model

from helexa.core.errors import ModelLoading
from helexa.core.fleet import LoadRequest
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.node import Pace
from helexa.cortex.profiles import Profile
from helexa.cortex.residency.effects import InUse, NodeEffects, load_request

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

pytestmark = pytest.mark.anyio

PACE = Pace(poll=0.05, poll_with_events=0.05, timeout=5.0, retry=0.01, retry_longest=0.02)
COLD = Profile("cold", "llamacpp")
PERIOD_S = 0.1
FILES = {"bytes": 5, "bytes_total": 10, "bytes_per_s": 1.0, "file": "m.gguf"}


@asynccontextmanager
async def effects_on(node: FakeNode) -> AsyncIterator[NodeEffects]:
    fleet = Fleet(now=time.time, rng=random.Random(1), pace=PACE)
    fleet.add("n", node.url, HttpNode(node.url, Trust("gw")))
    running = asyncio.create_task(fleet.run())
    try:
        async with asyncio.timeout(30):
            await fleet.wait_until(lambda f: all(n.discovery for n in f.nodes))
        yield NodeEffects(fleet, lambda *_: 0, max_load_s=PERIOD_S)
    finally:
        running.cancel()
        await asyncio.wait([running])


Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]


async def test_a_load_whose_files_are_on_their_way_is_waited_for(fake_node: Starter) -> None:
    async with fake_node() as node, effects_on(node) as effects:
        node.refuse_loads = [(202, {"status": "loading"})]
        node.put(model("cold", "loading", progress=0.3, download=FILES))
        async with asyncio.timeout(30):
            await effects._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
        loading = asyncio.create_task(effects.load(COLD, "n"))
        _, waiting = await asyncio.wait([loading], timeout=5 * PERIOD_S)
        assert waiting, "several times as long as any other load may take"
        node.put(model("cold"))
        async with asyncio.timeout(30):
            await loading


async def test_a_load_that_does_not_move_is_given_up(fake_node: Starter) -> None:
    async with fake_node() as node, effects_on(node) as effects:
        node.finish_loads = False
        async with asyncio.timeout(30):
            with pytest.raises(ModelLoading, match="still loading on 'n'"):
                await effects.load(COLD, "n")


def test_a_load_carries_all_that_decides_what_is_loaded() -> None:
    """Without its quant another file is loaded, and nothing fits afterwards."""
    told: dict[str, Any] = {
        "harness": "llamacpp",
        "quant": "Q4_K_M",
        "source": "hub",
        "engine": {"slots": 2},
    }
    profile = Profile("org/m", min_devices=2, **told)
    assert load_request(profile) == LoadRequest("org/m", tensor_parallel=2, **told)
    assert load_request(Profile("org/m")) == LoadRequest("org/m")


@pytest.mark.parametrize("busy", [{"in_flight": 1}, {"queue_depth": 1}])
async def test_a_model_that_somebody_uses_or_waits_for_stays(
    fake_node: Starter, busy: dict[str, int]
) -> None:
    async with fake_node() as node, effects_on(node) as effects:
        node.put(model("m"))
        node.loads["m"] = busy
        with pytest.raises(InUse):
            await effects.unload("n", "m", forced=False)
        assert "m" in node.models
