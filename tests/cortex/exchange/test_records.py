"""What is kept of a request: its timeline, its line in the log, its metrics, a capture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from threading import current_thread, main_thread
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cortex.exchange.rig import (
    CHAT,
    DONE,
    KEYS,
    MODEL,
    WHOLE,
    answers,
    delta,
    fleet,
    held,
    next_event,
    refuses,
    request,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import client, until

from helexa.core.metrics import Registry
from helexa.cortex import lifetime
from helexa.cortex.metrics_server import SLICE_LINES, serve_metrics
from helexa.wire.messages.dialect import translate_messages
from helexa.wire.peek import peek

pytestmark = pytest.mark.anyio

STREAM = {"stream": True}
ADMIN = KEYS + '[[entitlements.keys]]\nkey = "sk-root"\naccount_id = "ops"\nadmin = true\n'
ROOT = {"authorization": "Bearer sk-root"}
SK_A = {"authorization": "Bearer sk-a"}


async def test_the_key_that_sent_a_request_may_read_where_its_time_went() -> None:
    async with fleet(answers, config=ADMIN) as (gateway, _):
        got = await gateway.ask(STREAM, **SK_A)
        shown = got.headers[b"x-request-id"].decode()
        seen = await gateway.get(f"/v1/requests/{shown}", **SK_A)
        assert (seen["id"], seen["model"], seen["node"]) == (shown, MODEL, "n0")
        assert (seen["status"], seen["outcome"], seen["attempts"]) == (200, "complete", 1)
        assert seen["usage"]["total"] == 9
        assert seen["why"] == "the only one that has it"
        phases = seen["ms"]
        assert {"check", "queue", "connect", "first_byte", "prefill", "total"} <= phases.keys()
        assert phases["queue"] >= 12  # the node says it kept it so long
        assert "account_id" not in seen
        other = await gateway.get(f"/v1/requests/{shown}")
        assert other["error"]["code"] == "not_found"
        admin = await gateway.get(f"/admin/requests/{shown}", **ROOT)
        assert admin["key_id"] == "acme-one"
        listed = await gateway.get("/admin/requests?limit=5", **ROOT)
        assert [r["id"] for r in listed["requests"]] == [shown]


async def ask_and_leave(gateway: Any) -> None:
    async with client(gateway.port) as raw:
        raw.send(request(STREAM))
        await raw.head()
        await next_event(raw)


@pytest.mark.parametrize(
    ("how", "status", "outcome"),
    [
        ("plain", 200, "complete"),
        ("stream", 200, "complete"),
        ("refused", 404, "refused"),
        ("failed", 503, "failed"),
        ("cancelled", 200, "cancelled"),
        ("bug", 500, "refused"),
    ],
)
async def test_every_request_leaves_one_line_and_one_timeline(
    how: str, status: int, outcome: str
) -> None:
    chat = {"failed": refuses(503, "overloaded"), "cancelled": held}.get(how, answers)
    async with fleet(chat) as (gateway, _):
        if how == "bug":
            gateway.front.app._desk.placer = None  # type: ignore[assignment]
        if how == "cancelled":
            await ask_and_leave(gateway)
        else:
            body = {"refused": {"model": "org/missing"}, "stream": STREAM}.get(how, {})
            assert (await gateway.ask(body)).status == status
        await gateway.settled()
        (line,) = gateway.log.lines
        assert (line.status, line.outcome, line.event) == (status, outcome, "request")
        assert line.route == "chat"
        assert line.total_ms >= 0
        latest = await gateway.get("/admin/requests")
        assert [r["outcome"] for r in latest["requests"]] == [outcome]
        if how == "refused":
            assert (line.model, latest["requests"][0]["model"]) == ("org/missing",) * 2
        bugs = [said for said, _ in gateway.log.said if "bug" in said]
        assert len(bugs) == (how == "bug")


async def test_a_bug_of_ours_names_the_request_and_nothing_else() -> None:
    async with fleet(answers) as (gateway, _):
        gateway.front.app._desk.placer = None  # type: ignore[assignment]
        got = await gateway.ask()
        error = json.loads(got.body)["error"]
        assert got.status == 500
        assert got.headers[b"x-request-id"].decode() in error["message"]
        assert "NoneType" not in error["message"]


async def test_a_captured_request_has_both_sides() -> None:
    async with fleet(answers, config=ADMIN) as (gateway, _):
        order = json.dumps({"key_id": "acme-one", "requests": 3}).encode()
        assert (await gateway.ask(order, path="/admin/capture", **ROOT)).status == 201
        secret = {"messages": [{"role": "user", "content": "a secret"}]}
        streamed = await gateway.ask({**STREAM, **secret}, **SK_A)
        plain = await gateway.ask(secret, **SK_A)
        refused = await gateway.ask({"max_tokens": 1, "model": MODEL, "stream": False}, **ROOT)
        assert refused.status == 200  # another key: none of this capture's business
        async with client(gateway.port) as raw:
            lines = "authorization: Bearer sk-root\r\n"
            raw.send(f"GET /admin/capture/download HTTP/1.1\r\nhost: a\r\n{lines}\r\n".encode())
            rows = [json.loads(row) for row in (await raw.answer()).body.splitlines()]
        assert [row["outcome"] for row in rows] == ["complete", "complete"]
        assert rows[0]["response"].encode() == streamed.body
        assert rows[1]["response"].encode() == plain.body
        assert all(json.loads(row["request"])["messages"] == secret["messages"] for row in rows)
        said = repr(list(gateway.log.lines)) + repr(gateway.log.said)
        assert "a secret" not in said


async def test_a_captured_stream_has_every_token_also_those_that_come_one_by_one() -> None:
    tokens = [delta(text) for text in ("One", " by", " one")]
    read = asyncio.Semaphore(0)

    async def one_by_one(turn: Turn) -> None:
        turn.open()
        for token in tokens:
            turn.send(token)
            await read.acquire()
        turn.send(DONE)
        turn.close()

    async with fleet(one_by_one, config=ADMIN) as (gateway, _):
        order = json.dumps({"key_id": "acme-one"}).encode()
        await gateway.ask(order, path="/admin/capture", **ROOT)
        async with client(gateway.port) as raw:
            raw.send(request(STREAM, **SK_A))
            await raw.head()
            for token in tokens:
                assert await next_event(raw) == token
                read.release()
            await gateway.settled()
        captured = gateway.front.app._desk.observers.captures.current.requests[0]  # type: ignore[attr-defined]
        assert b"".join(tokens) in b"".join(captured.answer)


async def test_a_captured_refusal_has_its_words() -> None:
    async with fleet(refuses(503, "overloaded"), config=ADMIN) as (gateway, _):
        order = json.dumps({"model": MODEL}).encode()
        await gateway.ask(order, path="/admin/capture", **ROOT)
        got = await gateway.ask(STREAM, **SK_A)
        captured = gateway.front.app._desk.observers.captures.current.requests[0]  # type: ignore[attr-defined]
        assert captured.render()["response"].encode() == got.body
        assert captured.status == 503


async def test_a_capture_of_a_key_has_what_is_refused_before_any_node_hears_of_it() -> None:
    async with fleet(answers, config=ADMIN) as (gateway, [node]):
        order = json.dumps({"key_id": "acme-one"}).encode()
        await gateway.ask(order, path="/admin/capture", **ROOT)
        captures = gateway.front.app._desk.observers.captures  # type: ignore[attr-defined]
        for path, sent in (
            (CHAT, b"{torn"),
            (CHAT, b'{"model": "org/missing"}'),
            ("/v1/messages", b'{"model": "org/m", "messages": 1}'),
        ):
            got = await gateway.ask(sent, path=path, **SK_A)
            await gateway.ask(sent, path=path, authorization="Bearer sk-nobody")
            seen = captures.current.requests[-1].render()
            assert (seen["request"], seen["response"]) == (sent.decode(), got.body.decode())
            assert (seen["status"], seen["outcome"]) == (got.status, "refused")
        assert len(captures.current.requests) == 3
        assert not node.turns


async def test_large_bodies_are_read_off_the_loop_and_relayed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_the_loop: list[bool] = []

    def watched(read: Callable[..., Any]) -> Callable[..., Any]:
        def reading(*given: Any) -> Any:
            on_the_loop.append(current_thread() is main_thread())
            return read(*given)

        return reading

    at = "helexa.cortex.exchange"
    monkeypatch.setattr(f"{at}.exchange.peek", watched(peek))
    monkeypatch.setattr(f"{at}.route.translate_messages", watched(translate_messages))
    async with fleet(answers) as (gateway, [node]):
        text = "word " * 100_000
        got = await gateway.ask({**STREAM, "messages": [{"role": "user", "content": text}]})
        assert got.body.endswith(DONE)
        assert node.turns[0].body["messages"][0]["content"] == text
        long = {"max_tokens": 9, "messages": [{"role": "user", "content": text}]}
        await gateway.ask({**STREAM, **long}, path="/v1/messages")
        assert node.turns[1].body["messages"][0]["content"] == text
        assert on_the_loop == [False] * 3  # a message is translated, then read
        assert (await gateway.ask()).status == 200
        assert on_the_loop == [False, False, False, True]


async def test_a_body_beyond_the_bound_is_413() -> None:
    async with fleet(answers, config="[gateway]\nmax_body_mb = 1\n") as (gateway, _):
        async with client(gateway.port) as raw:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\nx-request-id: mine\r\n"
            raw.send(f"{head}content-length: 2000000\r\n\r\n".encode())
            got = await raw.answer()
        assert (got.status, got.headers[b"x-request-id"]) == (413, b"mine")
        (said,) = [fields for what, fields in gateway.log.said if what == "info: request"]
        assert (said["request_id"], said["route"]) == ("mine", "chat")
        assert (said["status"], said["code"]) == (413, "payload_too_large")
        assert gateway.metric("cortex_refusals_total", code="payload_too_large") == 1
        assert json.loads(got.body)["error"]["code"] == "payload_too_large"


async def test_an_export_of_a_thousand_keys_does_not_hold_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = "".join(
        f'[[entitlements.keys]]\nkey = "sk-{i}"\naccount_id = "a{i}"\n' for i in range(1000)
    )
    burst, bursts, render = 0, [0], Registry.lines

    def counted(registry: Registry) -> Iterator[str]:
        nonlocal burst
        for line in render(registry):
            burst += 1
            yield line

    monkeypatch.setattr(Registry, "lines", counted)
    async with fleet(answers, config=keys) as (gateway, _):
        for principal in gateway.front.app._desk.keys.principals:
            gateway.parts.metrics.key(principal.account_id, principal.key_id).spend.inc(1)
            gateway.rooms.ledger.usage(principal)
        exporter = await serve_metrics(gateway.parts.metrics.registry, "127.0.0.1", 0)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", exporter.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n")
            fetching = asyncio.create_task(reader.read())
            while not fetching.done():
                await asyncio.sleep(0)  # one turn of the loop
                bursts.append(burst)
                burst = 0
            body = await fetching
            writer.close()
        finally:
            await exporter.close()
        assert body.count(b"cortex_spend_tokens_total{") == 1000
        assert sum(bursts) == len(body.partition(b"\r\n\r\n")[2].splitlines()) - body.count(
            b"# HELP"
        )
        assert max(bursts) <= SLICE_LINES


async def test_a_drain_lets_a_stream_finish_and_cuts_what_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]  # of the drain
    loop = SimpleNamespace(time=lambda: clock[0])
    kept = SimpleNamespace(**{n: getattr(asyncio, n) for n in ("create_task", "sleep")})
    monkeypatch.setattr(lifetime, "asyncio", kept)
    kept.get_running_loop = lambda: loop
    go = asyncio.Event()

    async def slow(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        if turn.body.get("endless"):
            await turn.left()
            turn.ended("cancelled", 7, 1)
            return
        await go.wait()
        for event in WHOLE[1:]:
            turn.send(event)
        turn.close()

    async with fleet(slow) as (gateway, _):
        async with client(gateway.port) as short, client(gateway.port) as endless:
            short.send(request(STREAM))
            endless.send(request({**STREAM, "endless": True}))
            for raw in (short, endless):
                assert (await raw.head()).status == 200
                assert await next_event(raw) == delta("Hel")
            front = gateway.front
            draining = asyncio.create_task(lifetime.drain(front.listener, front.app, 60.0))
            await asyncio.sleep(0.05)
            go.set()
            rest = b""
            while not rest.endswith(DONE):
                rest += await next_event(short)
            clock[0] = 60.0
            cut = await next_event(endless)
            assert b'"service_unavailable"' in cut
            assert b"[DONE]" not in cut
            await endless.chunk()
            await draining
        await until(lambda: not gateway.front.app.running)
