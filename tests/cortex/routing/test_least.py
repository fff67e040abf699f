"""The cheap choice among equals: least work first, turns taken, nobody avoided is chosen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from helexa.cortex.routing.rank import Candidate, Work, least


def candidates(loads: list[int]) -> list[Candidate]:
    made = []
    for index, load in enumerate(loads):
        work = Work()
        work.open = load
        made.append(Candidate(f"n{index}", 4, work))
    return made


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(0, 1000), st.data())
def test_nobody_with_less_work_is_passed_over(
    loads: list[int], turn: int, data: st.DataObject
) -> None:
    places = candidates(loads)
    avoid = data.draw(st.sets(st.sampled_from([p.node for p in places])))
    chosen = least(places, turn, avoid)
    left = [p for p in places if p.node not in avoid]
    if chosen is None:
        assert not left
    else:
        assert chosen in left
        assert chosen.work.open == min(p.work.open for p in left)


def test_equals_take_turns() -> None:
    places = candidates([3, 3, 3, 3])
    assert [least(places, turn, set()) for turn in range(4)] == places


def test_a_place_of_twice_the_capacity_gets_twice_the_work() -> None:
    small, large = Candidate("small", 2, Work()), Candidate("large", 4, Work())
    for turn in range(60):
        chosen = least([small, large], turn, set())
        assert chosen is not None
        chosen.work.open += 1
    assert (small.work.open, large.work.open) == (20, 40)


def test_nobody_there_is_nobody_chosen() -> None:
    assert least([], 7, set()) is None
