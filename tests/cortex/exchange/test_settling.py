"""Grants, extensions, settlements and acknowledgements, between a gateway and its nodes."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.cortex.exchange.rig import (
    DONE,
    FINISH,
    MODEL,
    PLAIN,
    WHOLE,
    Gateway,
    answers,
    delta,
    error_of,
    fleet,
    next_event,
    request,
    usage,
)
from tests.cortex.fake_node import FakeNode, Turn
from tests.relay.rig import client, until

from helexa.core.fleet import RequestRecord
from helexa.core.principal import Cap, Principal
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.ledger.base import Grant, Settled
from helexa.cortex.ledger.book import Book
from helexa.cortex.settings import NeuronSettings

pytestmark = pytest.mark.anyio

SK_A = {"authorization": "Bearer sk-a"}
STREAM = {"stream": True}


def capped(tokens: int, **ledger: int) -> str:
    lines = "".join(f"{name} = {value}\n" for name, value in ledger.items())
    key = f'[[entitlements.keys]]\nkey = "sk-a"\naccount_id = "acme"\nhard_cap = {tokens}\n'
    return f"{key}[ledger]\n{lines}"


async def spent(gateway: Gateway) -> int:
    used = await gateway.get("/v1/usage", **SK_A)
    assert used["spent_tokens"] + used["open_tokens"] <= used["hard_cap"]
    return int(used["spent_tokens"])


async def test_a_capped_keys_request_carries_its_grant() -> None:
    async with fleet(answers, config=capped(10_000, slice_tokens=64)) as (gateway, [node]):
        got = await gateway.ask({**STREAM, "max_tokens": 5}, **SK_A)
        assert got.status == 200
        small = int(node.turns[0].headers["x-helexa-grant"])
        await gateway.ask({**STREAM, "max_tokens": 32_000}, **SK_A)
        large = int(node.turns[1].headers["x-helexa-grant"])
        # A slice of output at most, however much is asked for: nothing is held for a wish.
        assert small < large <= 64 + len(node.turns[1].raw)
        await gateway.settled()
        assert await spent(gateway) == 18
        assert gateway.metric("cortex_spend_prompt_tokens_total", key="acme") == 14
        assert gateway.metric("cortex_spend_completion_tokens_total", key="acme") == 4


async def test_the_last_tokens_are_granted_and_not_one_more() -> None:
    async with fleet(answers, config=capped(10)) as (gateway, [node]):
        assert (await gateway.ask(**SK_A)).status == 200
        assert node.turns[0].headers["x-helexa-grant"] == "10"
        assert (await gateway.ask(**SK_A)).status == 200
        assert node.turns[1].headers["x-helexa-grant"] == "1"
        refused = await gateway.ask(**SK_A)
        assert (refused.status, error_of(refused)["code"]) == (429, "insufficient_quota")
        assert await spent(gateway) == 10  # the second one's nine are cut to the one there was


@pytest.mark.parametrize(
    ("window", "code"),
    [('{kind = "balance"}', "insufficient_quota"),
     ('{kind = "rolling", seconds = 600}', "rate_limit_exceeded")],
)  # fmt: skip
async def test_a_prompt_beyond_what_is_left_is_told_whether_waiting_helps(
    window: str, code: str
) -> None:
    async def too_long(turn: Turn) -> None:
        if turn.body.get("fits"):
            await answers(turn)
            return
        granted = int(turn.headers["x-helexa-grant"])
        turn.plain(
            {"error": {"message": "The prompt has 50 tokens.", "code": "rate_limit_exceeded",
                       "retry_after_s": 1, "prompt_len": 50, "granted": granted}},
            429,
        )  # fmt: skip

    config = (
        '[[entitlements.keys]]\nkey = "sk-a"\naccount_id = "acme"\n'
        f"caps = [{{tokens = 40, window = {window}}}]\n"
    )
    async with fleet(too_long, config=config) as (gateway, _):
        assert (await gateway.ask({"fits": True}, **SK_A)).status == 200
        refused = await gateway.ask(**SK_A)
        assert (refused.status, error_of(refused)["code"]) == (429, code)
        hopeless = code == "insufficient_quota"
        assert (b"retry-after" in refused.headers) != hopeless
        assert (refused.headers.get(b"x-should-retry") == b"false") == hopeless
        assert await spent(gateway) == 9


@pytest.mark.parametrize(("needed", "more"), [(0, 100), (3, 100), (250, 345)])
async def test_a_grant_that_runs_low_is_raised_by_what_it_lacks_and_a_slice(
    needed: int, more: int
) -> None:
    go = asyncio.Event()

    async def long(turn: Turn) -> None:
        granted = int(turn.headers["x-helexa-grant"])
        low = {"request_id": turn.headers["x-request-id"], "attempt": 1, "granted": granted}
        turn.open()
        turn.send(delta("x"))
        turn.node.push("grant_low", **low, used=granted - 5, needed=needed)
        await go.wait()
        turn.send(FINISH)
        turn.send(usage(7, granted))
        turn.send(DONE)
        turn.close()

    async with fleet(long, config=capped(4000, slice_tokens=100)) as (gateway, [node]):
        async with client(gateway.port) as raw:
            raw.send(request(STREAM, **SK_A))
            await until(lambda: node.calls("/requests/grants"))
            (body,) = [b for _, path, _, b in node.log if path == "/requests/grants"]
            granted = int(node.turns[0].headers["x-helexa-grant"])
            assert body == [
                {"request_id": node.turns[0].headers["x-request-id"], "granted": granted + more}
            ]
            assert gateway.rooms.ledger.snapshot().keys[0].tokens == granted + more
            go.set()
            assert (await raw.answer()).body.endswith(DONE)
        await gateway.settled()
        assert await spent(gateway) == 7 + granted


async def test_a_grant_without_room_is_not_raised_and_its_node_is_told() -> None:
    async def long(turn: Turn) -> None:
        granted = int(turn.headers["x-helexa-grant"])
        low = {"request_id": turn.headers["x-request-id"], "attempt": 1, "granted": granted}
        turn.node.push("grant_low", **low, used=granted - 1)
        await until(lambda: turn.node.calls("/requests/grants"))
        turn.stream(delta("x"), FINISH, usage(granted - 1, 1), DONE)

    async with fleet(long, config=capped(20)) as (gateway, [node]):
        assert (await gateway.ask(STREAM, **SK_A)).status == 200
        (body,) = [b for _, path, _, b in node.log if path == "/requests/grants"]
        assert [update["granted"] for update in body] == [20]
        assert await spent(gateway) == 20


async def test_records_are_acknowledged_in_batches_and_again_when_that_failed() -> None:
    async with fleet(answers) as (gateway, [node]):
        for _ in range(5):
            await gateway.ask()
        await until(lambda: acked(node) == 5)
        assert node.calls("/requests/ack") < 5
        node.fail = 503
        await gateway.ask()
        await until(lambda: node.calls("/requests/ack") >= 3)
        node.fail = None
        await until(lambda: acked(node) >= 6)


@pytest.mark.parametrize("end", ["seen whole", "left", "left while it has no name"])
async def test_a_node_that_is_renamed_meanwhile_settles_once_at_what_it_counted(end: str) -> None:
    """Its record is asked for under the new name, and what it need not keep is told there."""
    told = asyncio.Event()

    async def waits(turn: Turn) -> None:
        turn.open()
        turn.send(delta("Hel"))
        if end == "seen whole":
            await told.wait()
            turn.ended("complete", prompt=7, output=2)
            for event in WHOLE[1:]:
                turn.send(event)
            turn.close()
        else:
            await turn.left()
            turn.ended("cancelled", prompt=7, output=5)

    async with fleet(waits, config=capped(10_000, slice_tokens=64)) as (gateway, [node]):
        rooms = gateway.rooms
        async with client(gateway.port) as raw:
            raw.send(request(STREAM, **SK_A))
            await raw.head()
            assert await next_event(raw) == delta("Hel")
            await rooms.roster.remove("n0")
            if end == "left while it has no name":
                raw.writer.close()
                await until(lambda: node.records)
            await rooms.roster.add(NeuronSettings("new", node.url))
            await until(lambda: rooms.fleet.snapshot().reachable)
            if end == "seen whole":
                told.set()
                while DONE not in await next_event(raw):
                    pass
        await gateway.settled()
        await until(lambda: acked(node) == 1)
        assert await spent(gateway) == (9 if end == "seen whole" else 12)
        assert rooms.settler.drift == 0
        assert not node.records


def acked(node: FakeNode) -> int:
    acks = [body for _, path, _, body in node.log if path == "/requests/ack"]
    return len({(ack["request_id"], ack["attempt"]) for body in acks for ack in body})


async def test_all_room_held_is_a_short_wait_and_then_a_retry_later() -> None:
    go = asyncio.Event()

    async def waits(turn: Turn) -> None:
        if turn.body.get("hold"):
            await go.wait()
        turn.plain(PLAIN)

    config = capped(50, grant_wait_ms=100)
    async with fleet(waits, config=config) as (gateway, [node]), client(gateway.port) as raw:
        raw.send(request({"hold": True}, **SK_A))
        await until(lambda: node.turns)
        refused = await gateway.ask(**SK_A)
        # Held is not spent: nobody may be told to give up.
        assert (refused.status, error_of(refused)["code"]) == (429, "rate_limit_exceeded")
        assert b"retry-after" in refused.headers
        assert b"x-should-retry" not in refused.headers
        gateway.rooms.ledger._hold_wait_s = 60.0
        waiting = asyncio.create_task(gateway.ask(**SK_A))
        go.set()
        assert (await raw.answer()).status == 200
        assert (await waiting).status == 200  # what was not used is the next one's


async def test_hard_budgets_forty_parallel_requests_never_settle_above_the_cap() -> None:
    """Promise 1, as far as one gateway's life goes: with cancels, resets and failovers."""
    rng = random.Random(11)
    cap = 700
    over: list[int] = []

    async def node(turn: Turn) -> None:
        granted = int(turn.headers["x-helexa-grant"])
        if rng.random() < 0.15:
            turn.plain({"error": {"message": "No.", "code": "overloaded"}}, 503)
            return
        prompt = min(granted - 1, 5)
        turn.open()
        output = 0
        for _ in range(rng.randint(1, 40)):
            if prompt + output >= granted:
                break
            output += 1
            turn.send(delta("x"))
            await asyncio.sleep(rng.random() * 0.002)
            if turn._writer.transport.is_closing():
                turn.ended("cancelled", prompt, output)
                return
        over.append(prompt + output - granted)
        turn.ended("complete", prompt, output)
        turn.send(FINISH)
        turn.send(usage(prompt, output))
        turn.send(DONE)
        turn.close()

    config = capped(cap, slice_tokens=32, lease_secs=1, grant_wait_ms=50)
    async with fleet(node, node, config=config) as (gateway, _):

        async def one() -> int:
            async with client(gateway.port) as raw:
                raw.send(request(STREAM, **SK_A))
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() * 0.02)
                    raw.reset()
                    return 0
                got = await raw.answer()
                assert got.status in (200, 429, 503)
                return got.status

        seen: set[int] = set()
        for _ in range(4):
            seen |= set(await asyncio.gather(*(one() for _ in range(40))))
            await spent(gateway)
        await gateway.settled()
        total = await spent(gateway)
        assert total <= cap
        assert total > cap // 2
        assert {200, 429} <= seen
        assert max(over) <= 0
        assert gateway.metric("cortex_spend_tokens_total", key="acme") == total


async def test_usage_is_counted_where_it_was_served() -> None:
    async with fleet(answers) as (gateway, _):
        await gateway.ask()
        await gateway.ask(STREAM)
        at = {"model": MODEL, "node": "n0"}
        assert gateway.metric("cortex_prompt_tokens_total", **at) == 14
        assert gateway.metric("cortex_completion_tokens_total", **at) == 4
        assert gateway.metric("cortex_requests_total", **at) == 2
        assert gateway.metric("cortex_queue_seconds_count", **at) == 2
        assert gateway.metric("cortex_queue_seconds_sum", **at) >= 0.024
        assert gateway.metric("cortex_time_to_first_token_seconds_count", **at) == 2
        assert gateway.metric("cortex_request_duration_seconds_count", **at) == 2
        # The plain answer came whole and without timings: nobody knows how fast it was made.
        assert gateway.metric("cortex_tokens_per_second_count", **at) == 1
        assert gateway.metric("cortex_ledger_drift_tokens") == 0


async def test_a_record_has_a_whole_lease_to_come_however_long_its_request_ran() -> None:
    """The lease of a request that runs is looked at once in its length only."""
    now, told = [1000.0], list[Settled]()
    book = Book(lambda: now[0], lease_s=60, hold_wait_s=0.05)
    settler = Settler(
        book, lambda _: None, list, booked=told.append, heard=lambda *_: None,
        counted=lambda *_: None, late=lambda *_: None, slice_tokens=64, lease_s=60,
        gateway="one", epoch=1,
    )  # fmt: skip
    assert isinstance(book.grant(Principal("acme", "k", caps=(Cap(100),)), "a", 1, 60), Grant)
    settler.begin("a", 1)
    now[0] += 59
    settler.settle_later("n1", "a", 1)
    now[0] += 30
    settler._expire()
    record = RequestRecord("a", 1, "one", 1, MODEL, "cancelled", 60, prompt=9, output=30)
    settler.on_request_end("n1", record)
    assert told == [Settled("acme", "k", 9, 30)]
    assert settler.drift == 0


async def test_a_record_that_comes_after_its_lease_is_not_billed_but_counted_and_told() -> None:
    now, late = [1000.0], list[tuple[str, int, int]]()
    book = Book(lambda: now[0], lease_s=60, hold_wait_s=0.05)
    settler = Settler(
        book, lambda _: None, list, booked=lambda _: None, heard=lambda *_: None,
        counted=lambda *_: None, late=lambda *told: late.append(told), slice_tokens=64,
        lease_s=0, gateway="one", epoch=1,
    )  # fmt: skip
    who = Principal("acme", "k", caps=(Cap(100),))
    for name in ("a", "b", "c"):
        book.grant(who, name, 1, 30)
        settler.begin(name, 1)
        settler.settle_later("n1", name, 1)
    book.extend("b", 1, 20, 30)
    now[0] += 60
    settler._expire()
    assert (book.usage(who).spent_tokens, book.estimated) == (20, 20)
    for name, output in (("a", 11), ("a", 11), ("b", 16), ("c", -9)):  # "a" by both ways
        record = RequestRecord(name, 1, "one", 1, MODEL, "cancelled", 30, prompt=9, output=output)
        settler.on_request_end("n1", record)
    settler._tell_of_late()
    settler._tell_of_late()
    assert late == [("n1", 2, 20 + 5)]
    assert (book.usage(who).spent_tokens, settler.drift) == (20, 0)


async def test_a_stream_that_is_left_open_shows_its_grant_and_its_lease() -> None:
    async def holds(turn: Turn) -> None:
        turn.open()
        turn.send(delta("x"))
        await turn.left()
        turn.ended("cancelled", 3, 1)

    async with fleet(holds, config=capped(500, lease_secs=1)) as (gateway, _):
        async with client(gateway.port) as raw:
            raw.send(request(STREAM, **SK_A))
            await raw.head()
            await next_event(raw)
            # Its request runs, so the grant outlives its lease.
            await asyncio.sleep(1.3)
            assert gateway.metric("cortex_grants_open", key="acme") == 1
            assert gateway.metric("cortex_grants_tokens", key="acme") > 0
        await gateway.settled()
        assert gateway.metric("cortex_grants_open", key="acme") == 0
        assert await spent(gateway) == 4
