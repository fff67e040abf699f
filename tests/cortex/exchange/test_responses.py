"""Responses at the gateway: chat to the node, Responses to the client, and what is kept."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.cortex.exchange.rig import MODEL, PATIENT, answers, delta, event, fleet, refuses
from tests.cortex.fake_node import Turn
from tests.relay.rig import client
from tests.wire.responses.reading import check_order, said, sse, validate, validate_body

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
TWO_KEYS = """
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
key_id = "acme-one"
[[entitlements.keys]]
key = "sk-b"
account_id = "acme"
key_id = "acme-two"
"""
MESSAGE = {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}
BODY = {
    "id": "chatcmpl-a", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}  # fmt: skip


async def speaks(turn: Turn) -> None:
    if turn.body.get("stream"):
        await answers(turn)
    else:
        turn.plain(BODY)


async def send(port: int, method: str, path: str, key: str) -> tuple[int, Any]:
    async with client(port) as raw:
        raw.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n".encode())
        got = await raw.answer()
        return got.status, json.loads(got.body)


@pytest.mark.parametrize("path", ["/v1/responses", "/responses"])
async def test_a_plain_response_is_asked_in_chat(path: str) -> None:
    async with fleet(speaks) as (gateway, [node]):
        got = await gateway.ask({"input": "hi", "instructions": "Be brief."}, path=path)
        found = validate_body(got.body)
        assert said(found) == [
            ("reasoning", "hm"), ("text", "Hi"), ("end", "stop", "7", "2", "0", ""),
        ]  # fmt: skip
        assert node.turns[0].body == {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
        }
        assert found["id"].startswith("resp_")
        assert found["id"][5:].isalpha()
        assert len(found["id"]) == 5 + 32


async def test_a_streamed_response_keeps_its_order_and_its_exact_usage() -> None:
    async with fleet(speaks) as (gateway, _):
        got = await gateway.ask({"input": "hi", "stream": True}, path=PATH)
        found = sse(got.body)
        check_order(found)
        validate(found)
        assert said(found[-1]["response"]) == [
            ("text", "Hello you"), ("end", "stop", "7", "2", "0", ""),
        ]  # fmt: skip
        assert b"[DONE]" not in got.body


async def test_a_waiting_stream_repeats_in_progress() -> None:
    go = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await go.wait()
        await speaks(turn)

    async with fleet(slow, config="[gateway]\ncommit_ms = 50") as (gateway, _):
        asking = asyncio.create_task(gateway.ask({"input": "hi", "stream": True}, path=PATH))
        stream = None
        while stream is None or not stream.answer.committed:
            await asyncio.sleep(0.01)
            stream = next((e.stream for e in gateway.front.app._running), None)
        go.set()
        found = sse((await asking).body)
        check_order(found)
        assert found[-1]["type"] == "response.completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_nodes_refusal_keeps_its_status_and_code(stream: bool) -> None:
    more = {"prompt_len": 70_000, "max": 65_536}
    async with fleet(refuses(400, "context_length_exceeded", **more), config=PATIENT) as (
        gateway,
        _,
    ):
        got = await gateway.ask({"input": "hi", "stream": stream}, path=PATH)
        assert got.status == 400
        assert json.loads(got.body)["error"]["code"] == "context_length_exceeded"


async def test_a_stream_that_breaks_fails_in_the_dialects_words() -> None:
    async def breaks(turn: Turn) -> None:
        error = {"error": {"message": "No.", "code": "context_length_exceeded",
                           "prompt_len": 9, "max": 5}}  # fmt: skip
        turn.stream(delta("Hel"), event(error))

    async with fleet(breaks) as (gateway, _):
        got = await gateway.ask({"input": "hi", "stream": True}, path=PATH)
        found = sse(got.body)
        check_order(found)
        assert found[-1]["type"] == "response.failed"
        assert found[-1]["response"]["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize("ledger", ["sqlite", "postgres"])
async def test_a_response_is_continued_fetched_listed_and_deleted(
    ledger: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helexa.cortex.responses import build

    url = f"sqlite://{tmp_path}/ledger.db"
    if ledger == "postgres":
        url = request.getfixturevalue("postgres_url")
    make = build.make_keeper
    monkeypatch.setattr(
        "helexa.cortex.build.front.make_keeper",
        lambda settings, _, *rest: make(settings, url, *rest),
    )
    async with fleet(speaks, config=TWO_KEYS) as (gateway, [node]):
        ask = {"input": [{"role": "user", "content": "one"}], "instructions": "Be brief."}
        first = json.loads((await gateway.ask(ask, path=PATH, x_api_key="sk-a")).body)
        more = {"input": "two", "previous_response_id": first["id"]}
        second = json.loads((await gateway.ask(more, path=PATH, x_api_key="sk-a")).body)
        assert [(m["role"], m["content"]) for m in node.turns[1].body["messages"]] == [
            ("user", "one"),
            ("assistant", "Hi"),
            ("user", "two"),
        ]
        assert second["previous_response_id"] == first["id"]
        third = {"input": "three", "previous_response_id": second["id"], "stream": True}
        await gateway.ask(third, path=PATH, x_api_key="sk-a")
        assert len(node.turns[2].body["messages"]) == 5

        port = gateway.port
        assert await send(port, "GET", f"{PATH}/{first['id']}", "sk-a") == (200, first)
        status, body = await send(port, "GET", f"{PATH}/{first['id']}?stream=true", "sk-a")
        assert (status, body["error"]["param"]) == (400, "stream")
        status, listed = await send(port, "GET", f"{PATH}/{second['id']}/input_items", "sk-a")
        assert (status, [i["content"][0]["text"] for i in listed["data"]]) == (200, ["two"])

        for method in ("GET", "DELETE"):
            status, body = await send(port, method, f"{PATH}/{first['id']}", "sk-b")
            assert (status, body["error"]["code"]) == (404, "response_not_found")
        status, body = await send(port, "DELETE", f"{PATH}/{first['id']}", "sk-a")
        assert body == {"id": first["id"], "object": "response", "deleted": True}
        got = await gateway.ask(more, path=PATH, x_api_key="sk-a")
        assert got.status == 400
        error = json.loads(got.body)["error"]
        assert (error["code"], error["param"]) == (
            "previous_response_not_found",
            "previous_response_id",
        )


async def test_counting_counts_the_whole_conversation_keeps_nothing_and_costs_nothing() -> None:
    async def answers(turn: Turn) -> None:
        if turn.path != "/v1/chat/completions/input_tokens":
            turn.plain(BODY)
            return
        assert "x-helexa-grant" not in turn.headers
        turn.plain({"object": "response.input_tokens", "input_tokens": 12})

    config = TWO_KEYS.replace('"sk-a"\n', '"sk-a"\nhard_cap = 100\n')
    async with fleet(answers, config=config) as (gateway, [node]):
        first = json.loads((await gateway.ask({"input": "one"}, path=PATH, x_api_key="sk-a")).body)
        await gateway.settled()
        spent = gateway.metric("cortex_spend_tokens_total", key="acme-one")
        for more in ({}, {"previous_response_id": first["id"]}):
            ask = {"input": "two", **more}
            got = await gateway.ask(ask, path=PATH + "/input_tokens", x_api_key="sk-a")
            assert json.loads(got.body)["input_tokens"] == 12
        assert [len(turn.body["messages"]) for turn in node.turns] == [1, 1, 3]
        await gateway.settled()
        assert gateway.metric("cortex_spend_tokens_total", key="acme-one") == spent
        ask = {"input": "two", "previous_response_id": "resp_x"}
        got = await gateway.ask(ask, path=PATH + "/input_tokens", x_api_key="sk-a")
        assert json.loads(got.body)["error"]["param"] == "previous_response_id"


async def test_an_item_is_referred_to_by_whom_it_belongs_to() -> None:
    async with fleet(speaks, config=TWO_KEYS) as (gateway, [node]):
        first = json.loads((await gateway.ask({"input": "hi"}, path=PATH, x_api_key="sk-a")).body)
        message = next(item for item in first["output"] if item["type"] == "message")
        reference = {"type": "item_reference", "id": message["id"]}
        ask = {"input": [{"role": "user", "content": "hi"}, reference]}
        assert (await gateway.ask(ask, path=PATH, x_api_key="sk-a")).status == 200
        assert node.turns[1].body["messages"][1] == {"role": "assistant", "content": "Hi"}
        got = await gateway.ask(ask, path=PATH, x_api_key="sk-b")
        assert (got.status, json.loads(got.body)["error"]["param"]) == (400, "input[1]")


async def test_what_a_request_refers_to_counts_as_its_own_bytes() -> None:
    """A small body may name a large item very often."""
    long = {"type": "message", "role": "user", "id": "msg_long", "content": "x" * 300_000}
    named = {"type": "item_reference", "id": "msg_long"}
    async with fleet(speaks, config="[gateway]\nmax_body_mb = 1\n") as (gateway, [node]):
        first = json.loads((await gateway.ask({"input": [long]}, path=PATH)).body)
        assert (await gateway.ask({"input": [named] * 3}, path=PATH)).status == 200
        assert len(node.turns[1].body["messages"]) == 3
        for ask in (
            {"input": [named] * 4},
            {"input": [named] * 3, "previous_response_id": first["id"]},
        ):
            got = await gateway.ask(ask, path=PATH)
            assert (got.status, json.loads(got.body)["error"]["code"]) == (413, "payload_too_large")
        many = [{"type": "item_reference", "id": f"msg_{n}"} for n in range(5000)]
        got = await gateway.ask({"input": many}, path=PATH)
        assert (got.status, json.loads(got.body)["error"]["param"]) == (400, "input")
        assert len(node.turns) == 2


async def test_store_false_keeps_nothing() -> None:
    async with fleet(speaks) as (gateway, _):
        first = json.loads((await gateway.ask({"input": "hi", "store": False}, path=PATH)).body)
        assert first["store"] is False
        status, _ = await send(gateway.port, "GET", f"{PATH}/{first['id']}", "any")
        assert status == 404


async def test_anonymous_responses_are_kept_for_the_anonymous() -> None:
    async with fleet(speaks, config=TWO_KEYS) as (gateway, _):
        first = json.loads((await gateway.ask({"input": "hi"}, path=PATH)).body)
        assert (await send(gateway.port, "GET", f"{PATH}/{first['id']}", "none"))[0] == 200
        assert (await send(gateway.port, "GET", f"{PATH}/{first['id']}", "sk-a"))[0] == 404


async def test_a_store_that_is_off_says_so() -> None:
    async with fleet(speaks, config="[responses]\nstore = false\n") as (gateway, _):
        first = await gateway.ask({"input": "hi"}, path=PATH)
        assert json.loads(first.body)["store"] is False
        got = await gateway.ask({"input": "hi", "previous_response_id": "resp_x"}, path=PATH)
        error = json.loads(got.body)["error"]
        assert (got.status, error["param"]) == (400, "previous_response_id")
        assert "keeps no responses" in error["message"]


async def test_a_store_that_cannot_be_reached_loses_nothing_but_the_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helexa.cortex.responses import build

    (tmp_path / "file").write_text("in the way")
    make, url = build.make_keeper, f"sqlite://{tmp_path}/file/ledger.db"
    monkeypatch.setattr(
        "helexa.cortex.build.front.make_keeper",
        lambda settings, _, *rest: make(settings, url, *rest),
    )
    async with fleet(speaks, config=TWO_KEYS) as (gateway, _):
        first = await gateway.ask({"input": "hi"}, path=PATH, x_api_key="sk-a")
        assert first.status == 200
        more = {"input": "hi", "previous_response_id": json.loads(first.body)["id"]}
        got = await gateway.ask(more, path=PATH, x_api_key="sk-a")
        assert got.status == 503
        assert gateway.front.keeper is not None
        assert gateway.front.keeper.lost == 1
        assert gateway.metric("cortex_responses_lost_total") == 1


async def test_a_call_and_its_result_go_round() -> None:
    async def calls(turn: Turn) -> None:
        if turn.body["messages"][-1]["role"] == "tool":
            turn.plain(BODY)
            return
        function = {"name": "files__read", "arguments": '{"path": "a"}'}
        call = {"id": "call_a", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "finish_reason": "tool_calls", "message": message}
        turn.plain({**BODY, "choices": [choice]})

    space = {"type": "namespace", "name": "files", "tools": [{"type": "function", "name": "read"}]}
    async with fleet(calls) as (gateway, [node]):
        hosted = ("web_search", "local_shell", "web_search", "a\r\nx-evil: 1")
        ask = {"input": "read a", "tools": [space, *({"type": kind} for kind in hosted)]}
        got = await gateway.ask(ask, path=PATH)
        assert got.headers[b"x-helexa-left-out"] == b"web_search, local_shell"
        assert b"x-evil" not in got.headers
        first = json.loads(got.body)
        (call,) = first["output"]
        assert (call["namespace"], call["name"], call["arguments"]) == (
            "files", "read", '{"path": "a"}',
        )  # fmt: skip
        result = {"type": "function_call_output", "call_id": "call_a", "output": "text"}
        ask |= {"input": [result], "previous_response_id": first["id"]}
        second = json.loads((await gateway.ask(ask, path=PATH)).body)
        assert second["output"][-1]["content"][0]["text"] == "Hi"
        sent = node.turns[1].body["messages"]
        assert sent[1]["tool_calls"][0]["function"]["name"] == "files__read"
        assert sent[2] == {"role": "tool", "content": "text", "tool_call_id": "call_a"}
        assert [t["function"]["name"] for t in node.turns[0].body["tools"]] == ["files__read"]
