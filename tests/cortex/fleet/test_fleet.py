"""One task per node: events are news, polls are the truth, three strikes make a node dead."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from helexa.core.fleet import Discovery, RequestRecord
from helexa.cortex.fleet.client import Answer, EventStream, HttpNode, Trust
from helexa.cortex.fleet.events import GrantLow
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.node import Pace
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot

if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode

Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]
Model = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.anyio

FAST = Pace(
    poll=0.02,
    poll_with_events=0.02,
    timeout=0.2,
    retry=0.01,
    retry_longest=0.02,
    no_events=0.05,
    silence=1.0,
)
SELDOM = Pace(poll=60, poll_with_events=60, timeout=0.2, retry=0.01, retry_longest=0.02)
TRUST = Trust("gw", "s3cret")


def make(pace: Pace = FAST, **hooks: Any) -> Fleet:
    return Fleet(now=time.time, rng=random.Random(1), pace=pace, **hooks)


@asynccontextmanager
async def watching(fleet: Fleet, *nodes: FakeNode) -> AsyncIterator[Fleet]:
    for index, node in enumerate(nodes):
        fleet.add(f"n{index}", node.url, HttpNode(node.url, TRUST))
    task = asyncio.create_task(fleet.run())
    try:
        yield fleet
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(
    fleet: Fleet, happened: Callable[[NodeSnapshot], object], index: int = 0
) -> NodeSnapshot:
    async with asyncio.timeout(30):
        snapshot = await fleet.wait_until(lambda f: bool(happened(f.nodes[index])))
    return snapshot.nodes[index]


async def test_a_node_is_known_at_once_with_all_it_says(fake_node: Starter, model: Model) -> None:
    limit = {"context": 100, "input": 60, "output": 40}
    async with fake_node(model("a/b", limit=limit, future_field=[1])) as node:
        node.loads["a/b"] = {"in_flight": 3, "queue_depth": 1}
        async with watching(make(SELDOM), node) as fleet:
            assert fleet.snapshot().nodes[0].state == "unknown"
            assert not fleet.snapshot().settled
            seen = await until(fleet, lambda n: n.events and n.version and n.discovery)
            assert seen.reachable
            assert fleet.snapshot().settled
            state = seen.models["a/b"]
            assert state.ready
            assert state.entry.limit is not None
            assert state.entry.limit.input == 60
            assert (state.load.in_flight, state.load.queue_depth) == (3, 1)
            assert seen.devices[0].vram_free_mb == 20_000
            assert seen.discovery is not None
            assert seen.discovery.harnesses == ["llamacpp"]
            assert seen.epoch == 7
        assert all(h["authorization"] == "Bearer s3cret" for _, _, h, _ in node.log)
        assert all(h["x-helexa-gateway"] == "gw" for _, _, h, _ in node.log)


async def test_events_change_the_snapshot_without_a_poll(fake_node: Starter, model: Model) -> None:
    lows: list[tuple[str, GrantLow]] = []
    ends: list[tuple[str, RequestRecord]] = []
    fleet = make(
        SELDOM,
        on_grant_low=lambda n, e: lows.append((n, e)),
        on_request_end=lambda n, e: ends.append((n, e)),
    )
    async with fake_node(model("m", "loading")) as node, watching(fleet, node):
        await until(fleet, lambda n: n.events and n.discovery)
        polls = node.calls("/models")
        node.push("load_progress", id="m", progress=0.25, eta_s=9.0)
        seen = await until(fleet, lambda n: n.models["m"].entry.progress == 0.25)
        assert seen.models["m"].entry.eta_s == 9
        node.put(model("m"))
        await until(fleet, lambda n: n.models["m"].ready)
        node.push("admission", models=[{"id": "m", "in_flight": 4}, {"id": "other"}])
        await until(fleet, lambda n: n.models["m"].load.in_flight == 4)
        node.push("admission", model={"id": "m", "in_flight": 5})
        await until(fleet, lambda n: n.models["m"].load.in_flight == 5)
        node.push("device", devices=[{"index": 0, "vram_free_mb": 7}])
        await until(fleet, lambda n: n.devices[0].vram_free_mb == 7)
        record = {
            "request_id": "r",
            "attempt": 1,
            "gateway": "gw",
            "epoch": 1,
            "model": "m",
            "state": "complete",
            "prompt": 5,
        }
        node.push("request_end", **record)
        node.push("request_end", record=record)
        node.push("grant_low", request_id="r", attempt=2, granted=50, used=30)
        node.push("model", model={"id": "gone", "status": "unloaded"})
        node.put(model("other"))
        node.push("model", model={"id": "other", "status": "unloaded"})
        node.push("from_the_future", whatever=1)
        node.push("drain", draining=True)
        seen = await until(fleet, lambda n: n.draining)
        assert set(seen.models) == {"m"}
        assert lows == [("n0", GrantLow("r", 2, 50, 30))]
        assert [(n, r.prompt) for n, r in ends] == [("n0", 5), ("n0", 5)]
        assert node.calls("/models") == polls


async def test_an_event_that_cannot_be_read_asks_for_a_poll(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node() as node, watching(make(SELDOM), node) as fleet:
        await until(fleet, lambda n: n.events and n.discovery)
        node.models["m"] = model("m")
        node.push("model", nonsense=True)
        await until(fleet, lambda n: "m" in n.models)


async def test_a_node_without_events_is_polled(fake_node: Starter, model: Model) -> None:
    async with fake_node() as node:
        node.with_events = False
        async with watching(make(replace(FAST, no_events=600.0)), node) as fleet:
            await until(fleet, lambda n: n.reachable)
            node.models["m"] = model("m")
            seen = await until(fleet, lambda n: "m" in n.models)
            assert not seen.events
            node.models.clear()
            await until(fleet, lambda n: not n.models)
        asked = [path for _, path, _, _ in node.log]
        assert asked.count("/events") <= 1 < asked.count("/models"), "it has none to ask for"


async def test_one_missed_poll_is_not_death_and_three_are(fake_node: Starter, model: Model) -> None:
    strikes: list[tuple[int, bool]] = []

    def note(fleet: FleetSnapshot) -> None:
        node = fleet.nodes[0]
        if not strikes or strikes[-1][0] != node.strikes:
            strikes.append((node.strikes, node.reachable))

    async with fake_node(model("m")) as node, watching(make(on_change=note), node) as fleet:
        await until(fleet, lambda n: n.reachable)
        await node.stop()
        seen = await until(fleet, lambda n: n.strikes >= 3)
        assert strikes[-3:] == [(1, True), (2, True), (3, False)]
        assert seen.state == "unreachable"
        assert seen.error
        assert "m" in seen.models
        await node.start()
        seen = await until(fleet, lambda n: n.reachable)
        assert (seen.strikes, seen.error) == (0, None)


async def test_a_silent_node_delays_nobody(fake_node: Starter, model: Model) -> None:
    async with fake_node() as silent, fake_node(model("m")) as node:
        silent.hang = True
        async with watching(make(replace(FAST, timeout=60)), silent, node) as fleet:
            await until(fleet, lambda n: n.models, index=1)
            assert not fleet.snapshot().settled
        async with watching(make(), silent, node) as fleet:
            await until(fleet, lambda n: n.strikes >= 3)
            assert fleet.snapshot().settled


async def test_a_node_that_refuses_us_is_named_as_such(fake_node: Starter) -> None:
    async with fake_node() as node:
        node.fail = 401
        async with watching(make(), node) as fleet:
            seen = await until(fleet, lambda n: n.strikes >= 3)
            assert seen.error is not None
            assert "fleet secret" in seen.error


async def test_figures_that_cannot_be_read_do_not_make_a_node_dead(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as node:
        node.with_events = False
        node.loads["m"] = {"in_flight": "many"}
        async with watching(make(), node) as fleet:
            seen = await until(fleet, lambda n: n.reachable and n.models)
            assert seen.models["m"].load.in_flight == 0


async def test_a_node_without_events_says_in_its_health_that_it_drains(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as node:
        node.with_events = False
        async with watching(make(), node) as fleet:
            assert not (await until(fleet, lambda n: n.reachable and n.models)).draining
            node.draining = True
            await until(fleet, lambda n: n.draining)
            node.draining = False
            await until(fleet, lambda n: not n.draining)


async def test_a_broken_event_stream_resumes_where_it_was(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as node, watching(make(SELDOM), node) as fleet:
        await until(fleet, lambda n: n.events and n.discovery)
        node.push("drain", draining=False)
        polls = node.calls("/models")
        await asyncio.sleep(0)
        node.cut()
        await until(fleet, lambda n: not n.events)
        await node.listened()
        node.push("drain", draining=True)
        await until(fleet, lambda n: n.draining and n.events)
        asked = [h for _, p, h, _ in node.log if p == "/events"]
        assert "last-event-id" not in asked[0]
        assert asked[-1]["last-event-id"].startswith("7-")
        assert node.calls("/models") > polls


async def test_a_restarted_node_is_learned_anew(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as node, watching(make(SELDOM), node) as fleet:
        await until(fleet, lambda n: n.events and n.discovery)
        await node.stop()
        node.epoch, node.models, node.harnesses = 8, {"new": model("new")}, ["vllm"]
        await node.start()
        seen = await until(
            fleet, lambda n: n.epoch == 8 and n.discovery and n.discovery.harnesses == ["vllm"]
        )
        assert set(seen.models) == {"new"}


async def test_nodes_come_and_go_while_the_fleet_runs(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as node, watching(make()) as fleet:
        assert fleet.snapshot().settled
        await asyncio.sleep(0)
        fleet.add("late", node.url, HttpNode(node.url, TRUST))
        await until(fleet, lambda n: n.reachable)
        with pytest.raises(ValueError, match="late"):
            fleet.add("late", node.url, HttpNode(node.url, TRUST))
        await fleet.remove("late")
        await fleet.remove("late")
        assert fleet.snapshot().nodes == ()
        assert fleet.api("late") is None


async def test_the_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(TRUST)


class SlowNode:
    """Answers ``/models`` when told to; events are put in by hand."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.events_in: asyncio.Queue[bytes] = asyncio.Queue()

    async def get(self, path: str, timeout_s: float) -> Answer:
        if path != "/models":
            return Answer(200, b"{}")
        self.asked.set()
        return await self.answer

    async def post(self, path: str, body: object, timeout_s: float) -> Answer:
        raise NotImplementedError

    @asynccontextmanager
    async def events(self, last: str | None, silence_s: float) -> AsyncIterator[EventStream]:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                yield await self.events_in.get()

        yield EventStream(200, chunks())

    @property
    def socket(self) -> str | None:
        return None

    @property
    def multiplexed(self) -> bool:
        return False

    async def offered(self, discovery: Discovery) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def test_an_answer_that_an_event_overtook_does_not_undo_it() -> None:
    fleet, node = make(SELDOM), SlowNode()
    fleet.add("n", "http://n", node)
    node.answer.set_result(Answer(200, b"[]"))
    async with watching(fleet):
        await until(fleet, lambda n: n.version)
        node.answer = asyncio.get_running_loop().create_future()
        node.asked.clear()
        fleet.poll_now("n")
        await node.asked.wait()
        await node.events_in.put(b'data: {"type":"model","model":{"id":"m","status":"loaded"}}\n\n')
        told = await until(fleet, lambda n: "m" in n.models)
        node.answer.set_result(Answer(200, b'[{"id":"m","status":"loading"}]'))
        seen = await until(fleet, lambda n: n is not told)
        assert seen.models["m"].entry.status == "loaded"


async def test_what_a_host_is_comes_with_its_first_word_and_stands_until_it_is_told_anew(
    fake_node: Starter, model: Model
) -> None:
    patient = Pace(poll=60, poll_with_events=60, timeout=30, retry=0.01, retry_longest=0.02)
    heard: list[NodeSnapshot] = []
    fleet = make(patient, on_change=lambda f: heard.extend(f.nodes))
    async with fake_node(model("m")) as node:
        async with watching(fleet, node):
            await until(fleet, lambda n: n.events and n.version)
            await node.stop()
            node.epoch, node.harnesses = 8, ["vllm"]
            await node.start()
            await until(
                fleet, lambda n: n.epoch == 8 and n.discovery and n.discovery.harnesses == ["vllm"]
            )
        assert all(n.discovery is not None for n in heard if n.answered)


async def test_an_event_stream_that_is_resumed_in_silence_counts_as_one(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as node, watching(make(FAST), node) as fleet:
        await until(fleet, lambda n: n.events)
        node.cut()
        await until(fleet, lambda n: not n.events)
        # The node has nothing new to say, so it sends nothing.
        await until(fleet, lambda n: n.events)
        assert node.calls("/events") >= 2


async def test_an_answer_that_is_no_text_is_a_missed_poll_and_ends_nothing() -> None:
    fleet, node = make(FAST), SlowNode()
    node.answer.set_result(Answer(200, b'[{"id":"\xff"}]'))
    fleet.add("n", "http://n", node)
    async with watching(fleet):
        seen = await until(fleet, lambda n: n.error is not None)
        assert "cannot be read" in str(seen.error)
        node.answer = asyncio.get_running_loop().create_future()
        node.answer.set_result(Answer(200, b"[]"))
        await until(fleet, lambda n: n.answered)
