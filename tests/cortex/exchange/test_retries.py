"""The next candidate: when it is tried, when it never is, and who pays."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    MODEL,
    Gateway,
    answers,
    delta,
    error_of,
    fleet,
    next_event,
    refuses,
    request,
    resets,
)
from tests.cortex.fake_node import Chat, FakeNode, Turn
from tests.relay.rig import client, until

pytestmark = pytest.mark.anyio

CAPPED = """
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
hard_cap = 10000
"""


def first_goes_to(gateway: Gateway, name: str) -> Callable[[], None]:
    """Make the other nodes look busy until the returned function is called."""
    others = [n.name for n in gateway.rooms.fleet.snapshot().nodes if n.name != name]
    leases = [gateway.rooms.placer.leases.take(other, MODEL) for other in others]

    def done() -> None:
        for lease in leases:
            lease.release()

    return done


async def nobody_there(node: FakeNode) -> None:
    """Close the node's port under a gateway that thinks it is up."""
    node.chat = None
    if node._server is not None:
        node._server.close()
        node._server = None
    await until(lambda: refused(node.port))


def refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


async def dies_behind_its_head(turn: Turn) -> None:
    """The end of a node that had promised an answer."""
    turn.open()
    turn._writer.close()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "first",
    [
        resets,
        dies_behind_its_head,
        refuses(503, "service_unavailable"),
        refuses(503, "model_recovering", retry_after_s=3),
        refuses(503, "overloaded"),
        refuses(429, "rate_limit_exceeded"),
        refuses(404, "model_not_found"),
    ],
    ids=["reset", "head only", "503", "recovering", "overloaded", "429", "404"],
)
async def test_what_another_node_can_do_is_done_by_it(first: Chat, stream: bool) -> None:
    async with fleet(first, answers, config=CAPPED) as (gateway, nodes):
        let_go = first_goes_to(gateway, "n0")
        got = await gateway.ask({"stream": stream}, authorization="Bearer sk-a")
        let_go()
        assert got.status == 200
        assert got.headers[b"x-helexa-node"] == b"n1"
        assert [len(node.turns) for node in nodes] == [1, 1]
        attempts = [node.turns[0].headers["x-helexa-attempt"] for node in nodes]
        ids = {node.turns[0].headers["x-request-id"] for node in nodes}
        assert (attempts, len(ids)) == (["1", "2"], 1)
        await gateway.settled()
        # Only the attempt that was relayed is paid for, and both records can be forgotten.
        assert (await gateway.get("/v1/usage", authorization="Bearer sk-a"))["spent_tokens"] == 9
        await until(lambda: all(node.calls("/requests/ack") for node in nodes))
        (line,) = gateway.log.lines
        assert (line.attempts, line.node, line.outcome) == (2, "n1", "complete")


async def test_a_port_that_nobody_listens_on_is_passed_over() -> None:
    async with fleet(answers, answers) as (gateway, nodes):
        await nobody_there(nodes[0])
        let_go = first_goes_to(gateway, "n0")
        got = await gateway.ask()
        let_go()
        assert (got.status, got.headers[b"x-helexa-node"]) == (200, b"n1")


async def test_three_attempts_are_the_most() -> None:
    chats = [refuses(503, "service_unavailable", retry_after_s=4)] * 5
    async with fleet(*chats) as (gateway, nodes):
        got = await gateway.ask({"stream": True})
        assert (got.status, error_of(got)["code"]) == (503, "service_unavailable")
        assert got.headers[b"retry-after"] == b"4"
        assert sum(len(node.turns) for node in nodes) == 3


async def test_no_retries_means_none() -> None:
    chats = [refuses(503, "service_unavailable")] * 2
    async with fleet(*chats, config="[routing]\nretries = 0\n") as (gateway, nodes):
        assert (await gateway.ask()).status == 503
        assert sum(len(node.turns) for node in nodes) == 1


async def test_when_nobody_else_has_the_model_the_last_refusal_stands() -> None:
    async with fleet(refuses(503, "overloaded", retry_after_s=9)) as (gateway, [node]):
        got = await gateway.ask()
        assert (got.status, error_of(got)["code"]) == (503, "overloaded")
        assert got.headers[b"retry-after"] == b"9"
        assert len(node.turns) == 1


async def test_a_model_that_was_unloaded_a_moment_ago_is_not_unknown() -> None:
    async with fleet(refuses(404, "model_not_found")) as (gateway, _):
        got = await gateway.ask()
        assert (got.status, error_of(got)["code"]) == (503, "service_unavailable")
        assert b"retry-after" in got.headers


async def test_a_grant_that_was_too_small_is_the_keys_own_limit_everywhere() -> None:
    over = refuses(429, "rate_limit_exceeded", granted=5, prompt_len=9, retry_after_s=1)
    async with fleet(over, over) as (gateway, nodes):
        assert (await gateway.ask()).status == 429
        assert sum(len(node.turns) for node in nodes) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_is_tried_again_after_the_first_byte_of_an_answer(stream: bool) -> None:
    async def half(turn: Turn) -> None:
        if stream:
            turn.open()
            turn.send(delta("Hal"))
        else:
            head = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
            turn._writer.write(head + b'{"cho')
        await asyncio.sleep(0.02)
        turn.ended("failed", prompt=3, output=1)
        turn.reset()

    async with fleet(half, half) as (gateway, nodes):
        got = await gateway.ask({"stream": stream})
        assert got.status == (200 if stream else 502)
        assert DONE not in got.body
        assert sum(len(node.turns) for node in nodes) == 1


async def test_another_node_is_tried_even_after_the_200_while_no_engine_has_spoken() -> None:
    go = asyncio.Event()

    async def late(turn: Turn) -> None:
        await go.wait()
        turn.plain({"error": {"message": "No.", "code": "model_recovering"}}, 503)

    config = "[gateway]\ncommit_ms = 50\n"
    async with fleet(late, answers, config=config) as (gateway, nodes), client(gateway.port) as raw:
        let_go = first_goes_to(gateway, "n0")
        raw.send(request({"stream": True}))
        assert (await raw.head()).status == 200
        assert await next_event(raw) == b": keep-alive\n\n"
        go.set()
        rest = b""
        while event := await next_event(raw):
            rest += event
        let_go()
        assert rest.endswith(DONE)
        assert [len(node.turns) for node in nodes] == [1, 1]


async def test_nothing_is_tried_again_past_the_clients_deadline() -> None:
    async def late(turn: Turn) -> None:
        await asyncio.sleep(0.1)
        turn.plain({"error": {"message": "No.", "code": "overloaded"}}, 503)

    async with fleet(late, late) as (gateway, nodes):
        got = await gateway.ask(x_helexa_deadline_ms="50")
        assert got.status == 503
        assert sum(len(node.turns) for node in nodes) == 1
        left = [t.headers["x-helexa-deadline-ms"] for node in nodes for t in node.turns]
        assert 0 <= int(left[0]) <= 50


async def test_a_deadline_that_is_no_number_of_milliseconds_is_refused_by_its_header() -> None:
    async with fleet(answers) as (gateway, [node]):
        for odd in ("soon", "-1", "1.5", "", "1e3", "9" * 13, "9" * 5000):
            got = await gateway.ask(x_helexa_deadline_ms=odd)
            assert (got.status, error_of(got)["code"]) == (400, "invalid_request_body")
            assert error_of(got)["param"] == "x-helexa-deadline-ms"
            assert "milliseconds" in error_of(got)["message"]
        assert not node.turns
        assert (await gateway.ask(x_helexa_deadline_ms="9" * 12)).status == 200


async def test_a_load_that_outlasts_the_deadline_is_refused_with_what_is_known() -> None:
    models = '[[models]]\nid = "org/cold"\nharness = "llamacpp"\n'
    async with fleet(answers, models=models) as (gateway, [node]):
        node.finish_loads = False
        body: dict[str, Any] = {"model": "org/cold"}
        first = asyncio.create_task(gateway.ask(body))
        await until(lambda: gateway.rooms.placer.progress("org/cold") == (0.5, 3.0))
        got = await gateway.ask(body, x_helexa_deadline_ms="100")
        assert (got.status, error_of(got)["code"]) == (503, "model_loading")
        assert 0 < error_of(got)["eta_s"] <= 3.0
        assert got.headers[b"retry-after"] in (b"3", b"2", b"1")
        node.put({**node.models["org/cold"], "status": "loaded"})
        got = await gateway.ask({**body, "stream": True})
        assert got.status == 200
        assert (await first).status == 200
        assert node.calls("/models/load") == 1


async def test_a_cold_model_is_loaded_and_the_answer_says_so() -> None:
    models = '[[models]]\nid = "org/cold"\nharness = "llamacpp"\nquant = "Q4_0"\n'
    async with fleet(answers, models=models) as (gateway, [node]):
        got = await gateway.ask({"model": "org/cold"})
        assert (got.status, got.headers[b"x-helexa-cold-start"]) == (200, b"true")
        assert b"load;dur=" in got.headers[b"server-timing"]
        (load,) = [body for _, path, _, body in node.log if path == "/models/load"]
        assert (load["model_id"], load["quant"]) == ("org/cold", "Q4_0")
        await gateway.settled()
        assert gateway.metric("cortex_cold_starts_total", model="org/cold", node="n0") == 1
        assert gateway.metric("cortex_load_seconds_count", model="org/cold") == 1


@pytest.mark.parametrize(
    ("chat", "held"),
    [
        (resets, (1, 0)),
        (dies_behind_its_head, (1, 0)),
        (refuses(500, "internal_error"), (0, 1)),
        (refuses(503, "overloaded"), (0, 0)),
        (refuses(400, "invalid_request"), (0, 0)),
    ],
    ids=["reset", "head only", "500", "overloaded", "400"],
)
async def test_a_failure_is_held_against_the_node_or_its_model_and_a_refusal_against_neither(
    chat: Chat, held: tuple[int, int]
) -> None:
    """A model may fail more often in a row than its node before it is left alone."""
    async with fleet(chat) as (gateway, _):
        await gateway.ask()
        breaker = gateway.rooms.placer.leases.work("n0", MODEL).breaker
        assert (breaker.connection, breaker.model) == held
