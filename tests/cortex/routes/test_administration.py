"""The routes of administrators, over a real fleet of fake nodes: who may, and what they do."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import msgspec
import pytest
from starlette.routing import Route
from tests.cortex.routes.test_management import (
    ACME,
    AS_ACME,
    KEYS,
    Model,
    Starter,
    a_request,
    gateway,
)

from helexa.core.principal import ANONYMOUS
from helexa.cortex.profiles import Profile, Profiles

pytestmark = pytest.mark.anyio


AS_ROOT = {"authorization": "Bearer sk-root"}


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({}, 200),
        ({"host": "localhost:1"}, 200),
        ({"peer": "::1", "host": "[::1]:1"}, 200),
        ({"peer": "10.0.0.7"}, 403),
        ({"x_forwarded_for": "1.2.3.4"}, 403),
        ({"host": "gateway.example"}, 403),
        ({"origin": "https://page.example"}, 403),
        ({"origin": "http://127.0.0.1:31313"}, 200),
    ],
)
async def test_without_an_admin_key_only_the_machine_itself_administers(
    fake_node: Starter, how: dict[str, str], status: int
) -> None:
    async with fake_node() as node, gateway(node) as g:
        assert (await g.get("/admin/fleet", **how)).status_code == status


async def test_with_an_admin_key_nothing_else_administers(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node, keys=KEYS) as g:
        assert (await g.get("/admin/fleet")).status_code == 403
        assert (await g.get("/admin/fleet", **AS_ACME)).status_code == 403
        assert (await g.get("/admin/fleet", **AS_ROOT, peer="10.0.0.7")).status_code == 200


PUBLIC = ("health", "ready", "version")


async def test_no_route_is_open_that_is_not_meant_to_be(fake_node: Starter) -> None:
    """Whatever is added to the app is closed, or stands here."""
    public = {"/"} | {f"{at}/{name}" for at in ("", "/v1") for name in PUBLIC}
    async with fake_node() as node, gateway(node, keys=KEYS, required=True) as g:
        for route in g.app.routes:
            assert isinstance(route, Route)
            path = re.sub(r"{[^}]*}", "x", route.path)
            for method in route.methods or ():
                status = (await g.ask(method, path)).status_code
                assert (status == 401) is (path not in public), (method, path, status)
                if path.startswith("/admin"):
                    assert (await g.ask(method, path, **AS_ACME)).status_code == 403, path


async def test_administrators_see_fleet_keys_grants_usage_and_requests(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as node, gateway(node, keys=KEYS) as g:
        fleet = (await g.get("/admin/fleet", **AS_ROOT)).json()
        assert fleet["nodes"][0]["state"] == "reachable"
        assert fleet["nodes"][0]["models"]["m"]["entry"]["status"] == "loaded"
        keys = (await g.get("/admin/keys", **AS_ROOT)).text
        assert "acme" in keys
        assert "sk-" not in keys
        g.deps.ledger.grant(ACME, "r", 1, 30)
        grants = (await g.get("/admin/grants", **AS_ROOT)).json()
        assert [(x["request_id"], x["tokens"]) for x in grants["grants"]] == [("r", 30)]
        for name in ("a", "b"):
            g.deps.timelines.add(a_request(name, ACME))
        found = (await g.get("/admin/requests?limit=1", **AS_ROOT)).json()["requests"]
        assert [(r["id"], r["key_id"]) for r in found] == [("b", "acme")]
        cold = msgspec.structs.replace(a_request("c", ACME), model="org/cold")
        g.deps.timelines.add(cold)
        for name in ("org/cold", "small"):
            of_one = (await g.get(f"/admin/requests?model={name}", **AS_ROOT)).json()["requests"]
            assert [r["id"] for r in of_one] == ["c"]
        assert (await g.get("/admin/requests/req_a", **AS_ROOT)).json()["id"] == "a"
        of_key = (await g.get("/admin/requests?key=nobody", **AS_ROOT)).json()["requests"]
        assert of_key == []
        for odd in ("requests?limit=x", f"requests?limit={'9' * 5000}", "keys?state=gone"):
            refused = await g.get(f"/admin/{odd}", **AS_ROOT)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] in ("limit", "state")
        # A filter that is passed over would show what was not asked for.
        for unknown in ("requests?outcome=failed", "keys?outcome=failed"):
            refused = await g.get(f"/admin/{unknown}", **AS_ROOT)
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "outcome")


async def test_captures_are_armed_downloaded_and_dropped(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node) as g:
        assert (await g.get("/admin/capture")).status_code == 404
        refused = await g.ask("POST", "/admin/capture", {"modle": "m"})
        assert refused.json()["error"]["code"] == "invalid_request_body"
        refused = await g.ask("POST", "/admin/capture", {"key_id": "nobody"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "key_id")
        assert (await g.ask("POST", "/admin/capture", {"key_id": "anonymous"})).status_code == 201
        armed = await g.ask("POST", "/admin/capture", {"model": "small", "requests": 2})
        assert armed.status_code == 201
        assert armed.json()["order"]["model"] == "org/cold"
        watcher = g.deps.captures.watch(ANONYMOUS, "org/cold", "req_a")
        assert watcher is not None
        watcher.request(b"{}")
        watcher.close(200, "complete")
        lines = await g.get("/admin/capture/download")
        assert json.loads(lines.text)["request"] == "{}"
        packed = await g.get("/admin/capture/download?format=zip")
        assert packed.content.startswith(b"PK")
        assert (await g.get("/admin/capture/download?format=tar")).status_code == 400
        assert not (await g.ask("POST", "/admin/capture/stop")).json()["armed"]
        assert (await g.ask("DELETE", "/admin/capture")).status_code == 200
        assert (await g.get("/admin/capture")).status_code == 404


async def test_models_are_loaded_and_unloaded_and_nodes_drained(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node) as g:
        loaded = await g.ask("POST", "/admin/load", {"model": "small"})
        assert loaded.json() == {"model": "org/cold", "node": "n0", "status": "loaded"}
        again = await g.ask("POST", "/admin/load", {"model": "org/cold"})
        assert again.json()["status"] == "present"
        named = await g.ask("POST", "/admin/load", {"model": "any/thing", "node": "n0"})
        assert named.status_code == 202
        nobody = await g.ask("POST", "/admin/load", {"model": "small", "node": "nobody"})
        assert nobody.json()["error"]["param"] == "node"
        unknown = await g.ask("POST", "/admin/load", {"model": "no/such"})
        assert unknown.status_code == 404
        assert "(--node NODE)" in unknown.json()["error"]["message"]
        gone = await g.ask("POST", "/admin/unload", {"model": "small"})
        assert gone.json()["nodes"] == [{"node": "n0", "status": "unloaded"}]
        drained = await g.ask("POST", "/admin/drain", {"node": "n0"})
        assert drained.json() == {"node": "n0", "draining": True}
        assert g.deps.fleet.snapshot().nodes[0].draining
        assert [b for _, p, _, b in node.log if p == "/drain"] == [{"draining": True}]
        node.fail = 503
        failed = await g.ask("POST", "/admin/drain", {"node": "n0", "draining": False})
        assert failed.status_code == 503
        assert "Node n0" in failed.json()["error"]["message"]


async def test_a_load_or_unload_that_cannot_be_says_what_stands_against_it(
    fake_node: Starter,
) -> None:
    async with fake_node() as node, gateway(node) as g:
        pinned = Profile("org/far", "llamacpp", pinned_on=("nowhere",))
        g.deps.profiles.current = Profiles((pinned,))
        load = await g.ask("POST", "/admin/load", {"model": "org/far"})
        assert "it is pinned on nowhere" in load.json()["error"]["message"]
        for order, words in (
            ({"model": "m"}, "No node has the model 'm'."),
            ({"model": "m", "node": "n0"}, "The node 'n0' does not have the model 'm'."),
            ({"model": "m", "node": "far"}, "There is no node called 'far'."),
        ):
            unload = await g.ask("POST", "/admin/unload", order)
            assert unload.json()["error"]["message"] == words


async def test_a_plan_says_which_nodes_the_catalogue_keeps_a_model_from(
    fake_node: Starter,
) -> None:
    async with fake_node() as one, fake_node() as two, gateway(one, two) as g:
        for node in (one, two):
            node.plan = {"model_id": "org/far", "ok": True, "possible": True}
        g.deps.profiles.current = Profiles((Profile("org/far", "llamacpp", pinned_on=("n1",)),))
        told = (await g.ask("POST", "/admin/plan", {"model": "org/far"})).json()["nodes"]
        assert told["n1"]["ok"]
        assert (told["n0"]["ok"], told["n0"]["detail"]) == (False, "The catalogue pins it on n1.")
        named = await g.ask("POST", "/admin/plan", {"model": "org/far", "node": "n0"})
        assert named.json()["nodes"]["n0"]["ok"]
        large = Profile("org/far", "llamacpp", min_devices=9, min_device_vram_mb=24_000)
        g.deps.profiles.current = Profiles((large,))
        told = (await g.ask("POST", "/admin/plan", {"model": "org/far"})).json()["nodes"]
        assert told["n0"]["detail"] == "The catalogue wants 9 devices of 24000 MiB for it."


async def test_a_load_that_is_under_way_already_is_waited_for(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("org/cold", "loading")) as node, gateway(node) as g:
        begun = await g.ask("POST", "/admin/load", {"model": "small", "wait": False})
        assert (begun.status_code, begun.json()["status"]) == (202, "loading")
        asked = asyncio.create_task(g.ask("POST", "/admin/load", {"model": "small"}))
        async with asyncio.timeout(30):
            while not g.deps.residency.queued("org/cold"):
                await asyncio.sleep(0.01)
        assert not asked.done()
        node.put(model("org/cold"))
        loaded = await asyncio.wait_for(asked, 30)
        assert loaded.json() == {"model": "org/cold", "node": "n0", "status": "loaded"}
        assert not node.calls("/models/load")


async def test_an_unload_that_no_node_has_done_is_no_success(
    fake_node: Starter, model: Model
) -> None:
    async with fake_node(model("m")) as one, fake_node(model("m")) as two, gateway(one, two) as g:
        one.fail = 503
        partly = await g.ask("POST", "/admin/unload", {"model": "m"})
        assert partly.status_code == 200
        told = {node["node"]: node["status"] for node in partly.json()["nodes"]}
        assert told["n1"] == "unloaded"
        assert "told to fail" in told["n0"]
        alone = await g.ask("POST", "/admin/unload", {"model": "m", "node": "n0"})
        assert alone.status_code == 503
        assert "Node n0" in alone.json()["error"]["message"]


async def test_a_node_is_added_with_its_own_authority_and_a_name_that_can_be_written(
    fake_node: Starter,
) -> None:
    async with fake_node() as node, gateway(node) as g:
        order = {"name": "far", "endpoint": "https://127.0.0.1:9", "ca": "/etc/far/ca.pem"}
        added = await g.ask("POST", "/admin/nodes", order)
        assert added.status_code == 201
        assert [n.ca for n in g.deps.roster.added()] == [Path("/etc/far/ca.pem")]
        same = await g.ask("POST", "/admin/nodes", {"name": "far", "endpoint": "http://one:1"})
        assert same.json()["error"]["message"] == "name: there are two neurons called 'far'."
        for name in ("a\r\nx-other: 1", " a", ""):
            refused = await g.ask("POST", "/admin/nodes", {**order, "name": name})
            assert (refused.status_code, "name" in refused.text) == (400, True)
