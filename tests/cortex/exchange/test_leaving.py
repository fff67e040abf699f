"""Clients that leave: the node is let go at once, and what was computed is what is billed."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from tests.cortex.exchange.rig import (
    FINISH,
    MODEL,
    PLAIN,
    answers,
    delta,
    fleet,
    next_event,
    request,
    usage,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import client, descriptors, until

from helexa.cortex.app import GatewayApp
from helexa.relay.reply import Reply
from helexa.relay.request import Request

pytestmark = pytest.mark.anyio

CAPPED = """
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
hard_cap = 100000
"""
SK_A = {"authorization": "Bearer sk-a"}


class Held:
    """Computes until the gateway goes; notes when that was."""

    def __init__(self, *, stream: bool) -> None:
        self.stream = stream
        self.left_at = 0.0

    async def __call__(self, turn: Turn) -> None:
        if self.stream:
            turn.open()
            turn.send(delta("Hel"))
        await turn.left()
        self.left_at = time.monotonic()
        turn.ended("cancelled", prompt=7, output=1, discarded=2)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_node_is_dropped_at_once_and_its_record_is_billed(stream: bool) -> None:
    held = Held(stream=stream)
    async with fleet(held, config=CAPPED) as (gateway, [node]):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": stream}, **SK_A))
            if stream:
                await raw.head()
                assert await next_event(raw) == delta("Hel")
            else:
                await until(lambda: node.turns)
            assert gateway.metric("cortex_open_streams") == stream
            assert gateway.rooms.ledger.snapshot().grants
            left = time.monotonic()
        await until(lambda: held.left_at)
        assert held.left_at - left < 30  # and not by a deadline
        await gateway.settled()
        used = await gateway.get("/v1/usage", **SK_A)
        assert (used["spent_tokens"], used["open_tokens"]) == (8, 0)
        assert gateway.metric("cortex_spend_tokens_total", key="acme") == 8
        assert gateway.metric("cortex_prompt_tokens_total", model=MODEL, node="n0") == 7
        assert gateway.metric("cortex_completion_tokens_total", model=MODEL, node="n0") == 1
        assert gateway.metric("cortex_discarded_tokens_total") == 2
        assert gateway.metric("cortex_wasted_tokens_total", reason="cancelled") == 8
        assert gateway.metric("cortex_open_streams") == 0
        # A client that leaves is nobody's error.
        assert gateway.metric("cortex_request_errors_total", model=MODEL, node="n0") == 0
        (line,) = gateway.log.lines
        assert (line.outcome, line.node, line.key) == ("cancelled", "n0", "acme")
        await until(lambda: not node.records)  # acknowledged


async def test_a_client_that_leaves_while_its_model_loads_holds_nothing() -> None:
    models = '[[models]]\nid = "org/cold"\nharness = "llamacpp"\n'
    async with fleet(answers, config=CAPPED, models=models) as (gateway, [node]):
        node.finish_loads = False
        async with client(gateway.port) as raw:
            raw.send(request({"model": "org/cold"}, **SK_A))
            await until(lambda: node.calls("/models/load"))
            assert gateway.rooms.ledger.snapshot().grants
        await until(lambda: not gateway.front.app.running)
        assert gateway.rooms.settler.waiting == 0
        assert not gateway.rooms.ledger.snapshot().grants
        assert gateway.rooms.residency.loading == ("org/cold",)  # the load itself goes on
        node.put({**node.models["org/cold"], "status": "loaded"})
        assert (await gateway.ask({"model": "org/cold"}, **SK_A)).status == 200
        assert node.calls("/models/load") == 1


async def test_a_client_that_leaves_while_it_waits_for_budget_holds_nothing() -> None:
    config = CAPPED.replace("100000", "50") + "[ledger]\ngrant_wait_ms = 5000\n"
    held = Held(stream=True)
    async with fleet(held, config=config) as (gateway, [node]), client(gateway.port) as first:
        first.send(request({"stream": True}, **SK_A))
        await until(lambda: node.turns)
        async with client(gateway.port) as second:
            second.send(request({"stream": True}, **SK_A))
            await until(lambda: gateway.front.app.running == 2)
        await until(lambda: gateway.front.app.running == 1)
        assert len(node.turns) == 1
        assert gateway.rooms.settler.waiting == 0
        assert len(gateway.rooms.ledger.snapshot().grants) == 1


async def test_a_client_that_leaves_during_a_retry_is_not_followed_to_the_next_node() -> None:
    asked = asyncio.Event()

    async def refuses_late(turn: Turn) -> None:
        asked.set()
        await turn.left()
        turn.plain({"error": {"message": "No.", "code": "overloaded"}}, 503)

    async with fleet(refuses_late, answers, config="[ledger]\nlease_secs = 1\n") as (
        gateway,
        nodes,
    ):
        lease = gateway.rooms.placer.leases.take("n1", MODEL)
        async with client(gateway.port) as raw:
            raw.send(request())
            await asked.wait()
        await until(lambda: not gateway.front.app.running)
        lease.release()
        assert not nodes[1].turns


async def test_the_last_word_of_a_node_may_come_by_asking_it() -> None:
    async def silent(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        await turn.left()
        turn.node.records.append(turn.record("cancelled", 6, 1))  # and no event

    async with fleet(silent, config=CAPPED) as (gateway, _):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **SK_A))
            await raw.head()
            await next_event(raw)
        await gateway.settled()
        assert (await gateway.get("/v1/usage", **SK_A))["spent_tokens"] == 7


async def test_what_a_node_never_began_is_given_up_soon_and_costs_nothing() -> None:
    async def seatless(turn: Turn) -> None:
        await turn.left()  # dropped while it queued: no record, no event

    async with fleet(seatless, config=CAPPED) as (gateway, [node]):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **SK_A))
            await until(lambda: node.turns)
        await gateway.settled()
        assert node.calls("/requests") >= 2  # one answer may have been too early
        used = await gateway.get("/v1/usage", **SK_A)
        assert (used["spent_tokens"], used["open_tokens"]) == (0, 0)


async def test_a_request_that_still_runs_at_its_node_is_not_given_up() -> None:
    async def lingers(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        turn.node.records.append(turn.record("decode", 7, 1))
        await turn.left()
        await asyncio.sleep(0.5)
        turn.node.records.clear()
        turn.ended("cancelled", 7, 3)

    async with fleet(lingers, config=CAPPED) as (gateway, _):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **SK_A))
            await raw.head()
            await next_event(raw)
        await gateway.settled()
        assert (await gateway.get("/v1/usage", **SK_A))["spent_tokens"] == 10


async def test_a_node_that_is_gone_for_good_holds_a_key_for_one_lease_only() -> None:
    async def mute(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        await turn.left()

    config = CAPPED + "[ledger]\nlease_secs = 1\n"
    async with fleet(mute, config=config) as (gateway, [node]):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **SK_A))
            await raw.head()
            await next_event(raw)
        await node.stop()
        # It waits for its node until the lease is over; what it held goes then, or a round later.
        held = gateway.rooms.ledger.snapshot
        await until(lambda: not held().grants)
        await gateway.settled()
        used = await gateway.get("/v1/usage", **SK_A)
        assert used["open_tokens"] == 0


@pytest.mark.slow  # 200 requests that end in every way: about three seconds
async def test_after_random_cancels_every_counter_and_descriptor_is_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(5)
    came: list[Request] = []  # who resets at once, on a busy machine, was never there
    handle = GatewayApp.handle

    def counted(app: GatewayApp, asked: Request, reply: Reply) -> None:
        came.append(asked)
        handle(app, asked, reply)

    monkeypatch.setattr(GatewayApp, "handle", counted)

    async def node(turn: Turn) -> None:
        if not turn.body.get("stream"):
            await asyncio.sleep(rng.random() * 0.01)
            turn.plain(PLAIN)
            turn.ended("complete", 7, 2)
            return
        turn.open()
        for word in "abcd":
            turn.send(delta(word))
            await asyncio.sleep(rng.random() * 0.005)
        turn.send(FINISH)
        turn.send(usage(7, 4))
        turn.send(b"data: [DONE]\n\n")
        turn.close()
        turn.ended("complete", 7, 4)

    config = CAPPED + "[ledger]\nlease_secs = 2\n"
    async with fleet(node, node, config=config) as (gateway, nodes):
        await gateway.ask({"stream": True}, **SK_A)
        await gateway.settled()
        before = descriptors()

        async def one() -> None:
            async with client(gateway.port) as raw:
                raw.send(request({"stream": rng.random() < 0.7}, **SK_A))
                await asyncio.sleep(rng.random() * 0.02)
                if rng.random() < 0.5:
                    raw.reset()

        for _ in range(10):
            await asyncio.gather(*(one() for _ in range(20)))
        await until(lambda: not gateway.front.listener.connections.open)
        await gateway.settled()
        pools = [gateway.rooms.links.get(f"n{i}") for i in range(2)]
        assert all(link is not None and link.pool.busy == 0 for link in pools)
        assert gateway.front.app.streaming == 0
        assert len(gateway.log.lines) == len(came) > 1
        assert gateway.log.said == []
        await until(lambda: not any(node.records for node in nodes))
        await until(lambda: descriptors() <= before + 4)
