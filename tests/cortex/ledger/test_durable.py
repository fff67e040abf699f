"""Budgets that survive the gateway: blocks, and batches of what was spent."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cortex.ledger.rig import START, Start, hard, rolling

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex import handover
from helexa.cortex.ledger import leasing, spend
from helexa.cortex.ledger.base import Grant, Settlement
from helexa.cortex.ledger.database import Database
from helexa.cortex.ledger.leasing import Ask
from helexa.cortex.ledger.scope import Leased
from helexa.cortex.ledger.spend import Line
from helexa.cortex.ledger.verify import verify

pytestmark = pytest.mark.anyio


async def test_what_is_granted_is_covered_by_a_durable_block(start: Start, look: Any) -> None:
    rig = start()
    assert await rig.take(hard(100_000), "a", 700) == 700
    (block,) = look("SELECT tokens FROM blocks WHERE scope = 'key:k'")
    assert block[0] >= 700
    # Further grants come from the block: at once, and without the store.
    answer = rig.book.grant(hard(100_000), "b", 1, 700)
    assert isinstance(answer, Grant)


async def test_blocks_shrink_as_the_cap_nears_and_the_last_token_is_granted(start: Start) -> None:
    rig = start()
    who = hard(10_000)
    assert await rig.take(who, "a", 4000) == 4000
    assert await rig.take(who, "b", 5999) == 5999
    assert await rig.take(who, "c", 500) == 1
    rig.end("a", 4000)
    rig.end("b", 5999)
    rig.end("c", 1)
    with pytest.raises(InsufficientQuota):
        await rig.take(who, "d", 1)


async def test_the_room_of_a_discarded_attempt_is_given_out_when_its_end_is_durable(
    start: Start, look: Any
) -> None:
    """Before that a crash would have its node's record billed, on top of whoever got the room."""
    rig = start()
    rig.book._hold_wait_s = 30.0  # a busy disk is no reason to refuse
    who = hard(1000)
    await rig.take(who, "a", 1000)
    rig.book.discard(Settlement("a", 1, 0, 0))
    assert not rig.book.snapshot().grants
    waiting = rig.book.grant(who, "a", 2, 1000)
    assert isinstance(waiting, Awaitable)
    assert look("SELECT * FROM requests") == []
    assert (await waiting).tokens == 1000
    assert look("SELECT state FROM requests") == [("discarded",)]
    assert rig.book.usage(who).spent_tokens == 0


async def test_settling_may_wait_only_while_the_cap_is_far(url: str, start: Start) -> None:
    rig = start()
    far, near = hard(10**9, "far"), hard(1000, "near")
    await rig.take(far, "far", 600)
    await rig.take(near, "near", 1000)
    if url.startswith("sqlite"):  # shared ledgers are asked for a block when there is need
        assert not rig.book.tight(far)
    waiting = asyncio.ensure_future(rig.take(near, "more", 900))
    await asyncio.sleep(0)
    assert rig.book.tight(near)
    rig.end("near", 10)
    assert await waiting in range(1, 901)


async def test_first_grants_of_many_keys_are_asked_for_together_and_each_is_exact(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, questions = start(), list[int]()
    ask = leasing.lease

    def counted(db: Database, life: int, asks: Sequence[Ask], at: int) -> list[Leased]:
        questions.append(len(asks))
        return ask(db, life, asks, at)

    monkeypatch.setattr(leasing, "lease", counted)
    window = Window("rolling", 60)
    keys = [
        Principal("acme", f"k{n}", caps=(Cap(10 * n), Cap(9 * n, window)) if n % 2 else (Cap(n),))
        for n in range(1, 41)
    ]
    found = await asyncio.gather(*(rig.take(who, who.key_id, 5000) for who in keys))
    assert list(found) == [9 * n if n % 2 else n for n in range(1, 41)]
    assert questions[0] >= 40
    assert len(questions) <= 4


async def test_spend_survives_an_orderly_stop_and_nothing_stays_held(
    start: Start, look: Any
) -> None:
    rig = start()
    await rig.take(hard(1000), "a", 400)
    rig.end("a", 250, 50)
    await rig.stop(clean=True)
    assert look("SELECT state FROM lives") == [("ended",)]
    assert look("SELECT count(*) FROM blocks") == [(0,)]
    again = start()
    assert await again.take(hard(1000), "b", 5000) == 700
    usage = again.book.usage(hard(1000))
    assert (usage.spent_tokens, usage.open_tokens, usage.requests) == (300, 700, 1)


async def test_what_is_counted_here_and_what_the_store_has_add_up_over_batches_and_lives(
    start: Start, look: Any
) -> None:
    rig, who = start(), hard(100_000)
    for name, prompt, completion in (("a", 10, 1), ("b", 200, 30), ("c", 3000, 500)):
        await rig.take(who, name, 4000)
        rig.end(name, prompt, completion)
        await rig.book.written()
    assert (
        look("SELECT spent, requests, prompt, completion FROM scopes") == [(3741, 3, 3210, 531)] * 2
    )
    await rig.stop(clean=True)
    again = start()
    await again.take(who, "d", 40)
    again.end("d", 40, 0)
    await again.book.learn([who])
    usage = again.book.usage(who)
    assert (usage.spent_tokens, usage.requests) == (3781, 4)
    assert (usage.prompt_tokens, usage.completion_tokens) == (3250, 531)
    await again.take(who, "e", 7)
    again.end("e", 0, 7)
    await again.book.written()
    assert (
        look("SELECT spent, requests, prompt, completion FROM scopes") == [(3788, 5, 3250, 538)] * 2
    )


async def test_spend_of_a_rolling_window_survives_and_leaves_in_time(start: Start) -> None:
    rig = start()
    await rig.take(rolling(100), "a", 40)
    rig.end("a", 40)
    await rig.stop(clean=True)
    again = start()
    assert await again.take(rolling(100), "b", 500) == 60
    again.end("b", 60)
    with pytest.raises(RateLimitExceeded) as caught:
        await again.take(rolling(100), "c", 1)
    assert caught.value.retry_after_s is not None
    await again.book.written()
    again.clock[0] += 61
    assert await again.take(rolling(100), "c", 500) == 100


async def test_two_caps_of_one_window_count_its_spend_once(start: Start) -> None:
    rig = start()
    window = Window("rolling", 60)
    who = Principal("acme", "k", caps=(Cap(100, window), Cap(200, window)))
    await rig.take(who, "a", 40)
    rig.end("a", 40)
    await rig.stop(clean=True)
    again = start()
    await again.book.learn([who])
    assert [w.spent_tokens for w in again.book.usage(who).windows] == [40, 40]
    assert await again.take(who, "b", 500) == 60


async def test_a_window_that_is_new_counts_what_was_spent_in_it_before(start: Start) -> None:
    rig = start()
    await rig.take(Principal("acme", "k"), "a", 1)
    rig.end("a", 70)
    await rig.book.written()
    assert await rig.take(rolling(100), "b", 500) == 30
    both = Principal("acme", "k", account_caps=(Cap(90, Window("rolling", 600)),))
    rig.end("b", 5)
    assert await rig.take(both, "c", 500) == 15


async def test_a_window_that_is_new_counts_its_oldest_bucket_whole(start: Start) -> None:
    rig = start()
    await rig.take(Principal("acme", "k"), "a", 1)
    rig.end("a", 70)
    await rig.book.written()
    rig.clock[0] += 60.5  # of a window of a minute; its buckets last a second
    assert await rig.take(rolling(100), "b", 500) == 30


async def test_what_was_spent_before_there_was_a_cap_binds_it_once_and_not_for_ever(
    start: Start,
) -> None:
    rig = start()
    await rig.take(Principal("acme", "k"), "a", 1)
    rig.end("a", 70)  # the store has not heard of it when the key is given a cap
    assert await rig.take(hard(100), "b", 500) == 30
    rig.end("b", 10)
    await rig.book.written()
    assert await rig.take(hard(100), "c", 500) == 20
    assert rig.book.usage(hard(100)).spent_tokens == 80


async def test_uncapped_keys_are_granted_at_once_and_their_spend_is_written(
    start: Start, look: Any
) -> None:
    rig = start()
    free = Principal("acme", "free")
    assert isinstance(rig.book.grant(free, "a", 1, 9), Grant)
    rig.end("a", 5, 2)
    await rig.book.written()
    assert look(
        "SELECT request_id, state, account_id, key_id, node, model, granted, prompt, completion "
        "FROM requests"
    ) == [("a", "settled", "acme", "free", "n", "m", None, 5, 2)]
    assert look("SELECT scope, spent, requests FROM scopes ORDER BY scope") == [
        ("account:acme", 7, 1),
        ("key:free", 7, 1),
    ]
    assert look("SELECT count(*) FROM blocks") == [(0,)]


async def test_what_ends_while_a_batch_is_written_follows_it_though_nothing_else_happens(
    start: Start, look: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.cortex.ledger.outbox.FLUSH_S", 0.01)
    rig, slow = start(), list[Any]()
    outbox, free = rig.durable._outbox, Principal("acme", "free")
    await rig.book.learn([free])
    monkeypatch.setattr(outbox, "_store", SimpleNamespace(submit=lambda *job: slow.append(job)))
    async with asyncio.timeout(60):
        for name in ("a", "b"):
            await rig.take(free, name, 9)
            rig.end(name, 5)
            while outbox.armed is not None:  # until its time has come
                await asyncio.sleep(0.005)
        ((work, done),) = slow
        monkeypatch.setattr(outbox, "_store", rig.store)
        rig.store.submit(work, done)
        while look("SELECT count(*) FROM requests") != [(2,)]:
            await asyncio.sleep(0.02)


async def test_a_batch_that_is_written_twice_counts_once(start: Start, look: Any) -> None:
    rig = start()
    line = Line("a", 1, rig.life.life, "settled", 0, "acme", "k", "n", "m", 9, prompt=4)
    batch = spend.Batch(1, 0, list(line), [], [], spend.sums_of([line]))
    for _ in range(2):
        await rig.store.write(lambda db: spend.write_batch(db, rig.life.life, batch))
    assert look("SELECT spent FROM scopes WHERE scope = 'key:k'") == [(4,)]


async def test_whoever_waits_for_a_block_has_the_loop_hand_over_until_the_answer(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "TURN_S", 60.0)
    rig, seen, began = start(), list[str](), time.monotonic()
    go = threading.Event()

    def statements(_db: object) -> None:
        go.wait(60.0)
        seen.append("thread")

    rig.store.submit(statements, lambda _outcome: None)
    first = asyncio.ensure_future(rig.take(hard(10_000), "r1", 600))
    await asyncio.sleep(0)  # it has been asked for
    asyncio.get_running_loop().call_later(0.02, seen.append, "loop")
    timer = threading.Timer(0.05, go.set)
    timer.start()
    assert await first == 600
    timer.join()
    assert seen[0] == "thread"
    assert time.monotonic() - began < 60.0


async def test_what_was_booked_while_the_clock_was_wrong_counts_from_when_it_was_set(
    start: Start, look: Any
) -> None:
    rig, who = start(), rolling(1000)
    rig.clock[0] += 40 * 86_400
    await rig.take(who, "a", 300)
    rig.end("a", 300)
    await rig.book.written()
    rig.clock[0] = START
    await rig.take(who, "b", 200)
    rig.end("b", 200)
    await rig.book.written()
    looking_after = asyncio.ensure_future(rig.durable.run(dict))
    try:
        async with asyncio.timeout(30):
            while look(f"SELECT at FROM requests WHERE at > {START + 60} * 1000"):
                await asyncio.sleep(0.02)
    finally:
        looking_after.cancel()
        await asyncio.wait([looking_after])
    assert look("SELECT scope, bucket, tokens FROM buckets") == [("key:k", int(START), 500)]
    assert rig.book.usage(who).spent_tokens == 500
    proof = await rig.store.read(verify)
    assert proof.ok, proof.checks
    rig.clock[0] += 61
    assert rig.book.usage(who).spent_tokens == 0
    assert await rig.take(who, "c", 1000) == 1000
