"""A place that fails is left alone for a while and tried by one request at a time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helexa.cortex.routing.breaker import (
    CLOSED,
    CONNECTION_FAILURES,
    LONGEST_S,
    MODEL_FAILURES,
    PROBE_S,
    Breaker,
    failed,
    given_up,
    phase,
    tried,
)


def opened(now: float = 0.0) -> Breaker:
    return failed(failed(CLOSED, "connection", now), "connection", now)


def test_connection_failures_and_model_failures_open_it_at_their_own_counts() -> None:
    one = failed(CLOSED, "connection", 0.0)
    assert phase(one, 0.0) == "closed"
    assert phase(failed(one, "model", 0.0), 0.0) == "closed"
    assert phase(failed(one, "connection", 0.0), 0.0) == "open"
    model = CLOSED
    for _ in range(MODEL_FAILURES - 1):
        model = failed(model, "model", 0.0)
    assert phase(model, 0.0) == "closed"
    assert phase(failed(model, "model", 0.0), 0.0) == "open"


def test_half_open_lets_one_request_try_and_the_others_wait_for_it() -> None:
    breaker = opened()
    assert phase(breaker, 0.5) == "open"
    assert phase(breaker, 1.5) == "half-open"
    probing = tried(breaker, 1.5)
    assert probing.shut_until == 1.5 + PROBE_S
    assert phase(probing, 1.6) == "half-open"
    again = failed(probing, "model", 2.0)
    assert (phase(again, 2.0), again.shut_until) == ("open", 4.0)


def test_a_probe_whose_client_leaves_lets_the_next_one_try() -> None:
    probing = tried(opened(), 1.5)
    assert given_up(probing, 1.7).shut_until == 1.7
    assert given_up(CLOSED, 1.7) is CLOSED


def test_failures_that_were_on_their_way_when_it_opened_do_not_lengthen_it() -> None:
    breaker = opened()
    for _ in range(40):
        breaker = failed(breaker, "connection", 0.1)
    assert (breaker.trips, breaker.shut_until) == (1, 1.0)


class BreakerModel(RuleBasedStateMachine):
    """Whatever happens: it opens only for cause, never for long, and never for good."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker, self.now, self.row, self.out = CLOSED, 0.0, 0, 0

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.shut_until <= self.now)
    @rule()
    def a_request_goes_there(self) -> None:
        self.breaker = tried(self.breaker, self.now)
        self.out += 1
        if self.breaker.trips:
            assert self.breaker.shut_until > self.now  # one probe at a time

    @precondition(lambda self: self.out)
    @rule(kind=st.sampled_from(["connection", "model"]))
    def it_fails(self, kind: str) -> None:
        self.out -= 1
        self.row += 1
        self.breaker = failed(self.breaker, kind, self.now)  # type: ignore[arg-type]

    @precondition(lambda self: self.out)
    @rule()
    def it_succeeds(self) -> None:
        self.out -= 1
        self.row = 0
        self.breaker = CLOSED

    @precondition(lambda self: self.out)
    @rule()
    def its_client_leaves(self) -> None:
        self.out -= 1
        self.breaker = given_up(self.breaker, self.now)

    @invariant()
    def it_is_shut_only_after_failures_in_a_row(self) -> None:
        if self.row < min(CONNECTION_FAILURES, MODEL_FAILURES):
            assert phase(self.breaker, self.now) == "closed"

    @invariant()
    def it_is_never_shut_for_longer_than_stated(self) -> None:
        assert self.breaker.shut_until <= self.now + max(LONGEST_S, PROBE_S)


TestBreaker = BreakerModel.TestCase
TestBreaker.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
