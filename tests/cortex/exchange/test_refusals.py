"""What is refused, in which order, and that nothing is held or sent for it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    CHAT,
    KEYS,
    MODEL,
    answers,
    error_of,
    event,
    fleet,
    held,
    refuses,
    request,
)
from tests.relay.rig import client, until

pytestmark = pytest.mark.anyio

REQUIRED = "[entitlements]\nrequire_auth = true\n" + KEYS
LIMITED = (
    REQUIRED
    + """models = ["org/m"]
max_concurrent = 1
[[entitlements.keys]]
key = "sk-poor"
account_id = "poor"
hard_cap = 0
[[entitlements.keys]]
key = "sk-window"
account_id = "window"
caps = [{tokens = 0, window = {kind = "rolling", seconds = 3600}}]
"""
)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    ("key", "body", "status", "code", "param"),
    [
        # Who asks comes before what is asked, that before whether it may, that before what is left.
        (None, b"not json", 401, "invalid_api_key", None),
        ("sk-wrong", b"not json", 401, "invalid_api_key", None),
        ("sk-a", b"not json", 400, "invalid_json", None),
        ("sk-a", b"[]", 400, "invalid_request_body", None),
        ("sk-a", b"{}", 400, "missing_model_field", "model"),
        ("sk-a", b'{"model": 7}', 400, "invalid_request_body", "model"),
        (
            "sk-a",
            b'{"model": "org/m", "stream": "yes"}',
            400,
            "invalid_request_body",
            "stream",
        ),
        ("sk-a", b'{"model": "org/other"}', 403, "forbidden", "model"),
        ("sk-poor", b'{"model": "org/missing"}', 404, "model_not_found", "model"),
        ("sk-poor", b'{"model": "org/m"}', 429, "insufficient_quota", None),
        ("sk-window", b'{"model": "org/m"}', 429, "rate_limit_exceeded", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_come_in_order_before_any_header(
    key: str | None, body: bytes, status: int, code: str, param: str | None, stream: bool
) -> None:
    if stream and b"stream" not in body:
        body = body.replace(b'"model"', b'"stream": true, "model"')
    async with fleet(answers, config=LIMITED) as (gateway, [node]):
        got = await gateway.ask(body, **({} if key is None else bearer(key)))
        error = error_of(got)
        assert (got.status, error["code"], error["param"]) == (status, code, param)
        assert got.headers[b"content-type"] == b"application/json"
        assert got.headers[b"x-request-id"].startswith(b"req_")
        assert not node.turns
        assert gateway.metric("cortex_refusals_total", code=code) == 1
        assert gateway.metric("cortex_requests_total") == 0
        (line,) = gateway.log.lines
        assert (line.status, line.outcome, line.code) == (status, "refused", code)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/admin/keys"])
async def test_nobodys_long_body_is_read(path: str) -> None:
    """It would be held in memory whole, for whoever sends it."""
    head = f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 60000000\r\n"
    async with fleet(answers, config=LIMITED) as (gateway, _):
        async with client(gateway.port) as raw:
            raw.send(f"{head}origin: https://page.example\r\n\r\n".encode())
            got = await raw.answer()
            assert (got.status, error_of(got)["code"]) == (401, "invalid_api_key")
            assert got.headers[b"access-control-allow-origin"] == b"*"
            assert await raw.closed()
        assert gateway.metric("cortex_refusals_total", code="invalid_api_key") == 1
        async with client(gateway.port) as raw:
            raw.send(f"{head}expect: 100-continue\r\nx-api-key: sk-a\r\n\r\n".encode())
            assert (await raw.answer()).status == 100


async def test_a_spent_balance_and_a_spent_window_are_told_apart() -> None:
    async with fleet(answers, config=LIMITED) as (gateway, _):
        balance = await gateway.ask(**bearer("sk-poor"))
        assert b"retry-after" not in balance.headers
        assert balance.headers[b"x-should-retry"] == b"false"
        window = await gateway.ask(**bearer("sk-window"))
        assert 1 <= int(window.headers[b"retry-after"]) <= 59
        assert b"x-should-retry" not in window.headers
        # Neither was sent, so no node has anything to tell about them.
        assert gateway.rooms.settler.waiting == 0


async def test_a_key_with_all_its_seats_taken_waits_for_one_to_end() -> None:
    async with fleet(answers, config=LIMITED) as (gateway, [node]):
        node.chat = held
        async with client(gateway.port) as raw:
            raw.send(request({"stream": True}, **bearer("sk-a")))
            await until(lambda: node.turns)
            got = await gateway.ask(**bearer("sk-a"))
            assert (got.status, error_of(got)["code"]) == (429, "rate_limit_exceeded")
            assert error_of(got)["type"] == "requests"
        await gateway.settled()
        node.chat = answers
        assert (await gateway.ask(**bearer("sk-a"))).status == 200


async def test_without_required_keys_an_unknown_one_is_anonymous() -> None:
    async with fleet(answers, config=KEYS) as (gateway, [node]):
        for headers, who in (({}, "anonymous"), (bearer("sk-wrong"), "anonymous"),
                             (bearer("sk-a"), "acme-one")):  # fmt: skip
            assert (await gateway.ask(**headers)).status == 200
            assert node.turns[-1].headers["x-helexa-key-id"] == who


async def test_a_key_is_taken_from_either_header() -> None:
    async with fleet(answers, config=REQUIRED) as (gateway, _):
        assert (await gateway.ask(x_api_key="sk-a")).status == 200
        assert (await gateway.ask(authorization="bearer sk-a")).status == 200
        assert (await gateway.ask(authorization="Basic sk-a")).status == 401


@pytest.mark.parametrize(
    ("status", "code", "shown"),
    [
        (400, "context_length_exceeded", 400),
        (400, "invalid_request_body", 400),
        (422, "template_render_failed", 422),
        (413, "payload_too_large", 413),
        (500, "nonsense", 500),
    ],
)
async def test_what_a_node_refuses_for_good_is_the_clients_and_is_not_tried_again(
    status: int, code: str, shown: int
) -> None:
    async with fleet(refuses(status, code, max=5, prompt_len=9), answers) as (gateway, nodes):
        sure = {}
        for number in range(16):  # the prompt decides who is first: find the one that refuses
            got = await gateway.ask({"stream": True, "prompt": f"No. {number}"})
            sure[got.status] = got
        refusal = sure[shown]
        assert sum(len(node.turns) for node in nodes) == 16
        assert sure.keys() == {200, shown}
        if code != "nonsense":
            assert error_of(refusal)["code"] == code


async def test_no_node_at_all_is_503_and_an_empty_fleet_says_so() -> None:
    async with fleet() as (gateway, _):
        got = await gateway.ask()
        assert got.status in (404, 503)
        assert error_of(got)["code"] in ("model_not_found", "service_unavailable")
    async with fleet(answers) as (gateway, [node]):
        await node.stop()
        got = await gateway.ask()
        assert got.status in (502, 503)
        if got.status == 503:
            assert 1 <= int(got.headers[b"retry-after"]) <= 59


async def test_an_error_event_before_any_answer_is_still_a_refusal() -> None:
    async def fails(turn: Any) -> None:
        turn.stream(event({"error": {"message": "GPU lost", "code": "model_recovering"}}))

    async with fleet(fails) as (gateway, _):
        got = await gateway.ask({"stream": True})
        assert (got.status, error_of(got)["code"]) == (503, "model_recovering")


async def test_other_methods_and_paths_are_answered_in_the_envelope() -> None:
    async with fleet(answers) as (gateway, _):
        found = await gateway.get(CHAT)
        assert found["error"]["code"] == "method_not_allowed"
        found = await gateway.get("/v1/nothing")
        assert found["error"]["code"] == "not_found"
        assert (await gateway.ask(path="/chat/completions")).status == 200
        assert (await gateway.ask(path="/v1/chat%2Fcompletions")).status == 200
        assert (await gateway.get(f"/v1/models/{MODEL}"))["id"] == MODEL
        assert (await gateway.get("/models/org%2Fm"))["id"] == MODEL
