"""Requests of one conversation meet again; a place that fails is left alone; both can be seen."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    FINISH,
    MODEL,
    Gateway,
    answers,
    delta,
    error_of,
    event,
    fleet,
    refuses,
    resets,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import until

pytestmark = pytest.mark.anyio

RULES = "You follow these rules. " + "Be brief and exact. " * 400


def conversation(name: str, turns: int, **more: Any) -> dict[str, Any]:
    """A chat of so many questions; each turn begins like the last."""
    messages = [{"role": "system", "content": f"For {name}.\n{RULES}"}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn} of {name}?"})
        messages.append({"role": "assistant", "content": f"Answer {turn}."})
    return {"stream": True, "messages": messages[:-1], **more}


async def remembers(turn: Turn) -> None:
    """A node that has cached all of a prompt but its last hundred bytes, and computes fast."""
    prompt = len(json.dumps(turn.body)) // 4
    seen = turn.node.__dict__.setdefault("seen", set())
    head = json.dumps(turn.body["messages"][:2])
    cached = prompt - 25 if head in seen else 0
    seen.add(head)
    usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}
    usage["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]
    timings = {"prompt_n": prompt - cached, "cache_n": cached, "prompt_ms": prompt - cached,
               "predicted_n": 1, "predicted_ms": 1.0}  # fmt: skip
    last = event({"choices": [], "usage": usage, "timings": timings})
    turn.stream(delta("Hello"), FINISH, last, DONE)


async def node_of(gateway: Gateway, body: dict[str, Any], **headers: str) -> str:
    got = await gateway.ask(body, **headers)
    assert got.status == 200
    return got.headers[b"x-helexa-node"].decode()


async def test_turns_of_a_conversation_go_where_its_beginning_is_cached() -> None:
    async with fleet(remembers, remembers, remembers, remembers) as (gateway, _):
        homes = {n: await node_of(gateway, conversation(f"c{n}", 1)) for n in range(12)}
        assert len(set(homes.values())) > 1
        for turns in (2, 3):
            for number, home in homes.items():
                assert await node_of(gateway, conversation(f"c{number}", turns)) == home


async def test_a_first_line_that_rotates_does_not_send_a_conversation_elsewhere() -> None:
    async with fleet(remembers, remembers, remembers, remembers) as (gateway, _):
        went = set()
        for number in range(8):
            body = conversation("one", 1)
            line = f"x-anthropic-billing-header: cc_version=2.1.{number}; cch={number:05x};\n"
            body["messages"][0]["content"] = line + RULES
            went.add(await node_of(gateway, body))
        assert len(went) == 1


async def test_a_clients_hint_keeps_a_session_together_from_its_first_request() -> None:
    async with fleet(*[answers] * 4) as (gateway, _):
        went = {
            await node_of(gateway, {"prompt": f"{n}"}, **{"x-session-id": "s-1"}) for n in range(8)
        }
        assert len(went) == 1


async def test_a_busy_home_is_passed_over_when_computing_elsewhere_is_faster() -> None:
    async with fleet(remembers, remembers) as (gateway, _):
        home = await node_of(gateway, conversation("c", 1))
        await gateway.settled()
        work = gateway.rooms.placer.leases.work(home, MODEL)
        work.ready_at = gateway.rooms.placer.router.now() + 3600  # a long queue there
        work.waiting += 1
        assert await node_of(gateway, conversation("c", 2)) != home
        work.waiting -= 1
        work.ready_at = 0.0


async def test_a_request_shows_its_candidates_and_why_the_winner_won() -> None:
    async with fleet(remembers, remembers) as (gateway, _):
        for turns in (1, 2):
            await node_of(gateway, conversation("c", turns), **{"x-request-id": f"r-{turns}"})
        await gateway.settled()
        shown = await gateway.get("/admin/requests/r-2")
        rows = shown["candidates"]
        assert [row["won"] for row in rows] == [True, False]
        assert rows[0]["node"] == shown["node"]
        assert rows[0]["cached_tokens"] > 1000 > rows[1]["cached_tokens"] == 0
        assert rows[0]["predicted_s"] < rows[1]["predicted_s"]
        assert "tokens of the prompt cached there" in shown["why"]
        assert rows[1]["node"] in shown["why"]


async def test_what_answers_say_corrects_what_is_believed() -> None:
    async def forgets(turn: Turn) -> None:
        turn.node.__dict__.pop("seen", None)
        await remembers(turn)

    async with fleet(forgets, forgets) as (gateway, _):
        for turns in range(1, 16):
            await node_of(gateway, conversation("c", turns))
        await gateway.settled()
        leases = gateway.rooms.placer.leases
        trusts = [leases.work(node, MODEL).cache.trust for node in ("n0", "n1")]
        assert min(trusts) < 0.8
        assert gateway.rooms.placer.router.per_byte[MODEL] == pytest.approx(0.25, rel=0.2)


async def test_a_node_that_refuses_connections_is_left_alone_and_tried_again() -> None:
    async with fleet(resets, answers) as (gateway, nodes):
        for number in range(40):
            assert (await gateway.ask({"prompt": f"{number}"})).status == 200
        # Two failures open its breaker; what comes within the second goes elsewhere at once.
        assert len(nodes[0].turns) < 12
        await gateway.settled()
        nodes[0].chat = answers
        leases = gateway.rooms.placer.leases
        await until(lambda: leases.work("n0", MODEL).shut_until < gateway.rooms.placer.router.now())
        for number in range(40, 80):
            await gateway.ask({"prompt": f"{number}"})
        await gateway.settled()
        assert leases.work("n0", MODEL).breaker.clean


async def test_an_engine_that_fails_opens_the_breaker_of_its_model() -> None:
    async with fleet(refuses(500, "nonsense"), answers) as (gateway, nodes):
        router = gateway.rooms.placer.router
        now = router.now()
        router.now = lambda: now  # so it stays open, however long the rest takes
        statuses = [(await gateway.ask({"prompt": f"{number}"})).status for number in range(40)]
        assert statuses.count(500) == 5
        assert len(nodes[0].turns) == 5


async def test_refusals_are_answers_and_open_nothing() -> None:
    async with fleet(refuses(503, "overloaded", retry_after_s=1), answers) as (gateway, nodes):
        for number in range(20):
            assert (await gateway.ask({"prompt": f"{number}"})).status == 200
        assert len(nodes[0].turns) > 5
        assert gateway.rooms.placer.leases.work("n0", MODEL).breaker.clean


async def test_where_there_is_no_other_a_shut_place_is_tried_all_the_same() -> None:
    async with fleet(resets, resets) as (gateway, nodes):
        for number in range(6):
            got = await gateway.ask({"prompt": f"{number}"})
            assert error_of(got)["code"] == "upstream_connection_error"
        before = sum(len(node.turns) for node in nodes)
        nodes[0].chat = nodes[1].chat = answers
        assert (await gateway.ask({"prompt": "now"})).status == 200
        assert sum(len(node.turns) for node in nodes) == before + 1


def asked_in(path: str, name: str, turns: int) -> dict[str, Any]:
    """The same conversation in another dialect."""
    chat = conversation(name, turns)["messages"]
    if path == "/v1/completions":
        return {"stream": True, "prompt": "\n".join(m["content"] for m in chat)}
    if path == "/v1/responses":
        return {"stream": True, "store": False, "input": chat}
    return {"stream": True, "max_tokens": 9, "system": chat[0]["content"], "messages": chat[1:]}


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages"])
async def test_conversations_of_every_dialect_come_back_to_what_is_cached(path: str) -> None:
    async with fleet(answers, answers, answers, answers) as (gateway, _):
        for number in range(3):
            went = []
            for turns in (1, 2, 3):
                body, shown = asked_in(path, f"c{number}", turns), f"r-{number}-{turns}"
                got = await gateway.ask(body, path=path, **{"x-request-id": shown})
                assert got.status == 200
                went.append(got.headers[b"x-helexa-node"])
            assert len(set(went)) == 1
            await gateway.settled()
            last = await gateway.get(f"/admin/requests/r-{number}-3")
            assert last["candidates"][0]["cached_tokens"] > 1000
