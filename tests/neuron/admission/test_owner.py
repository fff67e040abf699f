"""Waiting for a seat: deadlines, refusals, cancels, and that nothing is ever lost."""

from __future__ import annotations

import asyncio
import random
import traceback

import pytest

from helexa.core.errors import (
    ContextLengthExceeded,
    Overloaded,
    RateLimitExceeded,
    ServiceUnavailable,
    UnsupportedParameter,
)
from helexa.neuron.admission import Admission, Seat, Ticket
from helexa.neuron.admission.owner import going_away
from helexa.neuron.settings import AdmissionSettings

pytestmark = pytest.mark.anyio


def make(seats: int = 1, cells: int = 1000, *, slice_tokens: int = 0,
         max_queue_depth: int = 8, max_wait_secs: float = 30.0, max_per_principal: int = 0,
         reserve_seats: int = 0, max_in_flight: int | None = None) -> Admission:  # fmt: skip
    settings = AdmissionSettings(
        max_in_flight=max_in_flight,
        max_queue_depth=max_queue_depth,
        max_wait_secs=max_wait_secs,
        max_per_principal=max_per_principal,
        reserve_seats=reserve_seats,
    )
    loop = asyncio.get_running_loop()
    return Admission(seats, cells, cells, settings, loop.time, slice_tokens=slice_tokens)


def entering(admission: Admission, principal: str = "a", cells: int = 10) -> asyncio.Task[Seat]:
    return asyncio.create_task(admission.enter(Ticket(principal, cells)))


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_free_seat_is_had_without_suspension() -> None:
    admission = make()
    coroutine = admission.enter(Ticket("a", 10))
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert isinstance(done.value.value, Seat)
    assert admission.figures("m").in_flight == 1


async def test_try_enter_takes_a_seat_or_leaves_no_trace() -> None:
    admission = make()
    seat = admission.try_enter(Ticket("a", 10))
    assert seat is not None
    assert admission.try_enter(Ticket("b", 10)) is None
    assert (admission.figures("m").queue_depth, admission.figures("m").kv_used_tokens) == (0, 10)


async def test_a_freed_seat_goes_to_who_waits() -> None:
    admission = make()
    first = await admission.enter(Ticket("a", 10))
    waiting = entering(admission, "b")
    await settle()
    assert admission.figures("m").queue_depth == 1
    first.leave()
    first.leave()
    seat = await waiting
    assert (admission.figures("m").in_flight, seat.cells) == (1, 10)


async def test_cells_are_extended_until_none_are_left() -> None:
    admission = make(cells=100)
    seat = await admission.enter(Ticket("a", 60))
    assert seat.extend_cells(40)
    assert seat.cells == 100
    assert not seat.extend_cells(1)
    seat.leave()
    assert not seat.extend_cells(1)
    assert admission.figures("m").kv_used_tokens == 0


async def test_what_never_fits_is_refused_at_once_and_what_fits_later_waits() -> None:
    admission = make(seats=2, cells=100)
    with pytest.raises(ContextLengthExceeded):
        await admission.enter(Ticket("a", 101))
    assert admission.figures("m").rejected_too_long == 1
    first = await admission.enter(Ticket("a", 80))
    later = entering(admission, "a", 50)
    await settle()
    assert not later.done()
    first.leave()
    assert (await later).cells == 50


async def test_nobody_in_particular_is_not_let_wait_for_seats_that_are_kept_from_them() -> None:
    admission = make(seats=4, reserve_seats=1)
    with pytest.raises(UnsupportedParameter, match="at most 3 answers at once to"):
        await admission.enter(Ticket("", 10, anonymous=True, seats=4))
    (await admission.enter(Ticket("", 10, anonymous=True, seats=3))).leave()
    (await admission.enter(Ticket("a", 10, seats=4))).leave()


async def test_a_full_queue_refuses_with_an_estimate() -> None:
    admission = make(max_queue_depth=1)
    await admission.enter(Ticket("a", 10))
    waiting = entering(admission)
    await settle()
    with pytest.raises(Overloaded) as refused:
        await admission.enter(Ticket("a", 10))
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s >= 1
    assert admission.figures("m").rejected_queue_full == 1
    waiting.cancel()


async def test_nobody_fills_the_queue_for_others() -> None:
    admission = make(max_queue_depth=4)
    await admission.enter(Ticket("a", 10))
    pushy = [entering(admission, "a") for _ in range(4)]
    await settle()
    modest = [entering(admission, "b") for _ in range(3)]
    await settle()
    refused = [task for task in pushy if task.done()]
    assert [type(task.exception()) for task in refused] == [Overloaded, Overloaded]
    assert refused == pushy[2:]
    assert isinstance(modest[2].exception(), Overloaded)
    assert admission.figures("m").queue_depth == 4
    for task in [*pushy, *modest]:
        task.cancel()


async def test_a_seat_kept_free_for_others_is_a_place_more_in_the_queue() -> None:
    admission = make(seats=4, max_queue_depth=8, reserve_seats=1)
    lone = [entering(admission) for _ in range(13)]
    await settle()
    assert admission.figures("m").in_flight == 3
    refused = [task for task in lone if task.done() and task.exception()]
    assert refused == lone[12:], "four seats and a queue of eight hold twelve"
    other = entering(admission, "b")
    await settle()
    assert (await other).ticket.principal == "b"
    assert [task for task in lone if task.done() and task.exception()] == refused, (
        "whoever sits down at once pushes nobody out"
    )
    for task in lone:
        task.cancel()


async def test_a_named_request_takes_the_queue_place_of_an_anonymous_one() -> None:
    admission = make(max_queue_depth=1)
    await admission.enter(Ticket("a", 10))
    nobody = asyncio.create_task(admission.enter(Ticket("anonymous", 10, anonymous=True)))
    await settle()
    named = entering(admission, "b")
    await settle()
    assert isinstance(nobody.exception(), Overloaded)
    named.cancel()


async def test_nobody_waits_longer_than_the_bound() -> None:
    admission = make(max_wait_secs=0.02)
    await admission.enter(Ticket("a", 10))
    with pytest.raises(Overloaded, match="waited"):
        await admission.enter(Ticket("b", 10))
    assert admission.figures("m").rejected_timeout == 1
    assert admission.figures("m").queue_depth == 0


async def test_a_callers_own_deadline_only_shortens_the_wait() -> None:
    admission = make(max_wait_secs=0.02)
    await admission.enter(Ticket("a", 10))
    for own in (0.001, 60.0):
        with pytest.raises(Overloaded):
            await admission.enter(Ticket("b", 10, max_wait_s=own))


async def test_the_hard_cap_per_principal_is_a_429() -> None:
    admission = make(seats=4, max_per_principal=2)
    await admission.enter(Ticket("a", 10))
    await admission.enter(Ticket("a", 10))
    with pytest.raises(RateLimitExceeded):
        await admission.enter(Ticket("a", 10))
    await admission.enter(Ticket("b", 10))
    assert admission.figures("m").rejected_principal == 1


async def test_a_waiting_request_knows_its_place_and_an_estimate() -> None:
    admission = make()
    (await admission.enter(Ticket("a", 10))).leave()
    first = await admission.enter(Ticket("a", 10))
    tickets = [Ticket(name, 10) for name in ("a", "a", "b")]
    tasks = [asyncio.create_task(admission.enter(ticket)) for ticket in tickets]
    await settle()
    standings = [admission.standing(ticket) for ticket in tickets]
    assert [s.place for s in standings if s] == [2, 3, 2]
    assert all(s is not None and s.eta_s is not None for s in standings)
    assert admission.standing(first.ticket) is None
    for task in tasks:
        task.cancel()


async def test_a_newcomer_that_fits_is_seated_at_once_though_another_waits_for_cells() -> None:
    admission = make(seats=3, cells=100)
    await admission.enter(Ticket("a", 60))
    large = entering(admission, "b", 80)
    await settle()
    async with asyncio.timeout(30):
        await admission.enter(Ticket("c", 10))
    assert not large.done()
    large.cancel()


async def test_a_client_that_left_the_queue_is_not_counted_as_one_that_waited_too_long() -> None:
    admission = make()
    await admission.enter(Ticket("a", 10))
    ticket = Ticket("b", 10)
    task = asyncio.create_task(admission.enter(ticket))
    await settle()
    deadline = admission._waiters[ticket].deadline
    task.cancel()
    await settle()
    assert deadline is not None
    assert deadline.cancelled()


async def test_a_client_that_leaves_while_queued_frees_everything() -> None:
    admission = make()
    seat = await admission.enter(Ticket("a", 10))
    waiting = entering(admission, "b")
    await settle()
    waiting.cancel()
    await settle()
    assert admission.figures("m").queue_depth == 0
    seat.leave()
    admission.core.check_integrity()
    assert admission.figures("m").in_flight == 0


async def test_a_client_that_leaves_in_the_moment_it_is_seated_gives_the_seat_back() -> None:
    admission = make()
    seat = await admission.enter(Ticket("a", 10))
    unlucky, next_one = entering(admission, "b"), entering(admission, "c")
    await settle()
    seat.leave()
    unlucky.cancel()
    assert (await next_one).ticket.principal == "c"
    assert admission.figures("m").in_flight == 1


async def test_whoever_waited_only_for_one_that_left_is_seated_at_once() -> None:
    admission = make(seats=2, cells=100)
    await admission.enter(Ticket("a", 60))
    ahead = entering(admission, "b", cells=60)
    await settle()
    behind = asyncio.create_task(admission.enter(Ticket("anonymous", 10, anonymous=True)))
    await settle()
    assert admission.figures("m").queue_depth == 2
    ahead.cancel()
    await settle()
    assert behind.done(), "nothing else will happen that could seat it"


async def test_who_gives_its_place_up_waits_no_more() -> None:
    admission = make()
    await admission.enter(Ticket("a", 10))
    ticket = Ticket("b", 10)
    place = admission.line_up(ticket)
    assert admission.figures("m").queue_depth == 1
    admission.give_up(ticket, place)
    admission.give_up(ticket, place)
    assert place.cancelled()
    assert admission.figures("m").queue_depth == 0


async def test_a_seat_given_to_a_place_that_is_given_up_in_that_moment_is_free_again() -> None:
    admission = make()
    seat = await admission.enter(Ticket("a", 10))
    ticket = Ticket("b", 10)
    place = admission.line_up(ticket)
    seat.leave()
    assert place.done()
    admission.give_up(ticket, place)
    admission.give_up(ticket, place)
    assert admission.figures("m").in_flight == 0


async def test_closing_refuses_who_waits_and_who_comes() -> None:
    admission = make()
    seat = await admission.enter(Ticket("a", 10))
    waiting = entering(admission, "b")
    await settle()
    admission.close(going_away("m"))
    with pytest.raises(ServiceUnavailable, match="unloaded"):
        await waiting
    with pytest.raises(ServiceUnavailable):
        await admission.enter(Ticket("c", 10))
    assert not admission.servable().ok
    frames = []
    for _ in range(3):
        with pytest.raises(ServiceUnavailable) as refused:
            admission.try_enter(Ticket("c", 10))
        frames.append(len(list(traceback.walk_tb(refused.value.__traceback__))))
    assert len(set(frames)) == 1, "what is kept must not hold on to those it has refused"
    seat.leave()


async def test_a_smaller_engine_refuses_what_no_longer_fits() -> None:
    admission = make(cells=1000)
    seat = await admission.enter(Ticket("a", 10))
    large, small = entering(admission, "b", 500), entering(admission, "b", 20)
    await settle()
    admission.resize(2, 100, 100)
    with pytest.raises(ContextLengthExceeded):
        await large
    (await small).leave()
    seat.leave()


async def test_the_operators_bound_lowers_the_seats() -> None:
    admission = make(seats=8, max_in_flight=2)
    assert admission.figures("m").max_in_flight == 2


async def test_random_cancels_lose_no_seat_and_no_cell() -> None:
    rng = random.Random(7)
    admission = make(seats=4, cells=400, slice_tokens=5, max_queue_depth=20, reserve_seats=1)
    served = refused = cancelled = 0

    async def one() -> None:
        nonlocal served, refused, cancelled
        name = rng.choice(["a", "b", "c", "anonymous"])
        ticket = Ticket(name, rng.randint(1, 150), anonymous=name == "anonymous")
        try:
            seat = await admission.enter(ticket)
        except Overloaded:
            refused += 1
            return
        except asyncio.CancelledError:
            cancelled += 1
            raise
        try:
            for _ in range(rng.randint(0, 5)):
                await asyncio.sleep(0)
                seat.charge(rng.randint(1, 50))
                seat.extend_cells(rng.randint(1, 20))
            served += 1
        finally:
            seat.leave()

    tasks: list[asyncio.Task[None]] = []
    for _ in range(1500):
        tasks.append(asyncio.create_task(one()))
        if rng.random() < 0.4:
            rng.choice(tasks[-30:]).cancel()
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        admission.core.check_integrity()
        assert admission.core.in_flight <= 4
        assert admission.core.cells.used <= 400
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert served > 300
    assert cancelled > 100
    assert refused > 100
    figures = admission.figures("m")
    assert (figures.in_flight, figures.queue_depth, figures.kv_used_tokens) == (0, 0, 0)


async def test_what_has_begun_takes_its_turn_and_is_never_refused_for_want_of_room() -> None:
    admission = make(max_queue_depth=1, max_wait_secs=0.01, max_per_principal=1)
    seat = await admission.enter(Ticket("a", 10))
    assert (
        admission.try_enter(Ticket("a", 10, begun=True)) is None
    )  # with all that its key may have
    begun = admission.line_up(Ticket("b", 10, begun=True))
    another = admission.line_up(Ticket("b", 10, begun=True))
    with pytest.raises(Overloaded):
        await entering(admission, "c")
    await asyncio.sleep(0.05)  # longer than others may wait
    assert admission.figures("m").queue_depth == 2
    admission.close(going_away("m"))
    seat.leave()
    (await begun).leave()
    (await another).leave()
    assert admission.try_enter(Ticket("b", 10, begun=True)) is not None


async def test_one_more_seat_is_had_only_where_nobody_waits_and_refuses_nobody() -> None:
    admission = make(4, reserve_seats=1, max_per_principal=2)
    first = await admission.enter(Ticket("a", 10))
    assert admission.try_more(Ticket("a", 10, begun=True)) is not None
    assert admission.try_more(Ticket("a", 10, begun=True)) is None  # as many as one key may have
    first.leave()
    other = await admission.enter(Ticket("b", 600))
    waiting = entering(admission, "c", cells=500)
    await settle()
    assert admission.try_more(Ticket("a", 10, begun=True)) is None
    assert admission.figures("m").rejected_principal == 0
    other.leave()
    (await waiting).leave()
