"""Least work first, per capacity; ties are broken stably and evenly."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helexa.cortex.routing.rank import Candidate, Work, best, mix, rank


def place(name: str, *, ours: int = 0, others: int = 0, capacity: int = 8) -> Candidate:
    work = Work()
    work.open, work.others = ours, others
    return Candidate(name, capacity, work)


def names(candidates: list[Candidate], seed: int = 0) -> list[str]:
    return [candidate.node for candidate in rank(candidates, seed)]


def test_the_place_with_least_work_per_capacity_is_first() -> None:
    places = [
        place("busy", ours=2, others=3),
        place("small", ours=1, capacity=1),
        place("large", ours=5, capacity=64),
        place("half", others=4),
    ]
    assert names(places) == ["large", "half", "busy", "small"]


@given(
    work=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=9),
    seed=st.integers(0, 2**64),
)
def test_every_candidate_is_ranked_once_and_never_behind_more_work(
    work: list[tuple[int, int]], seed: int
) -> None:
    places = [place(f"n{i}", ours=a, others=b) for i, (a, b) in enumerate(work)]
    order = rank(places, seed)
    assert sorted(c.node for c in order) == sorted(c.node for c in places)
    loads = [c.work.open + c.work.others for c in order]
    assert loads == sorted(loads)


@given(
    work=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    seed=st.integers(0, 2**64),
    avoid=st.frozensets(st.sampled_from([f"n{i}" for i in range(9)])),
)
def test_the_best_is_the_first_of_the_ranking_that_is_not_avoided(
    work: list[int], seed: int, avoid: frozenset[str]
) -> None:
    places = [place(f"n{i}", ours=n) for i, n in enumerate(work)]
    wanted = next((c for c in rank(places, seed) if c.node not in avoid), None)
    assert best(places, mix(seed), avoid) is wanted


def test_ties_are_stable_per_seed_and_spread_over_seeds() -> None:
    places = [place(f"n{i}") for i in range(8)]
    assert names(places, 5) == names(places[::-1], 5)
    first = Counter(names(places, seed)[0] for seed in range(8000))
    assert len(first) == 8
    assert max(first.values()) < 1.15 * 1000


def test_a_node_that_leaves_does_not_reshuffle_the_others() -> None:
    places = [place(f"n{i}") for i in range(8)]
    for seed in range(50):
        order = names(places, seed)
        assert names(places[1:], seed) == [n for n in order if n != "n0"]
