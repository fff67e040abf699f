"""The routes that are not relayed, over a real fleet of fake nodes."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from helexa.core.build_info import BuildInfo
from helexa.core.ids import id_source
from helexa.core.logging import get_logger
from helexa.core.principal import ANONYMOUS, Cap, Principal
from helexa.core.usage import Usage
from helexa.cortex.auth import KeyTable
from helexa.cortex.capture import Captures
from helexa.cortex.exchange.desk import Placed, Times
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.node import Pace
from helexa.cortex.fleet.roster import FleetDoor, Roster
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.base import Settlement
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.condition import Condition
from helexa.cortex.ledger.keys import MemoryKeys
from helexa.cortex.profiles import Profile, ProfileFile, Profiles
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.world import Rules
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.management import management_app
from helexa.cortex.routes.respond import SLICE, reply_list
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.seats import KeySeats
from helexa.cortex.settings import NeuronSettings
from helexa.cortex.timeline import Timeline
from helexa.cortex.timelines import Timelines

pytestmark = pytest.mark.anyio


if TYPE_CHECKING:
    from tests.cortex.fake_node import FakeNode


Starter = Callable[..., AbstractAsyncContextManager["FakeNode"]]


Model = Callable[..., dict[str, Any]]


PACE = Pace(poll=0.05, poll_with_events=0.05, timeout=0.5, retry=0.01, retry_longest=0.02)


ROOT = Principal("ops", "root", admin=True)


ACME = Principal("acme", "acme", caps=(Cap(100),), models=("small",))


KEYS = {b"sk-root": ROOT, b"sk-acme": ACME}


CATALOGUE = Profiles((Profile("org/cold", "llamacpp"),), {"small": "org/cold"})


AS_ACME = {"x-api-key": "sk-acme"}


ANTHROPIC = {"anthropic-version": "2023-06-01"}


class Gateway:
    """The app with its rooms, and a client at ``peer``."""

    def __init__(self, deps: ManagementDeps) -> None:
        self.deps = deps
        self.app = management_app(deps)

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        peer: str = "127.0.0.1",
        host: str = "127.0.0.1:31313",
        **headers: str,
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, client=(peer, 1234), raise_app_exceptions=False)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
            content = None if body is None else json.dumps(body)
            return await client.request(method, path, content=content, headers=fields)

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.ask("GET", path, **more)


@asynccontextmanager
async def gateway(
    *nodes: FakeNode, keys: dict[bytes, Principal] | None = None, required: bool = False
) -> AsyncIterator[Gateway]:
    fleet = Fleet(now=time.time, rng=random.Random(1), pace=PACE)
    for index, node in enumerate(nodes):
        fleet.add(f"n{index}", node.url, HttpNode(node.url, Trust("gw")))

    def opened(found: NeuronSettings) -> None:
        fleet.add(found.name, found.endpoint, HttpNode(found.endpoint, Trust("gw")))

    profiles, leases = ProfileFile(None, CATALOGUE), LeaseTable()
    clock = asyncio.get_running_loop().time
    residency = Residency(fleet, profiles, leases, Rules(max_wait_s=5), clock)
    table = [(sha256(secret).digest(), who) for secret, who in (keys or {}).items()]
    known = KeyTable(table, required=required, now=time.time)
    deps = ManagementDeps(
        keys=known,
        keyring=Keyring(dict(table), {}, MemoryKeys(), known, now=time.time, log=get_logger()),
        seats=KeySeats(time.monotonic),
        usage=None,
        profiles=profiles,
        fleet=fleet,
        roster=Roster(FleetDoor(fleet, opened, lambda _: None)),
        residency=residency,
        leases=leases,
        ledger=Book(time.time),
        condition=Condition,
        timelines=Timelines(time.time),
        captures=Captures(time.time),
        build=BuildInfo(
            "0.1.0", "abc", None, git_dirty=False, build_timestamp=None, python_version="3"
        ),
        ids=id_source(1),
        log=get_logger(),
        started=1_700_000_000,
        now=time.time,
        post_paths=frozenset(("/v1/chat/completions",)),
    )
    running = [asyncio.create_task(fleet.run()), asyncio.create_task(residency.run())]
    async with asyncio.timeout(30):
        await fleet.wait_until(lambda f: all(n.discovery and n.events for n in f.nodes))
    try:
        yield Gateway(deps)
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


def a_request(name: str, who: Principal) -> Timeline:
    times = Times(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
    return Timeline(
        f"req_{name}", name, "chat", "m", False, who, Placed("n0"), 1, 200, 5, "complete",
        None, times, Usage(1, 2), None, 100.0,
    )  # fmt: skip


async def test_health_root_and_version_are_public(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("m")) as node, gateway(node, keys=KEYS, required=True) as g:
        health = await g.get("/health")
        assert health.json() == {
            "status": "ok",
            "nodes": {"healthy": 1, "total": 1},
            "ledger": {"ok": True},
            "unservable": [],
        }
        ready = await g.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        assert (await g.get("/")).json()["name"] == "helexa"
        version = (await g.get("/version")).json()
        assert (version["package_version"], version["git_sha"]) == ("0.1.0", "abc")
        assert (await g.ask("HEAD", "/health")).status_code == 200


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_models_in_both_shapes_with_and_without_the_prefix(
    fake_node: Starter, model: Model, prefix: str
) -> None:
    async with fake_node(model("a/b")) as node, gateway(node) as g:
        listed = (await g.get(f"{prefix}/models")).json()
        assert [m["id"] for m in listed["data"]] == ["org/cold", "a/b", "small"]
        assert listed["data"][1]["locations"][0]["node"] == "n0"
        claude = (await g.get(f"{prefix}/models", **ANTHROPIC)).json()
        assert claude["first_id"] == "org/cold"
        rest = (await g.get(f"{prefix}/models?limit=1&after_id=a/b", **ANTHROPIC)).json()
        assert [m["id"] for m in rest["data"]] == ["small"]
        none = await g.get(f"{prefix}/models?limit=0", **ANTHROPIC)
        assert "limit must be a number from 1 to" in none.json()["error"]["message"]
        for path in ("a/b", "a%2Fb", "a%2fb"):
            assert (await g.get(f"{prefix}/models/{path}")).json()["id"] == "a/b"
        one = (await g.get(f"{prefix}/models/small", **ANTHROPIC)).json()
        assert (one["type"], one["id"]) == ("model", "small")
        missing = await g.get(f"{prefix}/models/none")
        assert missing.status_code == 404
        assert missing.json()["error"]["code"] == "model_not_found"


async def test_a_key_sees_the_models_it_may_use(fake_node: Starter, model: Model) -> None:
    async with fake_node(model("a/b")) as node, gateway(node, keys=KEYS, required=True) as g:
        refused = await g.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
        mine = (await g.get("/v1/models", **AS_ACME)).json()
        assert [m["id"] for m in mine["data"]] == ["org/cold", "small"]
        assert (await g.get("/v1/models/a/b", **AS_ACME)).status_code == 404


async def test_listing_is_one_of_a_keys_requests(fake_node: Starter, model: Model) -> None:
    slow = {b"sk-slow": Principal("slow", "slow", requests_per_minute=2)}
    async with fake_node(model("a/b")) as node, gateway(node, keys=slow, required=True) as g:
        key = {"authorization": "Bearer sk-slow"}
        for path in ("/v1/models", "/models/a/b"):
            assert (await g.get(path, **key)).status_code == 200
        got = await g.get("/v1/models", **key)
        assert got.status_code == 429
        assert got.json()["error"]["code"] == "rate_limit_exceeded"
        assert 1 <= int(got.headers["retry-after"]) <= 59
        assert (await g.get("/v1/usage", **key)).status_code == 200  # asking how it stands is not


async def test_a_key_sees_its_own_budget_and_requests(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node, keys=KEYS) as g:
        g.deps.ledger.grant(ACME, "r", 1, 30)
        g.deps.ledger.settle(Settlement("r", 1, 5, 2))
        usage = (await g.get("/v1/usage", **AS_ACME)).json()
        assert (usage["hard_cap"], usage["spent_tokens"], usage["available_tokens"]) == (100, 7, 93)
        assert usage["windows"][0]["window"] == {"kind": "balance", "seconds": None}
        assert (await g.get("/usage")).json()["key_id"] == "anonymous"
        g.deps.timelines.add(a_request("mine", ACME))
        g.deps.timelines.add(a_request("its", ANONYMOUS))
        assert (await g.get("/v1/requests/mine", **AS_ACME)).json()["node"] == "n0"
        its = await g.get("/v1/requests/its", **AS_ACME)
        assert its.status_code == 404
        assert "No request 'its' of yours" in its.json()["error"]["message"]


async def test_what_is_not_there_is_refused_in_the_callers_dialect(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node) as g:
        missing = await g.get("/v1/nothing")
        assert missing.json()["error"]["code"] == "not_found"
        assert (await g.get("/ui")).status_code == 404
        assert (await g.get("/health/")).status_code == 404
        claude = (await g.get("/v1/nothing", **ANTHROPIC)).json()
        assert (claude["type"], claude["error"]["type"]) == ("error", "not_found_error")
        wrong = await g.get("/v1/chat/completions")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
        posted = await g.ask("POST", "/v1/models")
        assert posted.status_code == 405
        assert posted.json()["error"]["code"] == "method_not_allowed"
        assert "POST is not possible on /v1/models; use " in posted.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("/v1", "under /v1"), ("/api/tags", "base URL ends in /v1"), ("/metrics", "metrics_listen")],
)
async def test_who_asks_at_the_wrong_place_is_told_the_right_one(path: str, words: str) -> None:
    async with gateway() as g:
        found = await g.get(path)
        assert found.status_code == 404
        assert words in found.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/none", "/v1/nothing", "/v1/responses"])
async def test_every_answer_says_what_its_request_is_called(path: str) -> None:
    async with gateway() as g:
        assert (await g.get(path, x_request_id="mine")).headers["x-request-id"] == "mine"
        ours = await g.get(path, **ANTHROPIC)
        assert ours.headers["x-request-id"].startswith("req_")
        assert ours.headers["request-id"] == ours.headers["x-request-id"]
        if ours.status_code != 200:
            assert ours.json()["request_id"] == ours.headers["request-id"]


async def test_a_bug_names_the_request_and_hides_the_rest(
    fake_node: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_node() as node, gateway(node) as g:
        monkeypatch.setattr(g.deps.fleet, "snapshot", lambda: 1 / 0)
        broken = await g.get("/health", x_request_id="req_mine")
        assert broken.status_code == 500
        assert broken.json()["error"]["code"] is None
        assert "req_mine" in broken.text
        assert "division" not in broken.text


async def test_a_bug_is_answered_and_not_raised_to_whoever_would_report_it_again(
    fake_node: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with fake_node() as node, gateway(node) as g:
        monkeypatch.setattr(g.deps.fleet, "snapshot", lambda: 1 / 0)
        transport = httpx.ASGITransport(g.app)  # which raises whatever the application does
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            broken = await client.get("/health", headers={"origin": "https://page.example"})
        assert broken.status_code == 500
        assert broken.headers["access-control-allow-origin"] == "*"


async def test_cors_is_open_for_clients_and_closed_for_administration(fake_node: Starter) -> None:
    async with fake_node() as node, gateway(node) as g:
        origin = {"origin": "https://page.example"}
        assert (await g.get("/v1/models", **origin)).headers["access-control-allow-origin"] == "*"
        ask = {**origin, "access_control_request_method": "POST"}
        wanted = {"access_control_request_headers": "authorization,x-stainless-os"}
        flight = await g.ask("OPTIONS", "/v1/chat/completions", **ask, **wanted)
        assert flight.status_code == 200
        assert "x-stainless-os" in flight.headers["access-control-allow-headers"]
        private = {"access_control_request_private_network": "true"}
        flight = await g.ask("OPTIONS", "/v1/chat/completions", **ask, **wanted, **private)
        assert flight.status_code == 200
        assert flight.headers["access-control-allow-private-network"] == "true"
        for path in ("/admin/fleet", "/ui"):
            closed = await g.ask("OPTIONS", path, **ask)
            assert closed.status_code >= 400
            assert "access-control-allow-origin" not in closed.headers
            assert "access-control-allow-origin" not in (await g.get(path, **origin)).headers


@pytest.mark.parametrize("path", ["/v1/responses/compact", "/responses/compact"])
async def test_compacting_is_refused_in_words_that_say_what_to_do(
    fake_node: Starter, path: str
) -> None:
    async with fake_node() as node, gateway(node, keys=KEYS, required=True) as g:
        assert (await g.ask("POST", path, {})).status_code == 401
        refused = await g.ask("POST", path, {"model": "m", "input": "x"}, **AS_ACME)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (400, "unsupported_operation")
        assert "not served here" in error["message"]
        assert "summary" in error["message"]
        assert "retry-after" not in refused.headers


async def test_a_long_list_lets_others_run_while_it_is_made() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    answer = await reply_list("keys", range(10 * SLICE))
    beside.cancel()
    assert json.loads(bytes(answer.body)) == {"keys": list(range(10 * SLICE))}
    assert turns >= 9
    empty = await reply_list("keys", ())
    assert json.loads(bytes(empty.body)) == {"keys": []}
