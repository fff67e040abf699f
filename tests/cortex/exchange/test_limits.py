"""What a key may not do is refused in words, codes and times that clients act on rightly."""

from __future__ import annotations

import asyncio
import json
import time

import openai
import pytest
from tests.cortex.exchange.rig import (
    MODEL,
    Gateway,
    answers,
    delta,
    error_of,
    fleet,
    held,
    request,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import Got, client, until

from helexa.core.principal import Principal

pytestmark = pytest.mark.anyio

KEYS = """
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-slow"
account_id = "slow"
requests_per_minute = 2
[[entitlements.keys]]
key = "sk-single"
account_id = "single"
max_concurrent = 1
[[entitlements.keys]]
key = "sk-past"
account_id = "past"
expires = 2020-01-01T00:00:00Z
[[entitlements.keys]]
key = "sk-other"
account_id = "other"
models = ["other"]
[[entitlements.keys]]
key = "sk-careful"
account_id = "careful"
may_load = false
[[entitlements.keys]]
key = "sk-spent"
account_id = "spent"
hard_cap = 0
[[entitlements.keys]]
key = "sk-rolls"
account_id = "rolls"
hard_cap = 9
window = { kind = "rolling", seconds = 600 }
"""
CATALOGUE = f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\n'
COLD = '[[models]]\nid = "org/cold"\nharness = "llamacpp"\n'
HELLO = [{"role": "user", "content": "Hi"}]


def sdk(gateway: Gateway, key: str, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{gateway.port}/v1", api_key=key, max_retries=retries, timeout=60
    )


async def ask(gateway: Gateway, key: str, model: str = MODEL, retries: int = 0) -> str | None:
    async with sdk(gateway, key, retries) as one:
        made = await one.chat.completions.create(model=model, messages=HELLO)  # type: ignore[arg-type]
        return made.choices[0].message.content


async def test_the_openai_sdk_sees_401_for_unknown_and_expired_keys() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, _):
        for key, word in (("sk-none", "unknown"), ("sk-past", "expired")):
            with pytest.raises(openai.AuthenticationError, match=word) as caught:
                await ask(gateway, key)
            assert caught.value.code == "invalid_api_key"
            # LiteLLM, and all that is built on it, knows a wrong key by these words alone.
            assert "Incorrect API key provided" in caught.value.message
            assert "retry-after" not in caught.value.response.headers


async def test_the_openai_sdk_sees_403_for_another_model_and_for_a_load() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE + COLD) as (gateway, _):
        with pytest.raises(openai.PermissionDeniedError, match=MODEL) as caught:
            await ask(gateway, "sk-other")
        assert (caught.value.code, caught.value.param) == ("forbidden", "model")
        assert await ask(gateway, "sk-careful") == "Hi"
        with pytest.raises(openai.PermissionDeniedError, match="cause a load") as caught:
            await ask(gateway, "sk-careful", "org/cold")
        assert caught.value.code == "forbidden"


async def test_the_openai_sdk_sees_429_for_too_many_requests_a_minute() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, [node]):
        for _ in range(2):
            assert await ask(gateway, "sk-slow") == "Hi"
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(gateway, "sk-slow")
        assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "requests")
        assert 20 < int(caught.value.response.headers["retry-after"]) < 60  # clients ignore more
        body = caught.value.response.json()["error"]
        assert 20 < body["retry_after_s"] <= 60
        assert len(node.turns) == 2


async def test_a_spent_balance_is_not_retried_and_a_spent_window_says_when() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, [node]):
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(gateway, "sk-spent", retries=5)
        assert caught.value.code == "insufficient_quota"
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert "retry-after" not in caught.value.response.headers
        assert await ask(gateway, "sk-rolls") == "Hi"
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(gateway, "sk-rolls")
        assert caught.value.code == "rate_limit_exceeded"
        body = caught.value.response.json()["error"]
        assert 590 < body["retry_after_s"] <= 620  # its bucket leaves as a whole
        assert abs(body["resets_at"] - time.time() - body["retry_after_s"]) < 5
        assert len(node.turns) == 1


async def test_a_client_that_waits_as_told_gets_its_turn_after_the_open_one() -> None:
    release = asyncio.Event()

    async def slow(turn: Turn) -> None:
        if turn.body.get("stream"):
            turn.open()
            turn.send(delta("Hel"))
            await release.wait()
            turn.ended("cancelled", prompt=7, output=1)
        else:
            await answers(turn)

    async with fleet(slow, config=KEYS, models=CATALOGUE) as (gateway, [node]):
        async with client(gateway.port) as first:
            first.send(request({"stream": True}, x_api_key="sk-single"))
            await until(lambda: node.turns)
            refused = await gateway.ask({}, x_api_key="sk-single")
            assert (refused.status, refused.headers[b"retry-after"]) == (429, b"1")
            assert error_of(refused)["code"] == "rate_limit_exceeded"
            waiting = asyncio.create_task(ask(gateway, "sk-single", retries=3))
            await until(lambda: gateway.metric("cortex_refusals_total") >= 2)
        release.set()
        assert await waiting == "Hi"
        assert gateway.front.app._desk.seats.open(keys_of(gateway)["single"]) == 0


def keys_of(gateway: Gateway) -> dict[str, Principal]:
    return {who.key_id: who for who in gateway.front.app._desk.keys.principals}


async def test_seats_come_back_on_every_way_out() -> None:
    async with fleet(held, config=KEYS, models=CATALOGUE) as (gateway, [node]):
        seats, single = gateway.front.app._desk.seats, keys_of(gateway)["single"]
        for body in (b"{", b'{"model": 1}', json.dumps({"model": "no/such"}).encode()):
            assert (await gateway.ask(body, x_api_key="sk-single")).status in (400, 404)
            assert seats.open(single) == 0
        async with client(gateway.port) as leaves:
            leaves.send(request({"stream": True}, x_api_key="sk-single"))
            await until(lambda: node.turns)
            assert seats.open(single) == 1
        await until(lambda: seats.open(single) == 0)


@pytest.mark.parametrize(
    ("key", "status", "kind"),
    [
        ("sk-none", 401, "authentication_error"),
        ("sk-past", 401, "authentication_error"),
        ("sk-other", 403, "permission_error"),
        ("sk-spent", 429, "billing_error"),
    ],
)
async def test_messages_clients_are_refused_in_their_own_dialect(
    key: str, status: int, kind: str
) -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, _):
        body = {"model": MODEL, "max_tokens": 5, "messages": HELLO}
        got = await gateway.ask(body, path="/v1/messages", x_api_key=key)
        said = json.loads(got.body)
        assert (got.status, said["type"], said["error"]["type"]) == (status, "error", kind)


def told(got: Got) -> dict[str, str]:
    """The limits that an answer tells."""
    return {
        name.decode().removeprefix("x-ratelimit-"): value.decode()
        for name, value in got.headers.items()
        if name.startswith(b"x-ratelimit-")
    }


BOTH = """
[[entitlements.keys]]
key = "sk-both"
account_id = "both"
requests_per_minute = 3
caps = [{ tokens = 1000 }, { tokens = 40, window = { kind = "rolling", seconds = 600 } }]
"""


async def test_answers_tell_what_is_left_of_a_keys_minute_and_tightest_cap() -> None:
    async with fleet(answers, config=KEYS + BOTH, models=CATALOGUE) as (gateway, _):
        first = await gateway.ask({}, x_api_key="sk-both")
        limits = told(first)
        assert (first.status, limits["limit-requests"], limits["limit-tokens"]) == (200, "3", "40")
        assert limits["remaining-requests"] == "2"
        assert 50 <= int(limits["reset-requests"].removesuffix("s")) <= 60
        assert 0 <= int(limits["remaining-tokens"]) <= 40
        await until(lambda: not gateway.front.app.running)
        second = told(await gateway.ask({"stream": True}, x_api_key="sk-both"))
        assert second["remaining-requests"] == "1"
        assert int(second["remaining-tokens"]) <= 31  # nine are spent, the rest may be held
        assert 0 < int(second["reset-tokens"].rstrip("s")) <= 610
        assert (await gateway.ask({}, x_api_key="sk-both")).status == 200
        refused = await gateway.ask({}, x_api_key="sk-both")
        limits = told(refused)
        assert (refused.status, limits["remaining-requests"]) == (429, "0")
        assert 50 <= int(limits["reset-requests"].rstrip("s")) <= 60


async def test_a_refusal_for_tokens_tells_once_when_to_come_again() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, _):
        assert (await gateway.ask({}, x_api_key="sk-rolls")).status == 200
        await until(lambda: not gateway.front.app.running)
        refused = await gateway.ask({}, x_api_key="sk-rolls")
        assert refused.status == 429
        limits = told(refused)
        assert (limits["limit-tokens"], limits["remaining-tokens"]) == ("9", "0")
        after = error_of(refused)["retry_after_s"]
        assert int(limits["reset-tokens"].rstrip("s")) == pytest.approx(after, abs=1)
        balance = told(await gateway.ask({}, x_api_key="sk-spent"))
        assert balance == {"limit-tokens": "0", "remaining-tokens": "0"}


async def test_a_key_without_such_limits_is_told_nothing() -> None:
    async with fleet(answers, config=KEYS, models=CATALOGUE) as (gateway, _):
        for key in ("sk-single", "sk-careful"):
            assert told(await gateway.ask({}, x_api_key=key)) == {}
