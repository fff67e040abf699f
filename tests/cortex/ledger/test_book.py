"""Budgets by grants: refusals, waits, windows, and one end per grant."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine

import pytest

from helexa.core.errors import InsufficientQuota, RateLimitExceeded
from helexa.core.principal import Cap, Principal, Window
from helexa.cortex.ledger.base import Grant, Ledger, Settled, Settlement, estimate
from helexa.cortex.ledger.book import Book


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def hard(tokens: int) -> Principal:
    return Principal("acme", "k", caps=(Cap(tokens),))


def rolling(tokens: int, seconds: int = 60) -> Principal:
    return Principal("acme", "k", caps=(Cap(tokens, Window("rolling", seconds)),))


def now_granted(answer: Grant | Awaitable[Grant]) -> Grant:
    if isinstance(answer, Grant):
        return answer
    assert isinstance(answer, Coroutine)
    answer.close()
    raise AssertionError("the grant had to wait")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(clock: Clock) -> Book:
    return Book(clock, lease_s=60, hold_wait_s=0.05)


def take(ledger: Ledger, who: Principal, request: str, tokens: int) -> int | None:
    return now_granted(ledger.grant(who, request, 1, tokens)).tokens


def end(ledger: Ledger, request: str, prompt: int, completion: int = 0) -> Settled | None:
    return ledger.settle(Settlement(request, 1, prompt, completion))


def test_a_grant_is_the_estimate_or_what_is_left(ledger: Book) -> None:
    assert take(ledger, hard(100), "a", 70) == 70
    assert take(ledger, hard(100), "b", 70) == 30
    usage = ledger.usage(hard(100))
    assert (usage.spent_tokens, usage.open_tokens, usage.available_tokens) == (0, 100, 0)


def test_a_grant_asked_for_twice_is_one_grant(ledger: Book) -> None:
    first = ledger.grant(hard(100), "a", 1, 70)
    assert ledger.grant(hard(100), "a", 1, 99) == first
    assert ledger.usage(hard(100)).open_tokens == 70


def test_settling_frees_what_was_not_used_and_bills_at_most_the_grant(
    ledger: Book,
) -> None:
    take(ledger, hard(100), "a", 50)
    assert end(ledger, "a", 10, 5) == Settled("acme", "k", 10, 5)
    take(ledger, hard(100), "b", 50)
    assert end(ledger, "b", 40, 20) == Settled("acme", "k", 40, 10, overrun=10)
    usage = ledger.usage(hard(100))
    assert (usage.spent_tokens, usage.open_tokens, usage.available_tokens) == (65, 0, 35)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.requests) == (50, 15, 2)
    assert ledger.overrun == 10


def test_a_second_settlement_books_nothing(ledger: Book) -> None:
    take(ledger, hard(100), "a", 50)
    assert end(ledger, "a", 10) is not None
    assert end(ledger, "a", 10) is None
    assert ledger.usage(hard(100)).spent_tokens == 10


def test_a_spent_balance_is_insufficient_quota_without_an_end(ledger: Book) -> None:
    take(ledger, hard(100), "a", 100)
    end(ledger, "a", 100)
    with pytest.raises(InsufficientQuota) as caught:
        ledger.grant(hard(100), "b", 1, 1)
    assert caught.value.retry_after_s is None


def test_a_spent_window_says_when_it_renews(ledger: Book, clock: Clock) -> None:
    who = rolling(100, seconds=60)
    take(ledger, who, "a", 40)
    end(ledger, "a", 40)
    clock.now += 10
    take(ledger, who, "b", 60)
    end(ledger, "b", 60)
    with pytest.raises(RateLimitExceeded) as caught:
        ledger.grant(who, "c", 1, 1)
    assert caught.value.retry_after_s == 51
    assert caught.value.extras["resets_at"] == clock.now + 51
    clock.now += 50.9
    with pytest.raises(RateLimitExceeded):
        ledger.grant(who, "c", 1, 1)
    clock.now += 0.1
    assert take(ledger, who, "c", 1000) == 40


def test_of_several_caps_the_tightest_decides(ledger: Book, clock: Clock) -> None:
    caps = (Cap(100, Window("rolling", 60)), Cap(1000, Window("rolling", 3600)), Cap(150))
    who = Principal("acme", "k", caps=caps)
    assert take(ledger, who, "a", 500) == 100
    end(ledger, "a", 100)
    with pytest.raises(RateLimitExceeded):
        ledger.grant(who, "b", 1, 1)
    clock.now += 61
    assert take(ledger, who, "b", 500) == 50
    end(ledger, "b", 50)
    with pytest.raises(InsufficientQuota):
        ledger.grant(who, "c", 1, 1)
    usage = ledger.usage(who)
    assert [w.available_tokens for w in usage.windows] == [50, 850, 0]
    assert usage.hard_cap == 150


def test_an_uncapped_key_is_never_refused_and_still_counted(ledger: Book) -> None:
    who = Principal("acme", "free")
    assert take(ledger, who, "a", 10**9) is None
    assert ledger.extend("a", 1, 5, 10) is None
    assert end(ledger, "a", 10**7, 1) == Settled("acme", "free", 10**7, 1)
    usage = ledger.usage(who)
    assert (usage.hard_cap, usage.spent_tokens, usage.windows) == (None, 10**7 + 1, ())


def test_extension_is_absolute_idempotent_and_stops_at_the_cap(ledger: Book) -> None:
    take(ledger, hard(100), "a", 30)
    assert ledger.extend("a", 1, 25, 60) == 60
    assert ledger.extend("a", 1, 25, 60) == 60
    assert ledger.extend("a", 1, 25, 40) == 60
    assert ledger.extend("a", 1, 55, 1000) == 100
    assert ledger.extend("unknown", 1, 0, 10) is None
    assert ledger.usage(hard(100)).open_tokens == 100


def test_a_lease_that_begins_anew_is_a_whole_one(ledger: Book, clock: Clock) -> None:
    take(ledger, hard(100), "ended", 60)
    clock.now += 59
    ledger.renew("ended", 1)
    ledger.renew("unknown", 1)
    clock.now += 59
    assert not ledger.expire(())
    clock.now += 1
    assert ledger.expire(()) == {("ended", 1): Settled("acme", "k", 0, 0)}


def test_a_leaked_hold_is_given_back_when_its_lease_ends(ledger: Book, clock: Clock) -> None:
    take(ledger, hard(100), "leaked", 60)
    take(ledger, hard(100), "alive", 40)
    ledger.extend("leaked", 1, 7, 60)
    clock.now += 59
    assert not ledger.expire(())
    clock.now += 1
    assert ledger.expire({("alive", 1)}) == {("leaked", 1): Settled("acme", "k", 7, 0)}
    usage = ledger.usage(hard(100))
    assert (usage.spent_tokens, usage.open_tokens) == (7, 40)
    assert end(ledger, "leaked", 60) is None
    assert ledger.estimated == 7
    clock.now += 59
    assert not ledger.expire(())


def test_room_that_is_only_held_is_waited_for(ledger: Book) -> None:
    async def run() -> int | None:
        take(ledger, hard(100), "a", 100)
        answer = ledger.grant(hard(100), "b", 1, 50)
        assert not isinstance(answer, Grant)
        waiting = asyncio.ensure_future(answer)
        await asyncio.sleep(0)
        end(ledger, "a", 80)
        return (await waiting).tokens

    assert asyncio.run(run()) == 20


def test_room_that_stays_held_is_a_rate_limit_and_never_a_quota(ledger: Book) -> None:
    async def run() -> None:
        take(ledger, hard(100), "a", 100)
        answer = ledger.grant(hard(100), "b", 1, 50)
        assert not isinstance(answer, Grant)
        await answer

    with pytest.raises(RateLimitExceeded, match="held by its 1 open") as caught:
        asyncio.run(run())
    assert caught.value.retry_after_s is not None
    assert not ledger._accounts["k"].waiters


def test_room_that_gets_spent_while_waiting_is_a_quota(ledger: Book) -> None:
    async def run() -> None:
        take(ledger, hard(100), "a", 100)
        answer = ledger.grant(hard(100), "b", 1, 50)
        assert not isinstance(answer, Grant)
        waiting = asyncio.ensure_future(answer)
        await asyncio.sleep(0)
        end(ledger, "a", 100)
        await waiting

    with pytest.raises(InsufficientQuota):
        asyncio.run(run())


def test_waiters_that_leave_pass_the_word_on(ledger: Book) -> None:
    async def run() -> list[int | None]:
        take(ledger, hard(100), "a", 100)
        waiting = []
        for name in "bcde":
            answer = ledger.grant(hard(100), name, 1, 30)
            assert not isinstance(answer, Grant)
            waiting.append(asyncio.ensure_future(answer))
        await asyncio.sleep(0)
        end(ledger, "a", 10)
        waiting[0].cancel()  # woken, and gone before it could take the room
        waiting[1].cancel()
        await asyncio.sleep(0)
        return [grant.tokens for grant in await asyncio.gather(*waiting[2:])]

    assert asyncio.run(run()) == [30, 30]
    assert ledger.usage(hard(100)).open_tokens == 60
    assert not ledger._accounts["k"].waiters


def test_a_fan_out_shares_what_is_there_until_it_is_gone(ledger: Book) -> None:
    who = hard(50_000)
    size = estimate(6000, slice_tokens=512, output_cap=32_000)
    assert [take(ledger, who, f"r{i}", size) for i in range(8)] == [2512] * 8


def test_snapshot_shows_every_open_grant(ledger: Book) -> None:
    take(ledger, hard(100), "a", 30)
    take(ledger, Principal("x", "free"), "b", 30)
    shot = ledger.snapshot()
    assert [(g.request_id, g.tokens) for g in shot.grants] == [("a", 30), ("b", None)]
    assert [(k.key_id, k.grants, k.tokens) for k in shot.keys] == [("k", 1, 30), ("free", 1, 0)]


@pytest.mark.parametrize(
    ("args", "kwargs", "tokens"),
    [
        ((0,), {}, 512),
        ((300,), {}, 612),
        ((301,), {"output_cap": 10}, 111),
        ((300, 2), {"slice_tokens": 100, "output_cap": 32_000}, 3200),
        ((0,), {"output_cap": 0}, 1),
    ],
)
def test_the_estimate_is_bytes_images_and_a_slice(
    args: tuple[int, ...], kwargs: dict[str, int], tokens: int
) -> None:
    assert estimate(*args, **kwargs) == tokens


def of_account(key: str, own: int | None, shared: int) -> Principal:
    caps = () if own is None else (Cap(own),)
    return Principal("acme", key, caps=caps, account_caps=(Cap(shared),))


def test_an_accounts_cap_binds_all_of_its_keys_together(ledger: Book) -> None:
    one, two = of_account("one", None, 100), of_account("two", 80, 100)
    assert take(ledger, one, "a", 70) == 70
    assert take(ledger, two, "b", 70) == 30
    end(ledger, "a", 70)
    end(ledger, "b", 30)
    with pytest.raises(InsufficientQuota, match="This account's token balance is spent"):
        take(ledger, two, "c", 10)
    usage = ledger.usage(two)
    assert [(w.scope, w.spent_tokens) for w in usage.windows] == [("key", 30), ("account", 100)]
    assert (usage.hard_cap, usage.available_tokens) == (100, 0)
    assert [(h.key_id, h.tokens) for h in ledger.holds()] == [("one", 0), ("two", 0)]


def test_a_keys_cap_binds_below_its_accounts(ledger: Book) -> None:
    tight = of_account("tight", 20, 100)
    assert take(ledger, tight, "a", 70) == 20
    end(ledger, "a", 20)
    with pytest.raises(InsufficientQuota, match="This key's token balance"):
        take(ledger, tight, "b", 1)
    assert take(ledger, of_account("wide", None, 100), "c", 100) == 80


def test_room_that_one_key_of_an_account_frees_is_given_to_another(ledger: Book) -> None:
    one, two = of_account("one", None, 100), of_account("two", None, 100)

    async def run() -> int | None:
        take(ledger, one, "a", 100)
        waiting = ledger.grant(two, "b", 1, 10)
        assert not isinstance(waiting, Grant)
        task = asyncio.ensure_future(waiting)
        await asyncio.sleep(0)
        end(ledger, "a", 10)
        return (await task).tokens

    assert asyncio.run(run()) == 10


def test_other_caps_for_a_key_keep_what_it_has_spent_and_holds(ledger: Book) -> None:
    take(ledger, hard(100), "a", 60)
    end(ledger, "a", 60)
    take(ledger, hard(100), "b", 30)
    more = Principal("acme", "k", caps=(Cap(200), Cap(50, Window("rolling", 60))))
    usage = ledger.usage(more)
    assert [(w.spent_tokens, w.open_tokens) for w in usage.windows] == [(60, 30), (0, 30)]
    assert take(ledger, more, "c", 1000) == 20
    end(ledger, "b", 30)
    end(ledger, "c", 10)
    assert [w.spent_tokens for w in ledger.usage(more).windows] == [100, 40]
    assert [w.open_tokens for w in ledger.usage(hard(100)).windows] == [0]
    with pytest.raises(InsufficientQuota):
        take(ledger, hard(100), "d", 1)


def test_caps_that_an_account_is_given_while_its_keys_run_hold_at_once(
    ledger: Book,
) -> None:
    take(ledger, Principal("acme", "one", caps=(Cap(1000),)), "a", 60)
    both = {name: Principal("acme", name, account_caps=(Cap(100),)) for name in ("one", "two")}
    assert take(ledger, both["two"], "b", 1000) == 40
    end(ledger, "a", 60)
    end(ledger, "b", 40)
    with pytest.raises(InsufficientQuota, match="account's"):
        take(ledger, both["one"], "c", 1)


def test_what_was_put_off_is_settled_before_anybody_is_told_of_no_room(ledger: Book) -> None:
    assert take(ledger, hard(100), "a", 100) == 100
    ended = ["a"]
    ledger.before_short = lambda: ended and end(ledger, ended.pop(), 30)
    assert take(ledger, hard(100), "b", 100) == 70
    ledger.before_short = lambda: end(ledger, "b", 10)
    assert take(ledger, hard(100), "c", 20) == 20
    assert ledger.extend("c", 1, 20, 60) == 60


def test_an_extension_whose_own_end_was_put_off_holds_nothing(ledger: Book) -> None:
    assert take(ledger, hard(100), "a", 40) == 40
    assert take(ledger, hard(100), "b", 60) == 60
    ledger.before_short = lambda: end(ledger, "a", 30)
    assert ledger.extend("a", 1, 30, 80) is None
    found = ledger.usage(hard(100))
    assert (found.spent_tokens, found.open_tokens) == (30, 60)
    assert [grant.request_id for grant in ledger.snapshot().grants] == ["b"]
