"""From a model's name to a node, on a real fleet that loads, fails and recovers."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from helexa.core.errors import (
    Forbidden,
    InsufficientVram,
    ModelLoading,
    ModelNotFound,
    ServiceUnavailable,
)
from helexa.core.principal import ANONYMOUS, Principal
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.node import Pace
from helexa.cortex.profiles import Profile, ProfileFile, Profiles
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.world import Rules
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio

PACE = Pace(poll=0.05, poll_with_events=0.05, timeout=0.5, retry=0.01, retry_longest=0.02)
CATALOGUE = Profiles(
    (Profile("cold", "llamacpp", quant="Q4_0", source="hf", min_devices=1),), {"alias": "cold"}
)
NOBODY: frozenset[str] = frozenset()


@asynccontextmanager
async def placing(*nodes: FakeNode, profiles: Profiles = CATALOGUE) -> AsyncIterator[FleetPlacer]:
    fleet = Fleet(now=time.time, rng=random.Random(1), pace=PACE)
    for index, node in enumerate(nodes):
        fleet.add(f"n{index}", node.url, HttpNode(node.url, Trust("gw")))
    file, leases = ProfileFile(None, profiles), LeaseTable()
    rules = Rules(max_wait_s=60)
    residency = Residency(fleet, file, leases, rules, asyncio.get_running_loop().time)
    running = [asyncio.create_task(fleet.run()), asyncio.create_task(residency.run())]
    async with asyncio.timeout(30):
        await fleet.wait_until(lambda f: all(n.discovery or n.strikes >= 3 for n in f.nodes))
    try:
        yield FleetPlacer(file, fleet, residency, leases, max_wait_s=60)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_requests_spread_over_nodes_by_open_work(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as one, fake_node(model("m")) as two, placing(one, two) as p:
        nodes = Counter()  # type: ignore[var-annotated]
        leases = []
        for _ in range(10):
            placed = p.now("m", NOBODY)
            assert placed is not None
            nodes[placed.node] += 1
            leases.append(p.lease(placed, "m"))
        assert nodes == {"n0": 5, "n1": 5}
        for lease in leases:
            lease.release()
        assert p.leases.open() == 0
        placed = p.now("m", {"n0"})
        assert placed is not None
        assert placed.node == "n1"
        assert p.now("m", {"n0", "n1"}) is None


async def test_a_report_makes_a_choice_look_anew_at_the_place_it_is_about(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as one, fake_node(model("m")) as two, placing(one, two) as p:
        assert p.now("m", NOBODY, Ask(seed=1)) is not None
        field = p._views["m"].field
        p._fleet_seen = None  # as after any report
        assert p.now("m", NOBODY, Ask(seed=2)) is not None
        assert p._views["m"].field is not field
        assert p._views["m"].field.stale_at == field.stale_at > 0


async def test_a_key_may_use_its_models_by_any_of_their_names(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("cold"), model("other")) as node, placing(node) as placer:
        key = Principal("a", "a", models=("alias",))
        placer.check(placer.resolve("alias"), key)
        placer.check("cold", key)
        with pytest.raises(Forbidden):
            placer.check("other", key)
        with pytest.raises(ModelNotFound):
            placer.check("nothing", ANONYMOUS)


async def test_a_cold_model_is_loaded_once_for_everyone_who_waits(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node() as node, placing(node) as placer:
        node.finish_loads = False
        placer.check("cold", ANONYMOUS)
        assert placer.now("cold", NOBODY) is None
        waiting = [
            asyncio.create_task(placer.later("cold", ANONYMOUS, NOBODY, None)) for _ in range(8)
        ]
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
        assert placer.progress("cold") == (0.5, 3.0)
        waiting[0].cancel()
        node.put(model("cold"))
        placed = await asyncio.gather(*waiting[1:])
        assert {(p.node, p.cold) for p in placed} == {("n0", True)}
        assert node.calls("/models/load") == 1
        (body,) = [b for _, path, _, b in node.log if path == "/models/load"]
        assert body == {
            "model_id": "cold",
            "harness": "llamacpp",
            "quant": "Q4_0",
            "source": "hf",
        }


async def test_a_key_that_may_not_load_is_told_so(fake_node: Starter, model: Model) -> None:
    async with fake_node() as node, placing(node) as placer:
        key = Principal("a", "a", may_load=False)
        with pytest.raises(Forbidden, match="may not cause a load"):
            placer.check("cold", key)
        with pytest.raises(Forbidden):
            await placer.later("cold", key, NOBODY, None)
        assert node.calls("/models/load") == 0


async def test_a_load_that_one_node_refuses_goes_to_the_next(fake_node: Starter) -> None:
    full = {"error": {"message": "Needs 9 GB.", "code": "insufficient_vram", "retry_after_s": 7}}
    async with fake_node() as one, fake_node() as two, placing(one, two) as placer:
        one.refuse_loads = [(503, full)]
        placed = await placer.later("cold", ANONYMOUS, NOBODY, None)
        assert placed.node == "n1"


async def test_a_load_that_fails_everywhere_is_refused_and_not_retried_at_once(
    fake_node: Starter,
) -> None:
    full = {"error": {"message": "Needs 9 GB.", "code": "insufficient_vram", "retry_after_s": 7}}
    async with fake_node() as node, placing(node) as placer:
        node.refuse_loads = [(503, full)]
        for _ in range(3):
            with pytest.raises(InsufficientVram, match="Needs 9 GB") as caught:
                await placer.later("cold", ANONYMOUS, NOBODY, None)
            assert caught.value.retry_after_s
        assert node.calls("/models/load") == 1


NO_QUANT = (404, {"error": {"message": "There is no Q4_0; take Q8_0.", "code": "model_not_found",
                           "param": "quant"}})  # fmt: skip


async def test_a_model_that_its_files_do_not_allow_is_refused_as_what_it_is(
    fake_node: Starter,
) -> None:
    async with fake_node() as one, fake_node() as two, placing(one, two) as placer:
        one.refuse_loads, two.refuse_loads = [NO_QUANT], [NO_QUANT]
        for _ in range(3):
            with pytest.raises(ModelNotFound, match=r"will not load 'cold': .* take Q8_0") as found:
                await placer.later("cold", ANONYMOUS, NOBODY, None)
            assert (found.value.param, found.value.retry_after_s) == ("model", None)
        assert [one.calls("/models/load"), two.calls("/models/load")] == [1, 1]


async def test_such_a_refusal_passes_while_a_node_is_away_that_may_have_it(
    fake_node: Starter,
) -> None:
    async with fake_node() as one, fake_node() as two, placing(one, two) as placer:
        await two.stop()
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: not f.nodes[1].reachable)
        one.refuse_loads = [NO_QUANT]
        with pytest.raises(ServiceUnavailable, match="take Q8_0") as found:
            await placer.later("cold", ANONYMOUS, NOBODY, None)
        assert found.value.retry_after_s


async def test_a_node_that_only_one_refuses_for_good_serves_from_another(
    fake_node: Starter,
) -> None:
    async with fake_node() as one, fake_node() as two, placing(one, two) as placer:
        one.refuse_loads = [NO_QUANT]
        assert (await placer.later("cold", ANONYMOUS, NOBODY, None)).node == "n1"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"message": "Wrong secret.", "code": "invalid_api_key"}}),
        (404, {"detail": "Not Found"}),
        (404, {}),
    ],
)
async def test_what_a_node_has_against_us_is_not_the_clients_fault(
    fake_node: Starter, status: int, body: dict[str, Any]
) -> None:
    async with fake_node() as node, placing(node) as placer:
        node.refuse_loads = [(status, body)]
        with pytest.raises(ServiceUnavailable, match="will not load 'cold'"):
            await placer.later("cold", ANONYMOUS, NOBODY, None)


async def test_a_load_that_breaks_midway_says_why(fake_node: Starter, model: Model) -> None:
    async with fake_node() as node, placing(node) as placer:
        node.finish_loads = False
        waiting = asyncio.create_task(placer.later("cold", ANONYMOUS, NOBODY, None))
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
        node.put(model("cold", "failed", servable={"ok": False, "detail": "file truncated"}))
        with pytest.raises(ServiceUnavailable, match="file truncated"):
            await waiting


async def test_a_node_that_dies_while_loading_ends_the_wait(fake_node: Starter) -> None:
    async with fake_node() as node, placing(node) as placer:
        node.finish_loads = False
        waiting = asyncio.create_task(placer.later("cold", ANONYMOUS, NOBODY, None))
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
        await node.stop()
        with pytest.raises(ServiceUnavailable):
            await waiting


async def test_a_deadline_ends_the_wait_with_what_is_known(fake_node: Starter) -> None:
    async with fake_node() as node, placing(node) as placer:
        node.finish_loads = False
        first = asyncio.create_task(placer.later("cold", ANONYMOUS, NOBODY, None))
        async with asyncio.timeout(30):
            await placer._fleet.wait_until(lambda f: "cold" in f.nodes[0].models)
        deadline = asyncio.get_running_loop().time() + 0.2
        with pytest.raises(ModelLoading) as caught:
            await placer.later("cold", ANONYMOUS, NOBODY, deadline)
        assert caught.value.retry_after_s == 3.0
        assert caught.value.extras == {"progress": 0.5, "position": 2, "eta_s": 3.0}
        first.cancel()


async def test_names_that_nobody_serves_leave_no_trace(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as node, placing(node) as placer:
        for index in range(100):
            with pytest.raises(ModelNotFound):
                placer.check(f"nothing{index}", ANONYMOUS)
        placer.check("m", ANONYMOUS)
        assert set(placer._views) <= {"m"}


async def test_a_place_that_is_about_to_go_takes_nothing_new_and_is_no_404(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("cold")) as node, placing(node) as placer:
        assert placer.find("cold", ANONYMOUS)[1] is not None
        residency = placer._residency
        residency._closing = {"cold": frozenset({"n0"})}
        residency.version += 1
        assert placer.find("cold", ANONYMOUS) == ("cold", None)
        placer.check("cold", Principal("a", "a", may_load=False))
        residency._closing = {}
        residency.version += 1
        assert placer.find("cold", ANONYMOUS)[1] is not None
