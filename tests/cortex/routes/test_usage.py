"""Reports over the admin API of a whole gateway in this process."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
from typing import Any

import pytest
from tests.cortex.exchange.rig import MODEL, Gateway, answers, fleet
from tests.relay.rig import Got, client, until

from helexa.cortex.ledger.verify import verify
from helexa.cortex.usage import sum_up

pytestmark = pytest.mark.anyio

KEYS = """
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
[[entitlements.keys]]
key = "sk-a"
account_id = "acme"
key_id = "acme-one"
hard_cap = 1000
[[entitlements.keys]]
key = "sk-b"
account_id = "acme"
key_id = "acme-two"
"""
PRICED = f'[[models]]\nid = "{MODEL}"\nharness = "llamacpp"\ncost = {{ input = 10, output = 20 }}\n'


async def got(gateway: Gateway, path: str, key: str = "sk-root") -> Got:
    async with client(gateway.port) as raw:
        raw.send(f"GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n".encode())
        return await raw.answer()


async def report(gateway: Gateway, query: str = "") -> Any:
    return json.loads((await got(gateway, f"/admin/usage{query}")).body)


async def spend(gateway: Gateway) -> None:
    """Three requests of 7 + 2 tokens, in the books."""
    for key, body in (("sk-a", {}), ("sk-a", {"stream": True}), ("sk-b", {})):
        assert (await gateway.ask(body, x_api_key=key)).status == 200
    async with asyncio.timeout(30):
        while (await report(gateway))["total"]["requests"] != 3:
            await asyncio.sleep(0.01)


async def test_usage_is_reported_by_key_account_model_node_and_day() -> None:
    async with fleet(answers, config=KEYS, models=PRICED) as (gateway, _):
        await spend(gateway)
        by_key = (await report(gateway))["rows"]
        assert [(r["key"], r["requests"], r["prompt_tokens"], r["completion_tokens"])
                for r in by_key] == [("acme-one", 2, 14, 4), ("acme-two", 1, 7, 2)]  # fmt: skip
        assert by_key[0]["cost_usd"] == pytest.approx((14 * 10 + 4 * 20) / 1e6)
        [row] = (await report(gateway, "?group_by=account,model,node"))["rows"]
        assert (row["account"], row["model"], row["node"], row["total_tokens"]) == (
            "acme", MODEL, "n0", 27,
        )  # fmt: skip
        only = await report(gateway, "?group_by=day&key=acme-two&since=2020-01-01")
        assert [r["requests"] for r in only["rows"]] == [1]
        assert (await report(gateway, "?until=2020-01-01"))["rows"] == []


async def test_usage_and_its_requests_can_be_taken_along_as_csv() -> None:
    async with fleet(answers, config=KEYS, models=PRICED) as (gateway, _):
        await spend(gateway)
        sums = await got(gateway, "/admin/usage?group_by=key&format=csv")
        assert sums.headers[b"content-type"].startswith(b"text/csv")
        assert b"usage.csv" in sums.headers[b"content-disposition"]
        rows = list(csv.DictReader(io.StringIO(sums.body.decode())))
        assert [(r["key"], r["total_tokens"]) for r in rows] == [
            ("acme-one", "18"),
            ("acme-two", "9"),
        ]
        single = await got(gateway, "/admin/usage/requests?key=acme-one&format=csv&limit=1")
        rows = list(csv.DictReader(io.StringIO(single.body.decode())))
        assert [(r["key_id"], r["model"], r["prompt"]) for r in rows] == [("acme-one", MODEL, "7")]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("group_by=colour", "group_by"),
        ("since=soon", "since"),
        ("until=1e999", "until"),
        (f"since={'9' * 30}", "since"),
        (f"until={'9' * 300}", "until"),
        ("format=xml", "format"),
        ("gruop_by=key", "gruop_by"),
    ],
)
async def test_a_report_that_cannot_be_made_names_the_parameter(query: str, param: str) -> None:
    async with fleet(answers, config=KEYS) as (gateway, _):
        for path in ("/admin/usage", "/admin/usage/requests"):
            answer = await got(gateway, f"{path}?{query}")
            error = json.loads(answer.body)["error"]
            assert (answer.status, error["param"]) == (400, param)
        assert (await got(gateway, "/admin/usage", "sk-a")).status == 403


async def test_a_key_sees_its_own_budget_as_its_requests_run() -> None:
    async with fleet(answers, config=KEYS) as (gateway, _):
        mine = await gateway.get("/v1/usage", x_api_key="sk-a")
        assert (mine["hard_cap"], mine["spent_tokens"], mine["available_tokens"]) == (1000, 0, 1000)
        assert (await gateway.ask({}, x_api_key="sk-a")).status == 200
        await until(lambda: not gateway.front.app.running)
        mine = await gateway.get("/v1/usage", x_api_key="sk-a")
        assert (mine["spent_tokens"], mine["open_tokens"], mine["requests"]) == (9, 0, 1)
        assert mine["window"] == {"kind": "balance", "seconds": None}
        free = await gateway.get("/v1/usage", x_api_key="sk-b")
        assert (free["hard_cap"], free["available_tokens"], free.get("windows")) == (
            None, None, None,
        )  # fmt: skip


async def test_what_is_put_away_leaves_the_report_and_the_proof_of_the_books_as_they_were() -> None:
    async with fleet(answers, config=KEYS, models=PRICED) as (gateway, _):
        await spend(gateway)
        query = "?group_by=account,key,model,node,day"
        before = await report(gateway, query)
        store = gateway.rooms.kept.store
        assert store is not None
        await sum_up(store, int(time.time() * 1000) + 1)
        assert await store.read(lambda db: db.execute("SELECT COUNT(*) FROM requests")) == [(0,)]
        assert await report(gateway, query) == before
        proof = await store.read(verify)
        assert proof.ok, proof
        assert proof.spent == before["total"]["total_tokens"]
