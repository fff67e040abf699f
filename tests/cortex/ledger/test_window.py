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
