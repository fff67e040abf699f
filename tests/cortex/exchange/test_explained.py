"""A request's timeline is true, also where it failed, was cut, left early or tried elsewhere."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    KEYS,
    MODEL,
    PLAIN,
    Gateway,
    answers,
    delta,
    event,
    fleet,
    held,
    refuses,
    request,
    resets,
    usage,
)
from tests.cortex.fake_node import Chat, Turn
from tests.relay.rig import client, until

pytestmark = pytest.mark.anyio

AS_A = {"x_api_key": "sk-a"}
KEYED = f"[entitlements]\nrequire_auth = true\n{KEYS}"
CUT = {"helexa": {"finish": "budget"}}


async def explained(gateway: Gateway, name: str) -> Any:
    """The timeline, once the request has ended."""
    await until(lambda: not gateway.front.app.running)
    return await gateway.get(f"/v1/requests/{name}", **AS_A)


async def cuts(turn: Turn) -> None:
    """A node that ends its answers at their grant."""
    if turn.body.get("stream"):
        last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}], **CUT})
        turn.stream(delta("Hello"), last, usage(), DONE)
    else:
        turn.plain({**PLAIN, **CUT})


async def breaks(turn: Turn) -> None:
    """A node that dies in the middle of an answer; its record says what was counted."""
    turn.open()
    turn.send(delta("Hel"))
    await asyncio.sleep(0)
    turn.ended("failed", prompt=7, output=3)
    turn.reset()


@pytest.mark.parametrize("body", [{}, {"stream": True}])
async def test_an_answer_that_was_whole_says_where_and_what_it_cost(body: Any) -> None:
    async with fleet(answers, config=KEYED) as (gateway, _):
        assert (await gateway.ask(body, x_request_id="whole", **AS_A)).status == 200
        told = await explained(gateway, "whole")
        assert (told["outcome"], told["status"], told["attempts"]) == ("complete", 200, 1)
        assert (told["node"], told["usage"]["total"]) == ("n0", 9)
        assert told["ms"]["queue"] >= 12  # what the node said
        assert not told.keys() & {"tried", "cut", "error", "key_id"}
        spent = sum(
            told["ms"].get(n, 0) for n in ("check", "queue", "connect", "prefill", "decode")
        )
        assert spent <= told["ms"]["total"] + 12 + 1  # the node's queue is its own word


async def test_an_answer_that_came_whole_was_decoded_for_as_long_as_its_engine_says() -> None:
    async def computes(turn: Turn) -> None:
        await asyncio.sleep(0.2)
        turn.plain({**PLAIN, "timings": {"prompt_ms": 40.0, "predicted_n": 2,
                                         "predicted_ms": 150.0}})  # fmt: skip

    async with fleet(computes, config=KEYED) as (gateway, _):
        await gateway.ask({}, x_request_id="whole", **AS_A)
        ms = (await explained(gateway, "whole"))["ms"]
        assert ms["decode"] == 150.0
        assert ms["prefill"] == pytest.approx(ms["first_byte"] - 150.0, abs=1.0)
        assert ms["first_token"] <= ms["total"] - 150.0
        seen = gateway.metric("cortex_time_to_first_token_seconds_sum", node="n0")
        assert seen == pytest.approx(ms["first_token"] / 1000, abs=0.001)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/messages/count_tokens"])
async def test_an_answer_without_a_token_had_no_first_one(path: str) -> None:
    async def reads(turn: Turn) -> None:
        used = {"usage": {"prompt_tokens": 3, "total_tokens": 3}} if "embed" in path else {}
        turn.plain({"input_tokens": 3, **used})

    async with fleet(reads, config=KEYED) as (gateway, _):
        got = await gateway.ask({}, path=path, x_request_id="read", **AS_A)
        assert got.status == 200
        told = await explained(gateway, "read")
        assert told["ms"]["first_byte"] > 0
        assert not told["ms"].keys() & {"prefill", "decode", "first_token"}
        at = {"model": MODEL, "node": "n0"}
        assert gateway.metric("cortex_requests_total", **at) == 1
        assert gateway.metric("cortex_time_to_first_token_seconds_count", **at) == 0
        seated = path == "/v1/embeddings"
        assert gateway.metric("cortex_queue_seconds_count", **at) == seated


@pytest.mark.parametrize("body", [{}, {"stream": True}])
async def test_a_cut_answer_says_why(body: Any) -> None:
    async with fleet(cuts, config=KEYED) as (gateway, _):
        assert (await gateway.ask(body, x_request_id="cut", **AS_A)).status == 200
        told = await explained(gateway, "cut")
        assert (told["outcome"], told["cut"], told["usage"]["total"]) == ("complete", "budget", 9)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (refuses(503, "overloaded"), "overloaded"),
        (resets, "upstream_connection_error"),
        (refuses(404, "model_not_found"), "model_not_found"),
    ],
)
async def test_a_request_that_was_tried_elsewhere_says_where_and_why(bad: Chat, code: str) -> None:
    async def slowly(turn: Turn) -> None:
        await asyncio.sleep(0.2)
        await bad(turn)

    async with fleet(slowly, answers, config=KEYED) as (gateway, [first, _]):
        lease = gateway.rooms.placer.leases.take("n1", MODEL)  # it looks busy
        asking = asyncio.create_task(gateway.ask({}, x_request_id="tried", **AS_A))
        await until(lambda: first.turns)
        lease.release()
        assert (await asking).status == 200
        told = await explained(gateway, "tried")
        assert (told["outcome"], told["attempts"], told["node"]) == ("complete", 2, "n1")
        [tried] = told["tried"]
        assert (tried["node"], tried["code"]) == ("n0", code)
        assert tried["ms"] >= 190
        ms = told["ms"]
        assert ms["retries"] == tried["ms"]
        # The detour is counted once: it is none of the check, and no queue but the node's own 12.
        assert ms["check"] + ms["queue"] + ms["retries"] <= ms["total"] + 12 + 1
        assert told["usage"]["total"] == 9


async def test_a_refused_request_names_no_node() -> None:
    async with fleet(answers, config=KEYED) as (gateway, _):
        await gateway.ask({"model": "no/such"}, x_request_id="refused", **AS_A)
        told = await explained(gateway, "refused")
        assert (told["outcome"], told["status"]) == ("refused", 404)
        assert told["error"]["code"] == "model_not_found"
        assert not told.keys() & {"node", "usage", "tried", "cut"}
        assert told["attempts"] == 0


async def test_a_request_that_failed_everywhere_says_with_what() -> None:
    async with fleet(refuses(503, "overloaded"), config=KEYED) as (gateway, _):
        refused = await gateway.ask({}, x_request_id="failed", **AS_A)
        told = await explained(gateway, "failed")
        assert (told["outcome"], told["status"]) == ("failed", refused.status)
        assert told["error"]["code"] == json.loads(refused.body)["error"]["code"]
        assert (told["node"], told["attempts"]) == ("n0", 1)
        assert "tried" not in told


async def test_a_client_that_left_finds_what_its_node_counted() -> None:
    async with fleet(held, config=KEYED) as (gateway, [node]):
        async with client(gateway.port) as leaves:
            leaves.send(request({"stream": True}, x_request_id="left", **AS_A))
            await until(lambda: node.turns)
        told = await explained(gateway, "left")
        assert told["outcome"] == "cancelled"
        await until(lambda: node.records)
        await gateway.settled()
        told = await explained(gateway, "left")
        assert told["usage"] == {"prompt": 7, "completion": 1, "cached": 0, "reasoning": 0,
                                 "total": 8}  # fmt: skip


async def test_a_broken_answer_says_so_and_what_was_counted() -> None:
    async with fleet(breaks, config=KEYED) as (gateway, _):
        await gateway.ask({"stream": True}, x_request_id="broken", **AS_A)
        await gateway.settled()
        told = await explained(gateway, "broken")
        assert (told["outcome"], told["status"]) == ("broken", 200)
        assert told["error"]["code"] == "upstream_connection_error"
        assert told["usage"]["total"] == 10
        assert told["ms"]["first_token"] > 0


async def test_nobody_elses_request_is_explained() -> None:
    other = '[[entitlements.keys]]\nkey = "sk-b"\naccount_id = "b"\n'
    async with fleet(answers, config=KEYED + other) as (gateway, _):
        await gateway.ask({}, x_request_id="mine", **AS_A)
        await explained(gateway, "mine")
        hidden = await gateway.get("/v1/requests/mine", x_api_key="sk-b")
        assert hidden["error"]["code"] == "not_found"
