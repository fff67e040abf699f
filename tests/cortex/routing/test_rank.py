"""Places are ranked by predicted time to first token; ties are stable and even."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from helexa.cortex.routing import breaker as breakers
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.breaker import CLOSED
from helexa.cortex.routing.choice import RECORDED, Predicted
from helexa.cortex.routing.index import AffinityIndex
from helexa.cortex.routing.rank import Candidate, choose
from helexa.cortex.routing.work import Work


def place(
    name: str, *, ours: int = 0, others: int = 0, capacity: int = 8, rate: float = 1000.0
) -> Candidate:
    work = Work()
    work.open, work.others, work.per_token = ours, others, 1 / rate
    return Candidate(name, capacity, work)


def prompt(tokens: int = 1000, seed: int = 1) -> Ask:
    return Ask((seed,), (tokens,), tokens, seed, 1.0)


def predict(places: list[Candidate], ask: Ask, now: float) -> list[Predicted]:
    choice = choose(places, ask, now)
    assert choice is not None
    return choice.field


def winner(places: list[Candidate], ask: Ask | None = None, now: float = 0.0) -> str:
    choice = choose(places, ask or prompt(), now)
    assert choice is not None
    return choice.won.candidate.node


def test_work_queued_and_running_counts_per_capacity() -> None:
    places = [
        place("busy", ours=2, others=3),
        place("full", ours=1, capacity=1),
        place("large", ours=5, capacity=64),
        place("half", others=4),
    ]
    assert winner(places) == "large"
    assert winner([p for p in places if p.node != "large"]) == "half"


def test_a_full_place_costs_the_time_until_a_seat_is_free() -> None:
    full, slow = place("full", ours=8), place("slow", rate=100)
    full.work.service_s = 4.0
    by_node = {p.candidate.node: p for p in predict([full, slow], prompt(), 0.0)}
    assert by_node["full"].wait == 4.0 / 8
    full.work.open = 15
    assert predict([full], prompt(), 0.0)[0].wait == 4.0


def test_prefill_backlog_is_tokens_over_the_measured_rate() -> None:
    idle, fast = place("idle", rate=1000), place("fast", rate=4000)
    fast.work.ready_at = 10.5  # half a second of prefill is before us
    assert winner([idle, fast], prompt(1000), now=10.0) == "fast"
    fast.work.ready_at = 12.0
    assert winner([idle, fast], prompt(1000), now=10.0) == "idle"


def test_the_part_of_the_prompt_that_a_place_has_is_not_computed_again() -> None:
    index, places = AffinityIndex(), [place(f"n{i}") for i in range(4)]
    for candidate in places:
        candidate.work.cache = index.new()
    ask = Ask((1, 2), (900, 1000), 1000, 5, 1.0)
    home = places[3]
    index.touch(home.work.cache, Ask((1,), (900,), 900, 5, 1.0), 0.0)
    predicted = {p.candidate.node: p for p in predict(places, ask, 0.0)}
    assert predicted["n3"].cached == 900
    assert round(predicted["n3"].prefill, 3) == 0.1
    assert winner(places, ask) == "n3"


def test_affinity_is_a_discount_on_time_and_cannot_gather_everybody_at_one_place() -> None:
    index, places = AffinityIndex(), [place(f"n{i}") for i in range(4)]
    for candidate in places:
        candidate.work.cache = index.new()
    ask = prompt(1000)
    went: Counter[str] = Counter()
    for _ in range(400):  # one prompt, asked again before anything is answered
        choice = choose(places, ask, 0.0)
        assert choice is not None
        candidate = choice.won.candidate
        index.touch(candidate.work.cache, ask, 0.0)
        candidate.work.open += 1
        candidate.work.ready_at += choice.won.prefill
        went[candidate.node] += 1
    assert max(went.values()) <= 1.2 * 100


def test_load_time_counts_where_the_model_is_not_there_yet() -> None:
    warm, cold = place("warm"), place("cold")
    cold.load_s = 5.0
    assert winner([warm, cold]) == "warm"
    warm.work.ready_at = 8.0
    assert winner([warm, cold]) == "cold"


def test_a_cache_that_would_lose_what_was_used_just_now_costs_more_than_one_with_room() -> None:
    index, places = AffinityIndex(), [place("full"), place("room")]
    for candidate in places:
        candidate.work.cache = index.new()
        candidate.work.cache.capacity = 1000
    for seed in range(10, 20):
        index.touch(places[0].work.cache, prompt(100, seed), 50.0)
    assert {winner(places, prompt(100, seed), now=50.0) for seed in range(100, 150)} == {"room"}


@given(
    work=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=9),
    seed=st.integers(0, 2**64),
    avoid=st.frozensets(st.sampled_from([f"n{i}" for i in range(9)])),
)
def test_every_candidate_is_predicted_once_and_nobody_to_avoid_is_chosen(
    work: list[tuple[int, int]], seed: int, avoid: frozenset[str]
) -> None:
    places = [place(f"n{i}", ours=a, others=b) for i, (a, b) in enumerate(work)]
    left = {p.node for p in places} - avoid
    choice = choose(places, prompt(seed=seed), 0.0, avoid)
    if choice is None:
        assert not left
        return
    assert {p.candidate.node for p in choice.field} == left
    assert choice.won.cost <= 1.02 * min(p.cost for p in choice.field) + 0.0001
    assert {node for node, _ in choice.out} == {p.node for p in places} & avoid


def test_ties_are_stable_per_seed_and_spread_over_seeds() -> None:
    places = [place(f"n{i}") for i in range(8)]
    for seed in range(50):
        assert winner(places, prompt(seed=seed)) == winner(places[::-1], prompt(seed=seed))
    first = Counter(winner(places, prompt(seed=seed)) for seed in range(8000))
    assert len(first) == 8
    assert max(first.values()) < 1.15 * 1000


def test_a_node_that_leaves_does_not_reshuffle_the_others() -> None:
    places = [place(f"n{i}") for i in range(8)]
    for seed in range(200):
        before, after = winner(places, prompt(seed=seed)), winner(places[1:], prompt(seed=seed))
        assert before in (after, "n0")


def test_a_place_whose_breaker_is_open_is_passed_over_and_shown() -> None:
    places = [place("broken"), place("well", ours=7)]
    broken = CLOSED
    for _ in range(2):
        broken = breakers.failed(broken, "connection", 100.0)
    places[0].work.judge(broken)
    choice = choose(places, prompt(), 100.5)
    assert choice is not None
    assert choice.won.candidate.node == "well"
    assert choice.out == (("broken", "breaker open, 0.5 s"),)
    assert winner(places, prompt(), now=101.5) == "broken"


def test_what_is_recorded_of_a_large_field_is_bounded() -> None:
    places = [place(f"n{i}", ours=i % 7) for i in range(200)]
    choice = choose(places, prompt(), 0.0)
    assert choice is not None
    assert len(choice.field) == RECORDED
    assert choice.won.candidate.node in {p.candidate.node for p in choice.field}
