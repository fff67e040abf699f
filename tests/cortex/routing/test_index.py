"""What places have cached: a belief that is bounded, forgets as they do, and is corrected."""

from __future__ import annotations

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.index import AffinityIndex, CacheModel


def conversation(name: int, turns: int, size: int = 100) -> Ask:
    """A prompt of so many messages of ``size`` tokens, each turn beginning like the last."""
    points = [hash((name, turn)) for turn in range(turns)]
    sizes = [size * (turn + 1) for turn in range(turns)]
    return Ask(points, sizes, size * turns, name, 1.0)


def test_the_longest_known_beginning_is_found() -> None:
    index = AffinityIndex()
    cache = index.new()
    index.touch(cache, conversation(1, 5), 0.0)
    for turns in range(1, 9):
        assert cache.match(conversation(1, turns)) == 100 * min(turns, 5)
    assert cache.match(conversation(2, 3)) == 0
    assert cache.match(Ask()) == 0


def test_the_least_recently_used_is_forgotten_first_and_a_prompts_end_before_its_beginning() -> (
    None
):
    index = AffinityIndex()
    cache = index.new()
    cache.capacity = 1000
    index.touch(cache, conversation(1, 5), 0.0)
    index.touch(cache, conversation(2, 5), 1.0)
    index.touch(cache, conversation(1, 1), 2.0)  # its beginning is in use
    index.touch(cache, conversation(3, 2), 3.0)
    assert cache.match(conversation(1, 5)) == 300
    assert cache.match(conversation(2, 5)) == 500
    index.touch(cache, conversation(4, 6), 4.0)
    assert cache.match(conversation(1, 5)) == 100
    assert cache.match(conversation(2, 5)) == 100
    assert cache.oldest() == 1.0


def test_answers_occupy_the_cache_too() -> None:
    index = AffinityIndex()
    cache = index.new()
    cache.capacity = 1000
    index.touch(cache, conversation(1, 5), 0.0)
    ask = conversation(2, 4)
    index.touch(cache, ask, 1.0)
    index.learn(cache, ask, 0.0, 0, 300)
    assert cache.match(conversation(1, 5)) == 300


def test_a_place_that_caches_less_than_we_think_loses_our_trust_and_wins_it_back() -> None:
    index = AffinityIndex()
    cache, ask = index.new(), conversation(1, 10)
    for share, trust in ((0.0, 0.05), (1.0, 1.0), (0.5, 0.5)):
        for _ in range(120):
            index.learn(cache, ask, 1000 * cache.trust, int(1000 * share), 0)
        assert abs(cache.trust - trust) < 0.01


def test_a_restart_forgets_what_one_place_had() -> None:
    index = AffinityIndex()
    one, two = index.new(), index.new()
    for cache in (one, two):
        index.touch(cache, conversation(1, 5), 0.0)
    index.clear(one)
    assert (one.match(conversation(1, 5)), two.match(conversation(1, 5))) == (0, 500)
    index.drop(two)
    assert index.points == 0


def test_its_memory_stays_at_its_bound() -> None:
    """10,000 points at most; benchmarks/routing.py does it with a million requests."""
    index = AffinityIndex(10_000)
    caches = [index.new() for _ in range(8)]
    for cache in caches:
        cache.capacity = 10**9
    tracemalloc.start()
    sizes = []
    for number in range(40_000):
        index.touch(caches[number % 8], conversation(number, 2), float(number))
        assert index.points <= 10_000
        if number in (20_000, 39_999):
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert index.points == sum(len(cache.held) for cache in caches)
    assert sizes[1] < 1.05 * sizes[0]
    assert sizes[1] / 10_000 < 300  # bytes per point


def test_a_place_that_comes_late_gets_its_share_of_a_full_index() -> None:
    index = AffinityIndex(1000)
    early = index.new()
    early.capacity = 10**9
    for number in range(1000):
        index.touch(early, conversation(number, 1), 0.0)
    late = index.new()
    late.capacity = 10**9
    for number in range(400):
        index.touch(late, conversation(number, 1), 1.0)
    assert len(late.held) == 400
    assert 900 < index.points <= 1000


class IndexModel(RuleBasedStateMachine):
    """Against a plain list per place: same order, same contents, nested prefixes."""

    CAPACITY = 900

    def __init__(self) -> None:
        super().__init__()
        self.index = AffinityIndex(1 << 12)
        self.caches: list[CacheModel] = [self.index.new() for _ in range(3)]
        self.lists: list[list[int]] = [[], [], []]
        for cache in self.caches:
            cache.capacity = self.CAPACITY
        self.now = 0.0

    @rule(place=st.integers(0, 2), name=st.integers(0, 5), turns=st.integers(1, 6))
    def a_prompt_goes_there(self, place: int, name: int, turns: int) -> None:
        self.now += 1
        ask = conversation(name, turns)
        self.index.touch(self.caches[place], ask, self.now)
        kept = [point for point in self.lists[place] if point not in ask.points]
        self.lists[place] = [*kept, *reversed(ask.points)][-self.CAPACITY // 100 :]

    @rule(place=st.integers(0, 2))
    def it_restarts(self, place: int) -> None:
        self.index.clear(self.caches[place])
        self.lists[place] = []

    @invariant()
    def it_holds_what_a_list_would(self) -> None:
        for cache, kept in zip(self.caches, self.lists, strict=True):
            assert list(cache.held) == kept
            assert cache.used == 100 * len(kept) <= self.CAPACITY
        assert self.index.points == sum(map(len, self.lists))

    @invariant()
    def a_known_point_has_known_points_before_it(self) -> None:
        for cache in self.caches:
            for name in range(6):
                known = [point in cache.held for point in conversation(name, 6).points]
                assert known == sorted(known, reverse=True)
                assert cache.match(conversation(name, 6)) == 100 * sum(known)


TestIndex = IndexModel.TestCase
TestIndex.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.floats(0.05, 1.0))
def test_tokens_add_up_however_bytes_are_cut(steps: list[int], per_byte: float) -> None:
    sizes, total = [], 0
    for step in steps:
        total += step
        sizes.append(total)
    index = AffinityIndex()
    cache = index.new()
    index.touch(cache, Ask(list(range(len(sizes))), sizes, total, 0, per_byte), 0.0)
    assert cache.used == int(total * per_byte)
