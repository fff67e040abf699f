"""What a node is told about a request, and what never leaves the gateway."""

from __future__ import annotations

import pytest
from tests.cortex.exchange.rig import KEYS, MODEL, answers, error_of, fleet, refuses
from tests.relay.rig import until

pytestmark = pytest.mark.anyio

FORGED = {
    "x_helexa_account_id": "bank",
    "x_helexa_key_id": "bank",
    "x_helexa_grant": "999999999",
    "x_helexa_gateway": "evil/1",
    "x_helexa_attempt": "77",
    "x_helexa_anything": "x",
    "cookie": "session=1",
    "x_api_key": "sk-a",
    "proxy_authorization": "Basic x",
    "user_agent": "client/1",
}
STREAM = {"stream": True}


async def test_principal_headers_are_ours_and_the_clients_own_stay_here() -> None:
    async with fleet(answers, config=KEYS + '[fleet]\nsecret = "between-us"\n') as (
        gateway,
        [node],
    ):
        await gateway.ask(STREAM, **FORGED)
        sent = node.turns[0].headers
        assert sent["x-helexa-account-id"] == "acme"
        assert sent["x-helexa-key-id"] == "acme-one"
        assert sent["x-helexa-attempt"] == "1"
        assert sent["authorization"] == "Bearer between-us"
        name, _, epoch = sent["x-helexa-gateway"].rpartition("/")
        assert (name, int(epoch)) == (gateway.parts.name, gateway.parts.epoch)
        ours = {
            "host", "content-type", "content-length", "authorization", "x-request-id",
            "x-helexa-account-id", "x-helexa-key-id", "x-helexa-attempt", "x-helexa-gateway",
        }  # fmt: skip
        assert sent.keys() == ours  # no grant: the key is uncapped
        # Management calls carry the same trust.
        assert all(h["authorization"] == "Bearer between-us" for _, _, h, _ in node.log)


async def test_without_a_secret_no_authorization_is_sent_at_all() -> None:
    async with fleet(answers, config=KEYS) as (gateway, [node]):
        await gateway.ask(authorization="Bearer sk-a")
        assert "authorization" not in node.turns[0].headers


async def test_the_clients_request_id_is_echoed_and_ours_goes_to_the_node() -> None:
    async with fleet(answers, refuses(400, "invalid_request_body")) as (gateway, nodes):
        for _ in range(4):
            got = await gateway.ask(x_request_id="mine/1")
            assert got.headers[b"x-request-id"] == b"mine/1"
        told = {turn.headers["x-request-id"] for node in nodes for turn in node.turns}
        assert len(told) == 4  # each its own: settlement goes by it
        assert all(t.startswith("req_") and t[4:].isalpha() for t in told)
        got = await gateway.ask(x_request_id="x" * 500)
        assert got.headers[b"x-request-id"] == b"x" * 128


async def test_inline_thinking_is_the_one_wish_that_is_passed_on() -> None:
    async with fleet(answers) as (gateway, [node]):
        for given, told in (("true", "true"), ("TRUE", "true"), ("1", None), ("false", None)):
            await gateway.ask(x_include_thinking=given)
            assert node.turns[-1].headers.get("x-include-thinking") == told


async def test_a_keys_priority_is_told_and_a_clients_own_is_not() -> None:
    config = KEYS + '[[entitlements.keys]]\nkey = "sk-b"\naccount_id = "b"\npriority = -3\n'
    async with fleet(answers, config=config) as (gateway, [node]):
        for key, priority in (("sk-a", None), ("sk-b", "-3")):
            await gateway.ask(x_api_key=key, x_helexa_priority="1000")
            assert node.turns[-1].headers.get("x-helexa-priority") == priority


async def test_a_web_page_may_read_the_answer_and_the_refusal() -> None:
    async with fleet(answers) as (gateway, _):
        for body in (STREAM, {}, {"model": "org/missing"}):
            got = await gateway.ask(body, origin="https://page.example")
            assert got.headers[b"access-control-allow-origin"] == b"*"


async def test_a_key_uses_its_models_by_any_of_their_names() -> None:
    models = f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\n[aliases]\nsmall = "{MODEL}"\n'
    config = '[entitlements]\nrequire_auth = true\n[[entitlements.keys]]\nkey = "sk-s"\n'
    config += 'account_id = "s"\nmodels = ["small"]\n'
    async with fleet(answers, config=config, models=models) as (gateway, [node]):
        for name in ("small", MODEL):
            assert (await gateway.ask({"model": name}, x_api_key="sk-s")).status == 200
            assert node.turns[-1].body["model"] == MODEL


async def test_a_node_that_leaves_is_known_to_be_gone_and_comes_back() -> None:
    async with fleet(answers) as (gateway, [node]):
        await node.stop()
        refused = await gateway.ask()
        assert refused.status in (502, 503)
        assert error_of(refused)["code"] in ("upstream_connection_error", "service_unavailable")
        await node.start()
        await until(lambda: gateway.rooms.fleet.snapshot().nodes[0].events)
        assert (await gateway.ask()).status == 200
