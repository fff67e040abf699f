"""Streamed answers: the moment of the status, keep-alives, and every kind of end."""

from __future__ import annotations

import asyncio
import json
import re
import time

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    FINISH,
    MODEL,
    PATIENT,
    WHOLE,
    answers,
    delta,
    error_of,
    event,
    events_of,
    fleet,
    next_event,
    request,
    usage,
)
from tests.cortex.fake_node import Turn
from tests.relay.rig import client, until

from helexa.cortex.exchange.closing import close_all
from helexa.cortex.exchange.exchange import Exchange
from helexa.cortex.settings import GatewaySettings
from helexa.relay.books import Books

pytestmark = pytest.mark.anyio

STREAM = {"stream": True}
KEEP_ALIVE = b": keep-alive\n\n"


async def test_a_stream_arrives_event_by_event_with_what_is_known_in_its_headers() -> None:
    async with fleet(answers) as (gateway, [node]):
        got = await gateway.ask({**STREAM, "stream_options": {"include_usage": True}})
        assert got.status == 200
        assert got.headers[b"content-type"] == b"text/event-stream"
        assert got.headers[b"x-helexa-node"] == b"n0"
        assert got.headers[b"x-helexa-queue-ms"] == b"12"
        timing = rb"gateway;dur=[\d.]+, upstream;dur=[\d.]+, queue;dur=12, engine;dur=3"
        assert re.fullmatch(timing, got.headers[b"server-timing"])
        *events, comment, done = events_of(got.body)
        assert events == list(WHOLE[:-1])
        assert done == DONE
        known = json.loads(comment.removeprefix(b": helexa "))
        assert known["node"] == "n0"
        assert known["queue_ms"] >= 12
        assert (known["prefill_ms"], known["cached"]) == (3.5, 0)
        assert node.turns[0].body["stream_options"] == {"include_usage": True}


async def test_what_comes_with_the_end_leaves_with_the_terminator() -> None:
    async def splits(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hello"))
        await first.wait()
        turn.send(delta(" you") + FINISH + usage() + DONE)
        turn.close()

    first = asyncio.Event()
    async with fleet(splits) as (gateway, _), client(gateway.port) as raw:
        raw.send(request(STREAM))
        await raw.head()
        assert await next_event(raw) == delta("Hello")
        first.set()
        rest = await next_event(raw)  # one chunk
        assert rest.startswith(delta(" you") + FINISH + b": helexa ")
        assert rest.endswith(DONE)


async def test_usage_is_asked_of_the_node_and_hidden_from_clients_who_did_not_ask() -> None:
    async with fleet(answers) as (gateway, [node]):
        for options in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
            got = await gateway.ask({**STREAM, **options})
            assert usage() not in got.body
            assert got.body.endswith(DONE)
            assert node.turns[-1].body["stream_options"]["include_usage"] is True
        assert gateway.metric("cortex_completion_tokens_total", model=MODEL) == 6


async def test_the_clients_bytes_reach_the_node_but_for_model_and_stream_options() -> None:
    models = '[[models]]\nid = "org/m"\nharness = "llamacpp"\n[aliases]\n"small" = "org/m"\n'
    async with fleet(answers, models=models) as (gateway, [node]):
        raw = b'{ "temperature" : 1e-1, "x":"\\u00e9",\n "model": "small" , "messages":[]}'
        assert (await gateway.ask(raw)).status == 200
        assert node.turns[0].raw == raw.replace(b'"small"', b'"org/m"')
        assert (await gateway.ask(b'{"model":"org/m","y":[1, 2]}')).status == 200
        assert node.turns[1].raw == b'{"model":"org/m","y":[1, 2]}'


async def test_no_body_is_kept_until_its_request_is_booked() -> None:
    async with fleet(answers) as (gateway, _):
        desk, ended = gateway.front.app._desk, list[Exchange]()

        def book(batch: list[Exchange]) -> None:
            ended.extend(batch)
            close_all(batch)

        desk.books = Books(book, desk.loop)
        for stream in (False, True):
            await gateway.ask({"messages": [], "stream": stream, "note": "x" * 9000})
        await until(lambda: not gateway.front.app.running)
        desk.books.flush()
        assert [exchange.streams for exchange in ended] == [False, True]
        for exchange in ended:
            assert (exchange.body, exchange.given, exchange.seen) == (b"", b"", None)


async def test_the_status_is_fixed_at_the_commit_time_and_then_kept_alive() -> None:
    go = asyncio.Event()

    async def slow(turn: Turn) -> None:
        await go.wait()
        turn.stream(*WHOLE)

    config = "[gateway]\ncommit_ms = 300\n"
    async with fleet(slow, config=config) as (gateway, _), client(gateway.port) as raw:
        began = time.monotonic()
        raw.send(request(STREAM))
        head = await raw.head()
        waited = time.monotonic() - began
        assert head.status == 200
        assert waited >= 0.25  # and without the answer, which nobody has let go yet
        assert b"x-helexa-node" not in head.headers  # nobody knew yet
        assert await next_event(raw) == KEEP_ALIVE
        assert await next_event(raw) == KEEP_ALIVE  # a second later
        go.set()
        assert (await next_event(raw)).startswith(WHOLE[0])
    assert GatewaySettings().commit_ms == 800


async def test_a_refusal_before_the_commit_is_a_refusal() -> None:
    async def late(turn: Turn) -> None:
        await asyncio.sleep(0.05)
        turn.plain({"error": {"message": "Long.", "code": "context_length_exceeded"}}, 400)

    async with fleet(late, config=PATIENT) as (gateway, _):
        got = await gateway.ask(STREAM)
        assert (got.status, error_of(got)["code"]) == (400, "context_length_exceeded")


async def test_a_refusal_after_the_commit_is_an_error_event_without_terminator() -> None:
    go = asyncio.Event()

    async def later(turn: Turn) -> None:
        await go.wait()
        turn.plain({"error": {"message": "Full.", "code": "overloaded", "retry_after_s": 7}}, 503)

    async with fleet(later, config="[gateway]\ncommit_ms = 50\n") as (gateway, _):
        async with client(gateway.port) as raw:
            raw.send(request(STREAM))
            assert (await raw.head()).status == 200
            assert await next_event(raw) == KEEP_ALIVE
            go.set()
            while (last := await next_event(raw)) == KEEP_ALIVE:
                pass
            error = json.loads(last.removeprefix(b"data: "))["error"]
            assert (error["code"], error["retry_after_s"]) == ("overloaded", 7)
            assert await next_event(raw) == b""  # and no terminator
        await gateway.settled()
        (line,) = gateway.log.lines
        assert (line.status, line.outcome, line.code) == (200, "failed", "overloaded")


@pytest.mark.parametrize("how", ["reset", "close", "length", "error event", "silence"])
async def test_a_stream_that_breaks_ends_in_an_error_event_and_never_in_done(how: str) -> None:
    async def breaks(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hal"))
        await asyncio.sleep(0.02)
        if how == "reset":
            turn.reset()
        elif how == "close":
            turn.close()
        elif how == "error event":
            turn.send(event({"error": {"message": "The engine died.", "code": "model_recovering"}}))
            turn.close()
        elif how == "silence":
            await turn.left()
        turn.ended("failed", prompt=7, output=1)

    # Only where silence is what breaks it: a crowded machine may be silent for as long.
    config = "[timeouts]\nbetween_bytes = 0.2\n" if how == "silence" else ""
    async with fleet(breaks, answers, config=config) as (gateway, nodes):
        nodes[1].models[MODEL]["status"] = "loading"
        nodes[1].put({**nodes[1].models[MODEL]})
        await until(lambda: len(gateway.rooms.placer._view(MODEL).candidates) == 1)
        got = await gateway.ask(STREAM)
        assert got.status == 200
        first, last = events_of(got.body)
        assert first == delta("Hal")
        code = json.loads(last.removeprefix(b"data: "))["error"]["code"]
        assert code == {
            "error event": "model_recovering",
            "silence": "upstream_timeout",
        }.get(how, "upstream_connection_error")
        assert DONE not in got.body
        assert len(nodes[0].turns) == 1  # nothing is tried again once a byte was relayed
        await gateway.settled()
        (line,) = gateway.log.lines
        assert line.outcome == "broken"
        assert gateway.metric("cortex_request_errors_total", model=MODEL, node="n0") == 1
        # The node's own count is what it has cost.
        assert gateway.metric("cortex_spend_tokens_total", account="anonymous") == 8


async def test_a_node_that_never_answers_is_504_or_an_error_event() -> None:
    async def silent(turn: Turn) -> None:
        await turn.left()

    for commit, status in ((60_000, 504), (50, 200)):
        config = f"[gateway]\ncommit_ms = {commit}\n[timeouts]\nfirst_byte = 0.2\n"
        async with fleet(silent, config=config) as (gateway, _):
            got = await gateway.ask(STREAM)
            assert got.status == status
            assert b'"upstream_timeout"' in got.body
            assert DONE not in got.body
            if status == 504:
                assert (await gateway.ask({})).status == 504


async def test_events_that_arrive_in_pieces_leave_whole() -> None:
    async def crumbs(turn: Turn) -> None:
        turn.open()
        whole = b"".join(WHOLE)
        for start in range(0, len(whole), 7):
            turn.send(whole[start : start + 7])
            await asyncio.sleep(0)
        turn.close()

    async with fleet(crumbs) as (gateway, _):
        got = await gateway.ask({**STREAM, "stream_options": {"include_usage": True}})
        assert all(chunk.endswith(b"\n\n") for chunk in got.chunks)
        assert b"".join(WHOLE[:-1]) in got.body
        assert got.body.endswith(DONE)


async def test_a_stream_without_usage_is_complete_and_settles_by_the_nodes_word() -> None:
    async def meterless(turn: Turn) -> None:
        turn.stream(delta("x"), FINISH, DONE)
        turn.ended("complete", prompt=5, output=1)

    async with fleet(meterless) as (gateway, _):
        got = await gateway.ask(STREAM)
        assert got.body.endswith(DONE)
        await gateway.settled()
        assert gateway.metric("cortex_spend_tokens_total", account="anonymous") == 6


async def test_a_slow_reader_holds_its_node_back_and_nobody_else() -> None:
    sent = 0
    big = delta("x" * 60_000)

    async def floods(turn: Turn) -> None:
        nonlocal sent
        if not turn.body.get("flood"):
            await answers(turn)
            return
        turn.open()
        for _ in range(1000):
            turn.send(big)
            await turn._writer.drain()
            sent += 1
        turn.close()

    async with fleet(floods) as (gateway, [node]), client(gateway.port) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        raw.send(request({**STREAM, "flood": True}))
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
            assert (await gateway.ask(STREAM)).body.endswith(DONE)
        assert sent * 60_000 < 20_000_000  # of 60 MB: what fits into buffers on the way
        raw.reset()
        await until(lambda: not gateway.front.app.running)
        node.turns[0].ended("cancelled", prompt=1, output=1)
