"""A rolling window is never under-counted, and over-counted by one bucket at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from helexa.core.principal import Cap, Window
from helexa.cortex.ledger.window import BUCKETS, CapState

SECONDS = 600
WIDTH = SECONDS // BUCKETS
STEPS = st.lists(
    st.tuples(st.one_of(st.integers(0, 3 * WIDTH), st.integers(580, 630)), st.integers(1, 5)),
    min_size=1,
    max_size=30,
)


@given(start=st.integers(0, 10_000), steps=STEPS)
def test_spend_leaves_as_whole_buckets_and_not_too_early(
    start: int, steps: list[tuple[int, int]]
) -> None:
    cap = CapState(Cap(10**6, Window("rolling", SECONDS)))
    booked: list[tuple[int, int]] = []
    now = start
    for advance, tokens in steps:
        now += advance
        exact = sum(n for at, n in booked if now - at < SECONDS)
        most = sum(n for at, n in booked if now - at < SECONDS + WIDTH)
        assert exact <= cap.spent(now) <= most
        cap.book(tokens, now)
        booked.append((now, tokens))
    assert len(cap._buckets) <= BUCKETS + 1


def test_a_clock_that_steps_back_loses_nothing() -> None:
    cap = CapState(Cap(100, Window("rolling", 60)))
    cap.book(10, 1000.0)
    cap.book(10, 950.0)
    assert cap.spent(950.0) == 20
    assert cap.spent(1060.9) == 20
    assert cap.spent(1061.0) == 0


def test_what_was_spent_while_the_clock_was_wrong_leaves_a_window_after_it_was_set() -> None:
    cap = CapState(Cap(100, Window("rolling", 60)))
    cap.book(10, 90_000.0)
    cap.book(10, 1010.0)
    assert cap.buckets == ((1010, 20),)
    assert cap.spent(1070.9) == 20
    assert cap.spent(1071.0) == 0


def test_a_clock_that_is_set_back_leaves_what_was_spent_before_it_was_wrong_in_its_place() -> None:
    cap = CapState(Cap(100, Window("rolling", 3600)))
    cap.book(10, 7200.0)
    cap.book(5, 9000.0)  # half an hour ahead
    cap.book(1, 7260.0)
    assert cap.buckets == ((120, 10), (121, 6))
    assert (cap.spent(10859.9), cap.spent(10860.0)) == (16, 6)


def test_another_gateways_clock_may_be_a_little_ahead() -> None:
    cap = CapState(Cap(100, Window("rolling", 60)))
    cap.load(0, [(1000, 10), (1005, 10)])
    cap.book(1, 1003.0)
    assert cap.buckets == ((1000, 10), (1005, 11))


def test_a_window_is_empty_when_the_last_that_was_spent_has_left() -> None:
    cap = CapState(Cap(100, Window("rolling", 60)))
    assert cap.empty_in(1000.0) == 0.0
    cap.book(10, 1000.0)
    cap.book(10, 1020.0)
    assert (cap.empty_in(1020.0), cap.empty_in(1081.0)) == (61.0, 0.0)
    assert CapState(Cap(100, Window("balance"))).empty_in(1000.0) is None


def test_room_comes_when_enough_has_left_and_never_sooner_than_a_window_without_any() -> None:
    cap = CapState(Cap(15, Window("rolling", 60)))
    for at, tokens in ((1000.0, 5), (1010.0, 5), (1020.0, 10)):
        cap.book(tokens, at)
    assert cap.room_at(1020.0) == 1071.0  # at 1061 all of the fifteen are still taken
    assert CapState(Cap(0, Window("rolling", 60))).room_at(1020.0) == 1080.0
