"""Keys and accounts over the admin API of a whole gateway in this process."""

from __future__ import annotations

import json
from typing import Any, get_type_hints

import pytest
from msgspec import UNSET
from msgspec.structs import fields
from tests.cortex.exchange.rig import Gateway, answers, error_of, fleet
from tests.relay.rig import Got, client

from helexa.cortex.entitlements import KeyMembers, KeySettings
from helexa.cortex.ledger.keys import KeyRights
from helexa.cortex.routes.keys import ChangeOrder, KeyOrder

pytestmark = pytest.mark.anyio

KEPT = set(KeyRights.__struct_fields__)
CONFIG = """
[entitlements]
require_auth = true
[[entitlements.keys]]
key = "sk-root"
account_id = "ops"
admin = true
[[entitlements.accounts]]
account_id = "sealed"
hard_cap = 500
"""


async def admin(
    gateway: Gateway, path: str, body: Any = None, *, method: str = "", key: str = "sk-root"
) -> tuple[int, Any]:
    got = await raw(gateway, path, body, method=method, key=key)
    return got.status, json.loads(got.body)


async def raw(
    gateway: Gateway, path: str, body: Any = None, *, method: str = "", key: str = "sk-root"
) -> Got:
    data = b"" if body is None else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {key}\r\n"
    async with client(gateway.port) as connection:
        connection.send(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
        return await connection.answer()


def test_what_a_key_may_do_is_said_alike_in_settings_orders_and_changes() -> None:
    told = {name: kind for name, kind in get_type_hints(KeyMembers).items() if name in KEPT}
    assert set(told) == KEPT
    for order in (KeySettings, KeyOrder):
        assert {name: get_type_hints(order)[name] for name in KEPT} == told
    assert set(ChangeOrder.__struct_fields__) == KEPT | {"note"}
    for name in KEPT:
        field = next(f for f in fields(ChangeOrder) if f.name == name)
        assert field.default is UNSET


async def test_a_key_is_made_used_changed_rotated_and_revoked() -> None:
    async with fleet(answers, config=CONFIG) as (gateway, _):
        made = await raw(gateway, "/admin/keys", {"account_id": "acme", "hard_cap": 100})
        assert (made.status, made.headers[b"cache-control"]) == (201, b"no-store")
        key = json.loads(made.body)
        secret = key["secret"]
        assert (await gateway.ask({}, x_api_key=secret)).status == 200
        shown = await raw(gateway, f"/admin/keys/{key['key_id']}")
        assert secret.encode() not in shown.body
        seen = json.loads(shown.body)
        assert (seen["usage"]["hard_cap"], seen["usage"]["spent_tokens"]) == (100, 9)

        status, changed = await admin(
            gateway, f"/admin/keys/{key['prefixes'][0]}",
            {"caps": [{"tokens": 10_000}], "models": ["other"], "max_concurrent": 3},
        )  # fmt: skip
        assert (status, changed["caps"][0]["tokens"], changed["max_concurrent"]) == (200, 10_000, 3)
        assert changed["usage"]["spent_tokens"] == 9
        refused = await gateway.ask({}, x_api_key=secret)
        assert (refused.status, error_of(refused)["code"]) == (403, "forbidden")
        await admin(gateway, f"/admin/keys/{key['key_id']}", {"models": [], "max_concurrent": None})

        _, rotated = await admin(gateway, f"/admin/keys/{key['key_id']}/rotate", {})
        assert (await gateway.ask({}, x_api_key=secret)).status == 401
        assert (await gateway.ask({}, x_api_key=rotated["secret"])).status == 200
        status, revoked = await admin(gateway, f"/admin/keys/{key['key_id']}/revoke", {})
        assert (status, revoked["state"], revoked["prefixes"]) == (200, "revoked", [])
        assert (await gateway.ask({}, x_api_key=rotated["secret"])).status == 401


async def test_keys_are_listed_with_those_of_cortex_toml_and_without_secrets() -> None:
    async with fleet(answers, config=CONFIG) as (gateway, _):
        await admin(gateway, "/admin/keys", {"account_id": "acme", "key_id": "a"})
        await admin(gateway, "/admin/keys", {"account_id": "acme", "key_id": "b"})
        await admin(gateway, "/admin/keys/b/revoke", {})
        everything = await raw(gateway, "/admin/keys")
        assert b"secret" not in everything.body
        assert b"digest" not in everything.body
        keys = json.loads(everything.body)["keys"]
        assert [(k["key_id"], k["source"], k["state"]) for k in keys] == [
            ("ops", "settings", "active"),
            ("a", "ledger", "active"),
            ("b", "ledger", "revoked"),
        ]
        _, found = await admin(gateway, "/admin/keys?account=acme&state=active")
        assert [k["key_id"] for k in found["keys"]] == ["a"]


async def test_an_accounts_cap_binds_its_keys_from_the_next_request_on() -> None:
    async with fleet(answers, config=CONFIG) as (gateway, _):
        secrets = []
        for _ in range(2):
            _, made = await admin(gateway, "/admin/keys", {"account_id": "acme"})
            secrets.append(made["secret"])
            assert (await gateway.ask({}, x_api_key=made["secret"])).status == 200
        # What it has spent before counts, as it would if the gateway had been started again.
        order = {"account_id": "acme", "caps": [{"tokens": 18 + 9}]}
        assert (await admin(gateway, "/admin/accounts", order))[0] == 200
        assert (await gateway.ask({}, x_api_key=secrets[0])).status == 200  # it has 9 tokens left
        refused = await gateway.ask({}, x_api_key=secrets[1])
        assert (refused.status, error_of(refused)["code"]) == (429, "insufficient_quota")
        assert "account" in error_of(refused)["message"]
        mine = await gateway.get("/v1/usage", x_api_key=secrets[1])
        assert [w["scope"] for w in mine["windows"]] == ["account"]
        assert mine["available_tokens"] == 0
        order = {"account_id": "acme", "caps": []}
        await admin(gateway, "/admin/accounts", order)
        assert (await gateway.ask({}, x_api_key=secrets[1])).status == 200
        _, listed = await admin(gateway, "/admin/accounts")
        assert [(a["account_id"], a["source"]) for a in listed["accounts"]] == [
            ("acme", "ledger"),
            ("ops", "ledger"),  # it has no caps there: it may be given some here
            ("sealed", "settings"),
        ]
        status, sealed = await admin(gateway, "/admin/accounts", {"account_id": "sealed"})
        assert (status, sealed["error"]["param"]) == (400, "account_id")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/admin/keys", {}, 400, None),
        ("/admin/keys", {"account_id": "a", "modles": []}, 400, None),
        ("/admin/keys", {"account_id": "a/b"}, 400, "account_id"),
        ("/admin/keys", {"account_id": "a", "key_id": "ops"}, 400, "key_id"),
        ("/admin/keys", {"account_id": "a", "hard_cap": -1}, 400, "hard_cap"),
        ("/admin/keys", {"account_id": "a", "caps": [{"tokens": -1}]}, 400, "caps"),
        ("/admin/keys", {"account_id": "a", "caps": [{"tokens": 1, "window": {"kind": "rolling"}}]},
         400, "caps"),
        ("/admin/keys", {"account_id": "a", "requests_per_minute": 0}, 400, "requests_per_minute"),
        ("/admin/keys/ops/rotate", {}, 400, "key_id"),
        ("/admin/keys/ops", {"note": "x"}, 400, "key_id"),
        ("/admin/keys/none", {"note": "x"}, 404, None),
        ("/admin/keys", {"account_id": "a", "note": "\0"}, 400, "note"),
        ("/admin/keys/none/rotate", {}, 404, None),
        ("/admin/keys/none/revoke", {}, 404, None),
        ("/admin/keys/ops/rotate", {"grace_secs": -1}, 400, "grace_secs"),
        ("/admin/keys/ops/rotate", {"grace_secs": 1e12}, 400, "grace_secs"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_says_where_it_is_wrong(
    path: str, body: Any, status: int, param: str | None
) -> None:
    async with fleet(answers, config=CONFIG) as (gateway, _):
        got, answer = await admin(gateway, path, body)
        assert (got, answer["error"]["param"]) == (status, param)
        if status == 404:
            assert "no key called 'none'" in answer["error"]["message"]


async def test_keys_without_admin_and_strangers_change_nothing() -> None:
    async with fleet(answers, config=CONFIG) as (gateway, _):
        _, made = await admin(gateway, "/admin/keys", {"account_id": "acme", "key_id": "a"})
        for key, status in ((made["secret"], 403), ("sk-none", 401)):
            for path in ("/admin/keys", "/admin/keys/a", "/admin/keys/a/rotate",
                         "/admin/keys/a/revoke", "/admin/accounts"):  # fmt: skip
                got, _ = await admin(gateway, path, {"account_id": "acme", "admin": True}, key=key)
                assert got == status
        assert (await gateway.ask({}, x_api_key=made["secret"])).status == 200


async def test_a_key_made_an_administrator_closes_the_machines_own_door() -> None:
    async with fleet(answers) as (gateway, _):
        assert (await admin(gateway, "/admin/keys", key="none"))[0] == 200
        _, made = await admin(gateway, "/admin/keys", {"account_id": "a", "admin": True}, key="")
        assert (await admin(gateway, "/admin/keys", key="none"))[0] == 403
        assert (await admin(gateway, "/admin/keys", key=made["secret"]))[0] == 200
        await admin(gateway, f"/admin/keys/{made['key_id']}/revoke", {}, key=made["secret"])
        assert (await admin(gateway, "/admin/keys", key="none"))[0] == 200
