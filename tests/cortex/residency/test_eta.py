"""When a model will be ready, as told to those who wait."""

from __future__ import annotations

import pytest

from helexa.core.errors import InsufficientVram, ServiceUnavailable
from helexa.cortex.residency.choose import NotBefore
from helexa.cortex.residency.eta import etas
from helexa.cortex.residency.lane import Work
from helexa.cortex.residency.learned import FIRM_FOR_S, Learned, required_mb
from helexa.cortex.residency.world import Demand, Option, Rules

RULES = Rules(min_residency_s=60.0)


def wants(model: str, load_s: float, node: str = "n") -> Demand:
    return Demand(model, options=(Option(node, load_s=load_s),))


def test_a_load_under_way_ends_when_the_last_ones_did() -> None:
    work = {"n": Work("loading", "a", since=100.0, load_s=20.0)}
    assert etas([wants("a", 20.0)], work, lambda _: None, RULES, 0.5, now=105.0) == {"a": 120.0}


def test_one_that_takes_longer_than_ever_is_told_to_need_a_little_more() -> None:
    work = {"n": Work("loading", "a", since=100.0, load_s=20.0)}
    assert etas([wants("a", 20.0)], work, lambda _: None, RULES, 0.5, now=130.0) == {"a": 132.0}


def test_whoever_waits_for_a_place_waits_for_its_turn_an_unload_and_the_load() -> None:
    later = {"a": NotBefore(140.0, "n")}
    found = etas([wants("a", 20.0)], {}, later.get, RULES, 0.5, now=100.0)
    assert found == {"a": 160.5}


def test_the_next_in_line_waits_until_the_one_before_may_go_again() -> None:
    work = {"n": Work("loading", "a", since=100.0, load_s=20.0)}
    found = etas([wants("a", 20.0), wants("b", 10.0)], work, lambda _: None, RULES, 0.5, now=110.0)
    assert found == {"a": 120.0, "b": 120.0 + 60.0 + 0.5 + 10.0}


def test_other_nodes_are_not_waited_for() -> None:
    work = {"n": Work("loading", "a", since=100.0, load_s=20.0)}
    found = etas(
        [wants("a", 20.0), wants("b", 10.0, "m")], work, lambda _: None, RULES, 0.5, now=110.0
    )
    assert found["b"] == 110.0 + 0.5 + 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_load_times_are_learned_per_node_and_the_last_ones_count_most() -> None:
    learned = Learned(Clock())
    assert learned.load_s("n", "a") is None
    learned.expects("n", "a", 7.0)
    assert learned.load_s("n", "a") == 7.0  # the node's own word, until we have timed one
    for seconds in (10.0, 20.0):
        learned.timed("n", "a", seconds)
    learned.expects("n", "a", 99.0)
    assert learned.load_s("n", "a") == 15.0
    assert learned.load_s("m", "a") == 15.0  # better than nothing
    assert learned.load_s("n", "b") is None
    assert learned.guess_s("n", "b") == 15.0


def test_a_refusal_teaches_what_has_to_be_free_for_a_while() -> None:
    clock = Clock()
    learned = Learned(clock)
    error = InsufficientVram("", needed_mb=47, usable_mb=34, free_mb=44)
    assert required_mb(error) == 57
    assert required_mb(ServiceUnavailable("")) is None
    learned.failed("n", "a", error)
    assert learned.need_mb("n", "a", 99) == (57, True)
    assert learned.blocked_until("n", "a") == 0.0  # room can be made
    clock.now += FIRM_FOR_S + 1
    assert learned.need_mb("n", "a", 99) == (99, False)
    assert learned.need_mb("n", "a", None) == (57, False)


def test_a_load_that_fails_is_tried_again_later_and_later_on_that_node_only() -> None:
    clock = Clock()
    learned = Learned(clock)
    waits = []
    for _ in range(8):
        learned.failed("n", "a", ServiceUnavailable("broken file"))
        waits.append(learned.blocked_until("n", "a") - clock.now)
    assert waits[:3] == [10.0, 20.0, 40.0]
    assert waits[-1] == 300.0
    assert learned.blocked_until("m", "a") == 0.0
    assert learned.blocked_until("n", "b") == 0.0
    learned.timed("n", "a", 1.0)
    assert learned.blocked_until("n", "a") == 0.0


@pytest.mark.parametrize("known", [{"a"}, set()])
def test_what_has_left_catalogue_and_fleet_is_forgotten(known: set[str]) -> None:
    learned = Learned(Clock())
    learned.timed("n", "a", 5.0)
    learned.forget(known, {"n"})
    assert (learned.load_s("n", "a") is not None) == bool(known)
