"""The one task behind residency, over a real fleet of nodes that do as they are told."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from helexa.core.errors import InsufficientVram, Overloaded, ServiceUnavailable
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.node import Pace
from helexa.cortex.profiles import Profile, ProfileFile, Profiles
from helexa.cortex.residency import waiting
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.world import Rules
from helexa.cortex.routing.leases import LeaseTable

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio

PACE = Pace(poll=0.05, poll_with_events=0.05, timeout=0.5, retry=0.01, retry_longest=0.02)
RULES = Rules(min_residency_s=0.0, max_wait_s=10.0)


@asynccontextmanager
async def residing(
    *nodes: FakeNode, models: tuple[Profile, ...], rules: Rules = RULES, pace: Pace = PACE
) -> AsyncIterator[Residency]:
    fleet = Fleet(now=time.time, rng=random.Random(1), pace=pace)
    for index, node in enumerate(nodes):
        fleet.add(f"n{index}", node.url, HttpNode(node.url, Trust("gw")))
    clock = asyncio.get_running_loop().time
    file = ProfileFile(None, Profiles(models))
    residency = Residency(fleet, file, LeaseTable(), rules, clock)
    running = [asyncio.create_task(fleet.run()), asyncio.create_task(residency.run())]
    try:
        async with asyncio.timeout(30):
            await fleet.wait_until(lambda f: all(n.discovery and n.events for n in f.nodes))
        yield residency
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


def profile(name: str, **more: Any) -> Profile:
    return Profile(name, "llamacpp", **more)


def calls(node: FakeNode, path: str) -> list[str]:
    return [body["model_id"] for _, asked, _, body in node.log if asked == path]


async def until(truth: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not truth():
            await asyncio.sleep(0.01)


async def test_pinned_and_flagged_models_are_loaded_at_the_start_and_others_are_not(
    fake_node: Starter,
) -> None:
    models = (
        profile("pinned", pinned_on=("n0",)),
        profile("flagged", prewarm=True, quant="Q4_0", source="hf"),
        profile("unflagged", pinned_on=("n0",), prewarm=False),
        profile("plain"),
    )
    async with fake_node() as node, residing(node, models=models) as residency:
        await until(lambda: set(node.models) == {"pinned", "flagged"})
        await until(lambda: not residency.wishes)
        node.models.pop("flagged")
        node.push("model", model={"id": "flagged", "status": "unloaded"})
        await asyncio.sleep(0.3)
        (body,) = [b for _, path, _, b in node.log if path == "/models/load" and "quant" in b]
        assert body["quant"] == "Q4_0"  # dropping it would load full precision
        assert body["source"] == "hf"
        assert sorted(calls(node, "/models/load")) == ["flagged", "pinned"]  # an unload stands


async def test_prewarming_evicts_nobody(fake_node: Starter, model: Model) -> None:
    models = (profile("here"), profile("warm", prewarm=True, vram_mb=23_000))
    there = model("here", vram_used_mb=20_000)
    async with fake_node(there) as node, residing(node, models=models) as residency:
        node.free_mb = 4_000
        await until(lambda: residency.wishes["warm"].error)
        assert not calls(node, "/models/unload")


async def test_what_is_kept_warm_outlives_the_idle_time_and_others_do_not(
    fake_node: Starter, model: Model
) -> None:
    models = (profile("warm", prewarm=True), profile("idle"))
    rules = Rules(min_residency_s=0.0, idle_ttl_s=0.1)
    entries = (model("warm"), model("idle"), model("by-hand"))
    async with fake_node(*entries) as node, residing(node, models=models, rules=rules):
        await until(lambda: "idle" not in node.models)
        assert set(node.models) == {"warm", "by-hand"}  # nobody could load that one again


@pytest.mark.parametrize("servable", [True, False])
async def test_a_victim_that_is_busy_by_the_nodes_own_word_stays_servable_or_not(
    servable: bool, fake_node: Starter, model: Model
) -> None:
    models = (profile("used", vram_mb=20_000), profile("new", vram_mb=20_000))
    async with fake_node(model("used", vram_used_mb=20_000, servable={"ok": servable})) as node:
        node.free_mb = 4_000
        rules = Rules(min_residency_s=0.0, max_wait_s=4.0)  # a turn is at most half of it
        async with residing(node, models=models, rules=rules) as residency:
            node.loads["used"] = {"in_flight": 1, "max_in_flight": 4}  # not on the event stream
            waiter = residency.join("new", asyncio.get_running_loop().time() + 60)
            await asyncio.sleep(0.5)
            assert not calls(node, "/models/unload")
            node.loads["used"] = {"in_flight": 0, "max_in_flight": 4}
            node.free_mb = 24_000
            await asyncio.wait_for(waiter.turn(), 30)
            waiter.leave()
            assert calls(node, "/models/unload") == ["used"]
            assert residency.scheduler.evictions == 1


async def test_a_node_that_refuses_with_figures_is_believed(
    fake_node: Starter, model: Model
) -> None:
    figures = {"needed_mb": 9_000, "usable_mb": 1_000, "free_mb": 2_000, "device": 0}
    error = {"message": "Needs 9 GB.", "code": "insufficient_vram", **figures}
    models = (profile("vital", residency_priority=1000), profile("new"))
    async with fake_node(model("vital", vram_used_mb=20_000)) as node:
        node.free_mb = 2_000
        node.refuse_loads = [(503, {"error": error})]
        async with residing(node, models=models) as residency:
            for _ in range(2):
                with pytest.raises(InsufficientVram, match="Needs 9 GB") as caught:
                    await residency.load_now("new")
                assert caught.value.extras["needed_mb"] == 9_000
            assert calls(node, "/models/load") == ["new"]
            assert not residency.room


async def test_a_load_that_was_for_nobody_in_the_end_may_be_evicted_again(
    fake_node: Starter,
) -> None:
    models = (profile("one", vram_mb=20_000), profile("two", vram_mb=20_000))
    async with fake_node() as node, residing(node, models=models) as residency:
        await residency.load_now("one")  # an administrator's: no request is served by it
        node.models["one"]["vram_used_mb"] = 20_000
        node.free_mb = 4_000
        waiter = residency.join("two", asyncio.get_running_loop().time() + 60)
        await until(lambda: calls(node, "/models/unload") == ["one"])
        node.free_mb = 24_000
        await asyncio.wait_for(waiter.turn(), 30)
        waiter.leave()


async def test_a_gateway_that_knows_no_node_refuses_instead_of_waiting(fake_node: Starter) -> None:
    async with fake_node() as node, residing(node, models=(profile("one"),)) as residency:
        await node.stop()
        with pytest.raises(ServiceUnavailable):
            await residency.load_now("one")


async def test_a_load_that_ends_while_the_network_is_cut_is_seen_when_it_is_back(
    fake_node: Starter, model: Model
) -> None:
    slow = Pace(poll=0.05, poll_with_events=0.05, timeout=0.5, retry=0.4, retry_longest=0.4)
    async with fake_node() as node:
        node.finish_loads = False
        async with residing(node, models=(profile("one"),), pace=slow) as residency:
            waiter = residency.join("one", asyncio.get_running_loop().time() + 60)
            await until(lambda: "one" in node.models)
            await node.stop()
            node.models["one"] = model("one")
            node.epoch += 1  # nothing of what happened is told: the next look has to see it
            await node.start()
            await asyncio.wait_for(waiter.turn(), 30)
            waiter.leave()
            assert calls(node, "/models/load") == ["one"]


async def test_too_many_that_wait_are_refused_and_leave_no_trace(
    fake_node: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST", 3)
    async with fake_node() as node:
        node.finish_loads = False
        async with residing(node, models=(profile("one"),)) as residency:
            waiters = [residency.join("one", 1e9) for _ in range(3)]
            with pytest.raises(Overloaded):
                residency.join("one", 1e9)
            for waiter in waiters:
                waiter.leave()
                waiter.leave()
            assert len(residency.room) == 0
            await until(lambda: not residency.room.lines)


async def test_what_a_node_taught_is_forgotten_when_it_leaves_for_good(fake_node: Starter) -> None:
    async with fake_node() as node, residing(node, models=(profile("one"),)) as residency:
        await residency.load_now("one")
        assert [(lesson.node, lesson.model) for lesson in residency.learned.lessons()] == [
            ("n0", "one")
        ]
        await residency._fleet.remove("n0")
        await until(lambda: not residency.learned.lessons())
