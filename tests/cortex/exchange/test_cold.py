"""Requests for a model that is not there: their place and time, in every dialect, and refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Any

import pytest
from tests.cortex.exchange.rig import Gateway, answers, error_of, fleet, request
from tests.cortex.fake_node import FakeNode, model
from tests.relay.rig import Raw, client, until

pytestmark = pytest.mark.anyio

COLD = "org/cold"
MODELS = f'[[models]]\nid = "{COLD}"\nharness = "llamacpp"\n'
QUICK = "[gateway]\ncommit_ms = 50\n"
KEYS = """
[[entitlements.keys]]
key = "sk-user"
account_id = "user"
may_load = false
"""


@asynccontextmanager
async def asleep(config: str = QUICK) -> AsyncIterator[tuple[Gateway, FakeNode]]:
    """A gateway over a node that takes as long to load as the test likes."""
    async with fleet(answers, config=config, models=MODELS) as (gateway, [node]):
        node.finish_loads = False
        yield gateway, node


def wake(node: FakeNode) -> None:
    """The load has ended."""
    node.put(model(COLD))


async def lines_of(raw: Raw, count: int) -> list[bytes]:
    """The first chunks of a streamed answer."""
    async with asyncio.timeout(30):
        return [await raw.chunk() for _ in range(count)]


async def test_a_stream_that_waits_for_its_model_sees_its_place_and_time_in_comments() -> None:
    async with asleep() as (gateway, node), client(gateway.port) as raw:
        raw.send(request({"model": COLD, "stream": True}))
        await raw.head()
        (first,) = await lines_of(raw, 1)
        assert first.startswith(b": helexa {")
        said = json.loads(first.removeprefix(b": helexa "))
        assert said["position"] == 1
        while said.get("eta_s", inf) > 3.0:  # until it has heard what the node says
            (next_one,) = await lines_of(raw, 1)
            said = json.loads(next_one.removeprefix(b": helexa "))
        wake(node)
        async with asyncio.timeout(30):
            while b"data: [DONE]" not in await raw.chunk():
                pass


async def test_a_messages_stream_sees_it_before_its_pings() -> None:
    async with asleep() as (gateway, node), client(gateway.port) as raw:
        body = {
            "model": COLD,
            "stream": True,
            "max_tokens": 8,
            "messages": [{"role": "user", "content": "hi"}],
        }
        raw.send(request(body, path="/v1/messages"))
        await raw.head()
        (first,) = await lines_of(raw, 1)
        assert first.startswith(b": helexa {")
        assert b"event: message_start" in first
        assert first.endswith(b'event: ping\ndata: {"type":"ping"}\n\n')
        wake(node)
        async with asyncio.timeout(30):
            while b"message_stop" not in await raw.chunk():
                pass


async def test_everybody_in_line_has_a_place_and_there_is_one_load() -> None:
    async with asleep() as (gateway, node):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(gateway.ask({"model": COLD})) for _ in range(4)]
            residency = gateway.rooms.residency
            await until(lambda: len(residency.room) == 4)
            (line,) = residency.room.lines.values()
            now = asyncio.get_running_loop().time()
            assert [w.standing(now).position for w in line.waiters] == [1, 2, 3, 4]
            assert gateway.metric("cortex_model_waiting", model=COLD) == 4
            await until(lambda: COLD in node.models)
            wake(node)
        assert [a.result().status for a in asked] == [200] * 4
        assert gateway.metric("cortex_model_waiting", model=COLD) == 0
        assert node.calls("/models/load") == 1
        assert not residency.room


async def test_a_plain_request_whose_deadline_cannot_be_met_is_refused_at_once() -> None:
    async with asleep() as (gateway, node):
        first = asyncio.create_task(gateway.ask({"model": COLD}))
        await until(lambda: COLD in node.models)
        node.put(model(COLD, "loading", progress=0.5, eta_s=300.0))
        await until(lambda: gateway.rooms.placer.progress(COLD) == (0.5, 300.0))
        # An answer is waited for no longer than thirty seconds.
        got = await gateway.ask({"model": COLD}, x_helexa_deadline_ms="200000")
        error = error_of(got)
        assert (got.status, error["code"], error["position"]) == (503, "model_loading", 2)
        assert (error["progress"], error["eta_s"] > 200) == (0.5, True)
        wake(node)
        assert (await first).status == 200


async def test_a_key_that_may_use_but_not_load_rides_along_with_one_that_may() -> None:
    async with asleep(QUICK + KEYS) as (gateway, node):
        user = {"authorization": "Bearer sk-user"}
        refused = await gateway.ask({"model": COLD}, **user)
        assert (refused.status, error_of(refused)["code"]) == (403, "forbidden")
        assert not node.calls("/models/load")
        causing = asyncio.create_task(gateway.ask({"model": COLD}))
        await until(lambda: COLD in node.models)
        riding = asyncio.create_task(gateway.ask({"model": COLD}, **user))
        await until(lambda: len(gateway.rooms.residency.room) == 2)
        wake(node)
        assert [(await causing).status, (await riding).status] == [200, 200]


async def test_a_crowd_is_let_in_as_the_place_has_room_and_nobody_overtakes() -> None:
    async with asleep() as (gateway, node):
        node.loads[COLD] = {"max_in_flight": 2, "max_queue_depth": 2}
        seats = {"id": COLD, **node.loads[COLD]}
        inside = most = 0
        order: list[str] = []

        async def slowly(turn: Any) -> None:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            order.append(turn.body["user"])
            await asyncio.sleep(0.02)
            inside -= 1
            await answers(turn)

        node.chat = slowly
        asked = []
        for number in range(12):
            asked.append(asyncio.create_task(gateway.ask({"model": COLD, "user": f"{number:02}"})))
            await until(lambda: len(gateway.rooms.residency.room) == len(asked))
        await until(lambda: COLD in node.models)
        node.push("admission", models=[seats])  # a poll would tell them, but perhaps too late
        wake(node)
        assert [(await each).status for each in asked] == [200] * 12
        assert most <= 3  # two seats, and half of the queue
        # Those who are let in together may reach the node in any order.
        assert all(int(number) < place + 3 for place, number in enumerate(order))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_meets_an_unload_waits_for_the_model_instead_of_failing(
    stream: bool,
) -> None:
    async with asleep() as (gateway, node):
        node.finish_loads = True
        node.put(model(COLD))

        async def just_unloaded(turn: Any) -> None:
            if len(node.turns) == 1:
                node.models.pop(COLD, None)
                node.push("model", model={"id": COLD, "status": "unloaded"})
                turn.plain({"error": {"message": "Not here.", "code": "model_not_found"}}, 404)
            else:
                await answers(turn)

        node.chat = just_unloaded
        await until(lambda: gateway.rooms.placer.now(COLD) is not None)
        got = await gateway.ask({"model": COLD, "stream": stream})
        assert got.status == 200
        assert (len(node.turns), node.calls("/models/load")) == (2, 1)


async def test_a_quant_that_is_not_there_is_a_404_with_the_nodes_words_and_no_second_load() -> None:
    said = {"error": {"message": "There is no Q4_0; take Q8_0.", "code": "model_not_found"}}
    async with fleet(answers, config=QUICK, models=MODELS) as (gateway, [node]):
        node.refuse_loads = [(404, said)]
        for body in ({}, {"stream": True}):
            got = await gateway.ask({"model": COLD, **body})
            error = error_of(got)
            assert (got.status, error["code"], error["param"]) == (404, "model_not_found", "model")
            assert "take Q8_0" in error["message"]
            assert b"retry-after" not in got.headers
        assert node.calls("/models/load") == 1


async def test_who_waits_behind_a_load_that_hangs_is_told_and_cancelling_it_lets_them_go_on() -> (
    None
):
    other = "org/other"
    both = MODELS + f'[[models]]\nid = "{other}"\nharness = "llamacpp"\n'
    async with fleet(answers, config=QUICK, models=both) as (gateway, [node]):
        node.finish_loads = False
        async with client(gateway.port) as first, client(gateway.port) as second:
            first.send(request({"model": COLD, "stream": True}))
            await until(lambda: node.calls("/models/load") == 1)
            second.send(request({"model": other, "stream": True}))
            await second.head()
            said: dict[str, Any] = {}
            while "reason" not in said:
                (line,) = await lines_of(second, 1)
                said = json.loads(line.removeprefix(b": helexa "))
            assert said["reason"].startswith("another model is being loaded there first, for ")
            assert COLD not in said["reason"]  # what others ask for is nobody's business
            waiting = (await gateway.get("/admin/fleet"))["waiting"]
            (behind,) = [w["behind"] for w in waiting if w["model"] == other]
            assert (behind["model"], behind["node"]) == (COLD, "n0")
            order = json.dumps({"model": COLD, "node": "n0"}).encode()
            assert (await gateway.ask(order, path="/admin/unload")).status == 200
            await until(lambda: node.calls("/models/load") == 2)
            node.put(model(other))
            async with asyncio.timeout(30):
                while b"data: [DONE]" not in await second.chunk():
                    pass
