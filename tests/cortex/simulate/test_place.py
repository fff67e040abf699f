"""The simulated engine: serial prefill, decode, and a cache that forgets in blocks."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.cortex.simulate.fleet import NodeSpec
from helexa.cortex.simulate.place import Place, Run
from helexa.cortex.simulate.trace import Asked, ask_of

SPEC = NodeSpec("n", prefill=1000.0, decode=10.0, kv_tokens=1000, seats=3)


def run_of(*prompt: tuple[str, int], output: int = 10) -> Run:
    asked = Asked(0.0, "m", prompt, output)
    return Run(asked, ask_of(asked))


def serve(place: Place, run: Run, now: float = 0.0) -> Run:
    """One request from its queue to its end, alone."""
    place.queue.append(run)
    assert place.begin(now) is run
    place.end(run, place.first(run, place.prefilled_at))
    return run


def test_a_prompt_is_prefilled_but_for_what_is_cached() -> None:
    place = Place(SPEC, "m")
    assert serve(place, run_of(("s", 500), ("a", 100))).first_at == 0.6
    again = serve(place, run_of(("s", 500), ("b", 100)))
    assert (again.cached, again.first_at) == (500, 0.1)


def test_prefills_come_one_after_the_other_and_answers_run_side_by_side() -> None:
    place = Place(SPEC, "m")
    runs = [run_of((name, 100), output=100) for name in "ab"]
    place.queue.extend(runs)
    assert place.begin(0.0) is runs[0]
    assert place.begin(0.0) is None
    assert place.first(runs[0], 0.1) == 10.1
    assert place.begin(0.1) is runs[1]
    assert place.prefilled_at == 0.2


def test_the_least_recently_used_goes_first_in_blocks_and_its_end_before_its_beginning() -> None:
    place = Place(SPEC, "m")
    for name in "ab":
        serve(place, run_of((name, 300), (f"{name}1", 90)))
    serve(place, run_of(("c", 250), output=50))
    assert place.cached(run_of(("b", 300), ("b1", 90))) == 390
    assert place.cached(run_of(("a", 300), ("a1", 90))) == 300
    serve(place, run_of(("d", 150)))
    assert 0 < place.cached(run_of(("a", 300), ("a1", 90))) < 300
    assert place.cached(run_of(("a", 300))) % 2 == 0


def test_a_request_waits_until_what_runs_leaves_it_room() -> None:
    place = Place(SPEC, "m")
    large, next_one = run_of(("a", 700), output=100), run_of(("b", 300))
    place.queue.extend((large, next_one))
    place.begin(0.0)
    end = place.first(large, 0.7)
    assert place.begin(0.7) is None
    place.end(large, end)
    assert place.begin(end) is next_one


class PlaceModel(RuleBasedStateMachine):
    """Memory is never lost or made, and whoever waits runs in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.now = Place(SPEC, "m"), 0.0
        self.out: list[Run] = []

    @rule(shared=st.integers(0, 3), own=st.integers(0, 5), tokens=st.integers(1, 200))
    def a_request_comes(self, shared: int, own: int, tokens: int) -> None:
        run = run_of((f"s{shared}", 150), (f"{shared}-{own}-{tokens}", tokens))
        self.place.queue.append(run)
        self.out.append(run)
        self.place.begin(self.now)

    @precondition(lambda self: self.place.prefilling)
    @rule()
    def a_prefill_ends(self) -> None:
        run, self.now = self.place.prefilling, max(self.now, self.place.prefilled_at)
        assert run is not None
        self.place.first(run, self.now)
        self.place.begin(self.now)

    @precondition(lambda self: self.place.running)
    @rule()
    def an_answer_ends(self) -> None:
        run, end = next(iter(self.place.running.items()))
        self.now = max(self.now, end)
        self.place.end(run, self.now)
        self.out.remove(run)
        self.place.begin(self.now)

    @invariant()
    def memory_is_free_idle_or_pinned(self) -> None:
        place = self.place
        pinned = sum(tokens + answers for tokens, _, answers in place._pinned.values())
        runs = [*place.running, *([place.prefilling] if place.prefilling else [])]
        running = sum(run.asked.output for run in runs)
        assert place.free >= 0
        assert place.idle_tokens == sum(place._idle.values())
        assert place.free + place.idle_tokens + pinned + running == SPEC.kv_tokens

    def teardown(self) -> None:
        for _ in range(200):
            if self.place.prefilling:
                self.a_prefill_ends()
            elif self.place.running:
                self.an_answer_ends()
        assert not self.out
        super().teardown()


TestPlace = PlaceModel.TestCase
TestPlace.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
