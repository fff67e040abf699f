"""Messages at the gateway: chat to the node, Messages to the client, the books the same."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    FINISH,
    KEYS,
    MODEL,
    PATIENT,
    answers,
    delta,
    event,
    fleet,
    refuses,
    request,
    usage,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import client
from tests.wire.messages.reading import check_order, said, said_plain, sse, validate

from helexa.cortex.capture import CaptureOrder

pytestmark = pytest.mark.anyio

PATH = "/v1/messages"
ASK = {"max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
END = ("end", "stop", "7", "2", "0", "")
BODY = {
    "id": "chatcmpl-a", "object": "chat.completion", "created": 1, "model": MODEL,
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}  # fmt: skip


async def speaks(turn: Turn) -> None:
    if turn.body.get("stream"):
        await answers(turn)
    else:
        turn.plain(BODY)


@pytest.mark.parametrize("path", ["/v1/messages", "/messages"])
async def test_a_plain_message_is_asked_in_chat_and_answered_in_messages(path: str) -> None:
    async with fleet(speaks) as (gateway, [node]):
        got = await gateway.ask(ASK, path=path)
        assert said_plain(got.body) == [("reasoning", "hm"), ("text", "Hi"), END]
        assert node.turns[0].path == "/v1/chat/completions"
        assert node.turns[0].body == {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hi"}],
            "max_completion_tokens": 9,
        }


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_is_told_which_of_its_tools_nobody_here_runs(stream: bool) -> None:
    async with fleet(speaks) as (gateway, _):
        search = {"type": "web_search_20250305", "name": "web_search"}
        got = await gateway.ask({**ASK, "stream": stream, "tools": [search]}, path=PATH)
        assert got.headers[b"x-helexa-left-out"] == b"web_search_20250305"
        got = await gateway.ask({**ASK, "stream": stream, "mcp_servers": []}, path=PATH)
        assert (got.status, b"x-helexa-left-out" in got.headers) == (200, False)


async def test_a_streamed_message_keeps_its_order_and_its_exact_usage() -> None:
    async with fleet(speaks) as (gateway, [node]):
        got = await gateway.ask({**ASK, "stream": True}, path=PATH)
        found = sse(got.body)
        check_order(found)
        validate(found)
        assert said(found) == [("text", "Hello you"), END]
        assert node.turns[0].body["stream_options"] == {"include_usage": True}
        assert b"\n: helexa {" in got.body
        assert b"[DONE]" not in got.body
        message = found[0]["message"]
        assert message["model"] == MODEL
        assert message["id"].removeprefix("msg_").isalpha()


async def test_translated_requests_are_settled_and_counted_like_chat() -> None:
    async with fleet(speaks, config=KEYS) as (gateway, _):
        for stream in (False, True):
            await gateway.ask({**ASK, "stream": stream}, path=PATH, x_api_key="sk-a")
        await gateway.settled()
        assert [(line.route, line.prompt, line.completion) for line in gateway.log.lines] == [
            ("messages", 7, 2),
            ("messages", 7, 2),
        ]
        assert gateway.metric("cortex_spend_tokens_total", key="acme-one") == 18


async def test_an_accepted_stream_that_waits_opens_with_message_start_and_pings() -> None:
    go = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await go.wait()
        await speaks(turn)

    async with fleet(slow, config="[gateway]\ncommit_ms = 50") as (gateway, _):
        asking = asyncio.create_task(gateway.ask({**ASK, "stream": True}, path=PATH))
        stream = None
        while stream is None or not stream.answer.committed:
            await asyncio.sleep(0.01)
            stream = next((e.stream for e in gateway.front.app._running), None)
        go.set()
        found = sse((await asking).body)
        assert [data["type"] for data in found[:2]] == ["message_start", "ping"]
        check_order(found)
        assert said(found)[-1] == END


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "context_length_exceeded", "invalid_request_error"),
        (400, "vision_unsupported", "invalid_request_error"),
        (422, "template_render_failed", "invalid_request_error"),
        (503, "overloaded", "overloaded_error"),
    ],
)
async def test_a_nodes_refusal_comes_with_its_status_code_and_retry_after(
    stream: bool, status: int, code: str, kind: str
) -> None:
    more: dict[str, Any] = {"retry_after_s": 7} if status == 503 else {}
    if code == "context_length_exceeded":
        more = {"prompt_len": 70_000, "max": 65_536}
    async with fleet(refuses(status, code, **more), config=PATIENT) as (gateway, _):
        got = await gateway.ask({**ASK, "stream": stream}, path=PATH)
        error = json.loads(got.body)
        assert got.status == status
        assert error["type"] == "error"
        assert (error["error"]["type"], error["error"]["code"]) == (kind, code)
        assert got.headers.get(b"retry-after") == (b"7" if status == 503 else None)
        if more.get("max"):
            assert "prompt is too long: 70000 tokens > 65536 maximum" in error["error"]["message"]


async def test_a_stream_that_breaks_says_so_and_has_no_message_stop() -> None:
    async def breaks(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        turn.send(event({"error": {"message": "gone", "code": "upstream_connection_error"}}))
        turn.close()
        turn.ended("failed", 7, 1)

    async with fleet(breaks) as (gateway, _):
        found = sse((await gateway.ask({**ASK, "stream": True}, path=PATH)).body)
        check_order(found)
        assert said(found)[-1] == ("error", "upstream_connection_error")
        assert gateway.log.lines == [] or gateway.log.lines[0].outcome == "broken"


@pytest.mark.parametrize("garbage", [b"data: {]\n\n", b'data: {"choices": 3}\n\n'])
async def test_a_node_that_sends_no_chat_breaks_the_answer_not_the_gateway(garbage: bytes) -> None:
    async def babbles(turn: Turn) -> None:
        turn.stream(delta("Hel"), garbage, FINISH, usage(), DONE)
        turn.ended("failed", 7, 1)

    async with fleet(babbles) as (gateway, _):
        got = await gateway.ask({**ASK, "stream": True}, path=PATH)
        if got.status == 502:  # all of it came in one piece: the status was still open
            assert json.loads(got.body)["error"]["code"] == "upstream_connection_error"
        else:
            assert said(sse(got.body))[-1] == ("error", "upstream_connection_error")


async def test_the_next_candidate_may_answer_what_the_first_refused() -> None:
    async with fleet(refuses(503, "overloaded"), speaks) as (gateway, _):
        for _ in range(2):
            found = sse((await gateway.ask({**ASK, "stream": True}, path=PATH)).body)
            assert said(found) == [("text", "Hello you"), END]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"{", None),
        (b'{"messages":[{"role":"user","content":"hi"}]}', "model"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
        ({**ASK, "thread": {"type": "create"}}, "thread"),
    ],
)
async def test_a_wrong_request_is_refused_before_any_node_hears_of_it(
    body: Any, param: str | None
) -> None:
    async with fleet(speaks) as (gateway, [node]):
        got = await gateway.ask(body, path=PATH)
        error = json.loads(got.body)
        assert (got.status, error["type"]) == (400, "error")
        assert param is None or param in error["error"]["message"]
        assert not node.turns


async def test_counting_is_forwarded_as_it_is_and_costs_nothing() -> None:
    async def counts(turn: Turn) -> None:
        assert turn.path == "/v1/messages/count_tokens"
        assert "x-helexa-grant" not in turn.headers
        turn.plain({"input_tokens": 12})

    async with fleet(counts, config=KEYS + "hard_cap = 100\n") as (gateway, _):
        got = await gateway.ask(ASK, path=PATH + "/count_tokens", x_api_key="sk-a")
        assert json.loads(got.body) == {"input_tokens": 12}
        gateway.front.app.flush()
        assert not gateway.rooms.settler.waiting
        await gateway.settled()
        assert gateway.metric("cortex_spend_tokens_total", key="acme-one") == 0


async def test_browsers_may_ask_in_messages_too() -> None:
    async with fleet(speaks) as (gateway, _):
        got = await gateway.ask(ASK, path=PATH, origin="https://example.org")
        assert got.headers[b"access-control-allow-origin"] == b"*"
        assert b"x-request-id" in got.headers[b"access-control-expose-headers"]


async def test_the_request_id_is_told_under_anthropics_name_too() -> None:
    async with fleet(speaks) as (gateway, _):
        got = await gateway.ask(ASK, path=PATH, x_request_id="mine")
        assert got.headers[b"request-id"] == got.headers[b"x-request-id"] == b"mine"


@pytest.mark.parametrize("named", [{}, {"anthropic_version": "2023-06-01"}])
async def test_what_never_becomes_a_request_is_refused_in_the_dialect_too(named: Any) -> None:
    path = "/v1/embeddings" if named else PATH
    async with fleet(speaks, config="[gateway]\nmax_body_mb = 1") as (gateway, _):
        for raw, status, kind in (
            (request(b"x" * 2_000_000, path=path, **named), 413, "request_too_large"),
            (request(path=path, big="x" * 80_000, **named), 431, "invalid_request_error"),
            (request(path=path + "/nowhere", **named), 404, "not_found_error"),
        ):
            async with client(gateway.port) as connection:
                connection.send(raw)
                got = await connection.answer()
            assert got.status == status
            found = json.loads(got.body)
            assert (found["type"], found["error"]["type"]) == ("error", kind)


async def test_a_capture_shows_the_prompt_of_a_translated_request() -> None:
    async with fleet(speaks) as (gateway, [node]):
        captures = gateway.front.app._desk.observers.captures  # type: ignore[attr-defined]
        captures.start(CaptureOrder(model=MODEL))
        await gateway.ask({**ASK, "system": "Be brief."}, path=PATH)
        await captures.add_prompts()
        [body] = [body for _, path, _, body in node.log if path.endswith("/render")]
        assert body["messages"][0] == {"role": "system", "content": "Be brief."}
        assert captures.current is not None
        assert b'"system"' in captures.current.requests[0].request_body
