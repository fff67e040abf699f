"""Attempts of which nothing was relayed: they cost nothing, whatever their node has computed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    FINISH,
    Gateway,
    answers,
    delta,
    error_of,
    fleet,
    next_event,
    refuses,
    request,
)
from tests.cortex.exchange.test_retries import dies_behind_its_head, first_goes_to
from tests.cortex.fake_node import Chat, FakeNode, Turn
from tests.relay.rig import client, until

from helexa.relay.upstream import Failure

pytestmark = pytest.mark.anyio

CAP = 10_000
CAPPED = f"""
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
hard_cap = {CAP}
"""
SK_A = {"authorization": "Bearer sk-a"}
PROMPT, CACHED, OUTPUT = 21, 4, 140
COUNTS: Any = {"prompt": PROMPT, "cached": CACHED, "output": OUTPUT}


async def dies(turn: Turn) -> None:
    """A node that is killed while it computes a plain answer."""
    turn.reset()


async def dies_with_half_a_plain_answer(turn: Turn) -> None:
    turn._writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"choi')
    await turn._writer.drain()
    turn.reset()


async def dies_within_its_first_event(turn: Turn) -> None:
    turn.open()
    turn.send(delta("Hel")[:20])
    await turn._writer.drain()
    turn.reset()


def comes_back(node: FakeNode, state: str = "node_lost") -> None:
    """Its next life has found the record of what ran."""
    node.records = [node.turns[0].record(state, **COUNTS)]


async def costs_nothing(gateway: Gateway, *nodes: FakeNode) -> None:
    """Every record is acknowledged, nothing is held, and the books agree."""
    await until(lambda: not any(node.records for node in nodes))
    await gateway.settled()
    await gateway.rooms.ledger.written()
    await until(lambda: held(gateway) == 0)
    assert gateway.metric("cortex_ledger_drift_tokens") == 0


def held(gateway: Gateway) -> int:
    used = gateway.rooms.ledger.usage(next(iter(gateway.front.app._desk.keys.principals)))
    assert used.available_tokens is not None
    assert used.spent_tokens + used.open_tokens + used.available_tokens == CAP
    return used.open_tokens


def thrown_away(gateway: Gateway) -> float:
    return gateway.metric("cortex_discarded_tokens_total")


@pytest.mark.parametrize(
    ("chat", "stream", "state"),
    [
        (dies, False, "node_lost"),
        (dies, True, "cancelled"),
        (dies_behind_its_head, False, "node_lost"),
        (dies_behind_its_head, True, "node_lost"),
        (dies_with_half_a_plain_answer, False, "complete"),  # as far as the node knows
        (dies_within_its_first_event, True, "node_lost"),
    ],
)
async def test_what_a_lost_node_has_computed_for_nobody_is_discarded(
    chat: Chat, stream: bool, state: str
) -> None:
    async with fleet(chat, config=CAPPED) as (gateway, [node]):
        got = await gateway.ask({"stream": stream}, **SK_A)
        assert (got.status, error_of(got)["code"]) == (502, "upstream_connection_error")
        comes_back(node, state)
        await costs_nothing(gateway, node)
        assert (await gateway.get("/v1/usage", **SK_A))["spent_tokens"] == 0
        assert thrown_away(gateway) == PROMPT - CACHED + OUTPUT
        reason = "failed" if state == "complete" else state
        assert gateway.metric("cortex_wasted_tokens_total", reason=reason) == 157
        shown = await gateway.get(f"/v1/requests/{got.headers[b'x-request-id'].decode()}", **SK_A)
        assert shown["discarded"]["total"] == PROMPT + OUTPUT
        assert "usage" not in shown


async def test_what_is_said_after_a_keep_alive_and_before_any_output_is_discarded_too() -> None:
    go = asyncio.Event()

    async def dies_late(turn: Turn) -> None:
        await go.wait()
        turn.reset()

    config = CAPPED + "[gateway]\ncommit_ms = 20\n"
    async with fleet(dies_late, config=config) as (gateway, [node]):
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **SK_A))
            assert (await raw.head()).status == 200
            assert await next_event(raw) == b": keep-alive\n\n"
            go.set()
            assert b'"upstream_connection_error"' in await next_event(raw)
        comes_back(node)
        await costs_nothing(gateway, node)
        assert thrown_away(gateway) == 157


async def test_a_node_that_was_too_slow_is_not_paid_for_what_it_did() -> None:
    async def slow(turn: Turn) -> None:
        await turn.left()
        turn.ended("cancelled", PROMPT, OUTPUT, cached=CACHED)

    async with fleet(slow, config=CAPPED) as (gateway, [node]):
        asking = asyncio.create_task(gateway.ask(**SK_A))
        await until(lambda: node.turns)
        (running,) = gateway.front.app.exchanges()
        assert running.attempt is not None
        running.attempt._give_up(Failure.TIMEOUT_FIRST)  # its deadline, which would be minutes
        got = await asking
        assert (got.status, error_of(got)["code"]) == (504, "upstream_timeout")
        await costs_nothing(gateway, node)
        assert thrown_away(gateway) == 157
        assert gateway.metric("cortex_wasted_tokens_total", reason="cancelled") == 157


async def test_an_answer_that_cannot_be_told_in_the_clients_words_is_not_paid_for() -> None:
    async def odd(turn: Turn) -> None:
        usage = {"prompt_tokens": PROMPT, "completion_tokens": OUTPUT}
        turn.plain({"choices": [], "usage": usage})
        turn.ended("complete", **COUNTS)

    ask = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    async with fleet(odd, config=CAPPED) as (gateway, [node]):
        got = await gateway.ask(ask, path="/v1/messages", **SK_A)
        assert (got.status, error_of(got)["code"]) == (502, "upstream_connection_error")
        await costs_nothing(gateway, node)
        assert gateway.metric("cortex_spend_tokens_total", key="acme") == 0
        assert thrown_away(gateway) == PROMPT - CACHED + OUTPUT


async def test_a_record_that_comes_before_its_connection_breaks_is_discarded_as_well() -> None:
    async def says_so_first(turn: Turn) -> None:
        turn.ended("failed", **COUNTS)
        await until(lambda: early)
        turn.reset()

    async with fleet(says_so_first, config=CAPPED) as (gateway, [node]):
        early = gateway.rooms.settler._early
        assert (await gateway.ask(**SK_A)).status == 502
        await costs_nothing(gateway, node)
        assert thrown_away(gateway) == 157


async def test_a_discarded_record_that_is_read_twice_counts_once() -> None:
    async with fleet(dies, config=CAPPED) as (gateway, [node]):
        assert (await gateway.ask(**SK_A)).status == 502
        comes_back(node)
        (record,) = node.records
        await costs_nothing(gateway, node)
        told = gateway.rooms.settler._mail.to("n0")
        await until(lambda: not told.acks)  # the answer to that has come, too
        node.push("request_end", record=record)
        node.records = [record]
        await costs_nothing(gateway, node)  # acknowledged again
        assert thrown_away(gateway) == 157


async def test_the_attempt_that_was_relayed_is_billed_and_the_other_ones_record_is_not() -> None:
    async with fleet(dies, answers, config=CAPPED) as (gateway, nodes):
        let_go = first_goes_to(gateway, "n0")
        got = await gateway.ask({"stream": True}, **SK_A)
        let_go()
        assert (got.status, got.headers[b"x-helexa-node"]) == (200, b"n1")
        comes_back(nodes[0])
        nodes[1].records = [nodes[1].turns[0].record("complete", 7, 2)]
        nodes[1].push("request_end", record=nodes[1].records[0])
        await costs_nothing(gateway, *nodes)
        assert (await gateway.get("/v1/usage", **SK_A))["spent_tokens"] == 9
        assert thrown_away(gateway) == 157
        shown = await gateway.get(f"/v1/requests/{got.headers[b'x-request-id'].decode()}", **SK_A)
        assert (shown["usage"]["total"], shown["discarded"]["total"]) == (9, PROMPT + OUTPUT)


async def test_a_refusal_whose_record_says_that_it_cost_something_is_drift() -> None:
    """Only what the gateway itself could not see is left out."""
    async with fleet(refuses(503, "overloaded"), config=CAPPED) as (gateway, [node]):
        assert (await gateway.ask(**SK_A)).status == 503
        node.push("request_end", record=node.turns[0].record("failed", **COUNTS))
        await until(lambda: gateway.rooms.settler.drift)
        assert gateway.metric("cortex_ledger_drift_tokens") == -PROMPT - OUTPUT
        assert thrown_away(gateway) == 0


async def test_what_a_client_has_a_part_of_is_billed_by_its_record() -> None:
    async def dies_midway(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        await turn._writer.drain()
        turn.reset()

    async with fleet(dies_midway, config=CAPPED) as (gateway, [node]):
        got = await gateway.ask({"stream": True}, **SK_A)
        assert delta("Hel") in got.body
        assert FINISH not in got.body
        comes_back(node)
        await costs_nothing(gateway, node)
        assert (await gateway.get("/v1/usage", **SK_A))["spent_tokens"] == PROMPT + OUTPUT
        assert thrown_away(gateway) == 0


@pytest.mark.parametrize("away", [False, True])
async def test_the_grant_is_back_at_once_though_no_record_ever_comes(away: bool) -> None:
    config = CAPPED + "[ledger]\nlease_secs = 1\n"
    async with fleet(dies, config=config) as (gateway, [node]):
        assert (await gateway.ask(**SK_A)).status == 502
        if away:
            node.fail = 503
        await gateway.settled()  # nobody waits for a record to give back what is held
        await until(lambda: held(gateway) == 0)
        await until(lambda: not gateway.rooms.settler._waiting)
        if away:
            # It comes back too late for its record to be counted, and need not keep it for that.
            comes_back(node)
            node.fail = None
            await until(lambda: not node.records)
        await until(lambda: node.calls("/requests/ack"))
        assert gateway.metric("cortex_ledger_drift_tokens") == 0
        assert thrown_away(gateway) == 0
