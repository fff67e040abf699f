"""The state machine of loads and evictions, in virtual time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.cortex.residency.rig import Model, World

from helexa.cortex.residency.world import Rules

RULES = Rules(min_residency_s=10, max_wait_s=600)


def two_that_fit_one_at_a_time(rules: Rules = RULES, load_s: float = 5.0) -> World:
    return World(rules, {"n": 100}, {"a": Model(60, load_s=load_s), "b": Model(60, load_s=load_s)})


def test_there_is_one_load_however_many_wait() -> None:
    world = two_that_fit_one_at_a_time()
    for _ in range(8):
        world.arrive("a")
        world.look()
    world.pass_time(6)
    assert world.loads == [(0.0, "n", "a")]
    assert len(world.served["a"]) == 8


def test_a_load_that_nobody_waits_for_any_more_is_kept() -> None:
    world = two_that_fit_one_at_a_time()
    world.arrive("a")
    world.pass_time(1)
    world.leave("a")
    world.pass_time(5)
    assert ("n", "a") in world.places


def test_or_cancelled_by_policy() -> None:
    world = two_that_fit_one_at_a_time(Rules(min_residency_s=10, abandoned="cancel"))
    world.arrive("a")
    world.pass_time(1)
    world.leave("a")
    world.pass_time(5)
    assert not world.places
    world.arrive("b")
    world.pass_time(5.5)
    assert ("n", "b") in world.places


def test_a_place_that_is_about_to_go_takes_nothing_new_and_ends_what_runs() -> None:
    world = two_that_fit_one_at_a_time()
    world.arrive("a")
    world.pass_time(40)
    world.arrive("b")
    world.pass_time(RULES.turn(5.0))
    assert world.closing() == {("n", "a")}
    assert not world.arrive("a")
    assert ("n", "a") in world.places
    world.finish("a")
    world.pass_time(6)
    assert [(node, model) for _, node, model in world.evictions] == [("n", "a")]
    assert len(world.served["b"]) == 1


def test_a_place_that_has_gone_stays_closed_until_everybody_can_see_it() -> None:
    world = two_that_fit_one_at_a_time()
    world.arrive("a")
    world.pass_time(6)
    world.finish("a")
    world.pass_time(40)
    world.arrive("b")
    world.look()
    (effect,) = world.pending
    place = world.places["n", "a"]
    world.complete(effect)
    world.places["n", "a"] = place  # the snapshot still lists it
    place.status = "loaded"
    world.look()
    assert ("n", "a") in world.closing()
    del world.places["n", "a"]
    world.look()
    assert ("n", "a") not in world.closing()


def test_victims_go_on_when_those_they_would_go_for_have_left() -> None:
    world = two_that_fit_one_at_a_time()
    world.arrive("a")
    world.pass_time(40)
    world.arrive("b")
    world.pass_time(30)
    assert world.closing()
    world.leave("b")
    world.look()
    assert not world.closing()
    assert world.arrive("a")


def test_a_second_victim_goes_only_if_the_node_says_that_there_is_still_too_little() -> None:
    models = {"a": Model(30), "b": Model(30), "c": Model(30), "new": Model(60)}
    world = World(RULES, {"n": 100}, models)
    for name in ("a", "b", "c"):
        world.arrive(name)
        world.pass_time(6)
        world.finish(name)
    world.pass_time(20)
    world.arrive("new")
    world.look()
    # Somebody else frees memory while the first victim goes.
    del world.places["n", "b"]
    world.pass_time(10)
    assert [model for _, _, model in world.evictions] == ["a"]
    assert set(world.places) == {("n", "c"), ("n", "new")}


def test_free_memory_is_read_from_the_node_after_each_unload_and_not_from_an_old_poll() -> None:
    models = {"a": Model(40), "b": Model(40), "new": Model(50)}
    world = World(RULES, {"n": 100}, models)
    for name in ("a", "b"):
        world.arrive(name)
        world.pass_time(6)
        world.finish(name)
    world.pass_time(20)
    world.polled["n"] = 20
    world.arrive("new")
    world.pass_time(10)
    assert [model for _, _, model in world.evictions] == ["a"]
    assert set(world.places) == {("n", "b"), ("n", "new")}


def test_a_refusal_with_figures_teaches_what_to_evict() -> None:
    world = two_that_fit_one_at_a_time()
    world.known = False
    world.arrive("a")
    world.pass_time(6)
    world.finish("a")
    world.pass_time(30)
    world.arrive("b")
    world.pass_time(12)
    assert [model for _, _, model in world.loads] == ["a", "b", "b"]  # asked, refused, made room
    assert len(world.served["b"]) == 1


def test_models_that_wait_behind_a_higher_priority_are_refused_at_once() -> None:
    models = {"pinned": Model(60, priority=1000), "b": Model(60)}
    world = World(RULES, {"n": 100}, models)
    world.arrive("pinned")
    world.pass_time(6)
    world.arrive("b")
    world.look()
    assert world.refused == ["b"]


def test_a_node_that_goes_away_takes_its_work_with_it_and_another_does_it() -> None:
    world = World(RULES, {"n": 100, "m": 90}, {"a": Model(60)})
    world.arrive("a")
    world.pass_time(1)
    assert world.loads == [(0.0, "n", "a")]
    world.down.add("n")
    world.pending.clear()
    world.pass_time(6)
    assert world.loads[1:] == [(1.0, "m", "a")]
    assert len(world.served["a"]) == 1


def test_a_victim_that_the_node_finds_in_use_stays_and_is_asked_again_later() -> None:
    world = two_that_fit_one_at_a_time()
    world.arrive("a")
    world.pass_time(6)
    world.finish("a")
    world.pass_time(30)
    world.arrive("b")
    world.look()
    (effect,) = world.pending
    world.pending.clear()
    world.places["n", "a"].status = "loaded"
    world.scheduler.kept("n", effect.model, world.now)
    world.look()
    assert not world.pending
    world.pass_time(8)
    assert len(world.served["b"]) == 1


def test_idle_models_are_unloaded_after_their_time_to_live() -> None:
    world = two_that_fit_one_at_a_time(Rules(min_residency_s=10, idle_ttl_s=100))
    world.arrive("a")
    world.pass_time(50)
    world.finish("a")
    world.pass_time(99)
    assert ("n", "a") in world.places
    world.pass_time(2)
    assert not world.places
    assert world.scheduler.evictions == 0


class Clients:
    """Two clients in a closed loop, one per model, ``at_once`` requests each."""

    def __init__(self, world: World, at_once: int, service_s: float) -> None:
        self.world = world
        self.at_once = at_once
        self.service_s = service_s
        self.running: list[tuple[float, str]] = []
        self.done = 0
        self.waits: list[float] = []

    def run(self, seconds: float, tick: float = 0.05) -> None:
        world = self.world
        for model in ("a", "b"):
            for _ in range(self.at_once):
                self._ask(model)
        until = world.now + seconds
        while world.now < until:
            before = {m: len(s) for m, s in world.served.items()}
            world.pass_time(tick)
            for model, served in world.served.items():
                new = served[before.get(model, 0) :]
                self.waits += new
                self.running += [(world.now + self.service_s, model)] * len(new)
            for due, model in [r for r in self.running if r[0] <= world.now]:
                self.running.remove((due, model))
                world.finish(model)
                self.done += 1
                self._ask(model)

    def _ask(self, model: str) -> None:
        if self.world.arrive(model):
            self.waits.append(0.0)
            self.running.append((self.world.now + self.service_s, model))


@pytest.mark.parametrize("load_s", [2.0, 10.0])
def test_two_models_that_alternate_are_batched_within_the_stated_bounds(load_s: float) -> None:
    """Five minutes in virtual time: swaps, waits and throughput against a fixed rota."""
    rules = Rules(min_residency_s=10, max_wait_s=600)
    world, service = two_that_fit_one_at_a_time(rules, load_s), 0.5
    clients = Clients(world, 4, service)
    clients.run(300)
    turn = rules.turn(load_s)
    swaps = [at for at, _, _ in world.evictions]
    assert min(b - a for a, b in pairwise(swaps)) >= turn
    cycle = turn + service + 0.1 + load_s
    assert max(clients.waits) <= turn + cycle + 0.2
    # A fixed rota with the same turns, that knows everything and loses only its loads.
    best = 300 / (turn + load_s + 0.1) * turn * 4 / service
    assert clients.done >= 0.8 * best


def test_a_hot_model_does_not_starve_a_waiting_one() -> None:
    world = two_that_fit_one_at_a_time(Rules(min_residency_s=10))
    world.arrive("a")
    world.pass_time(30)
    world.arrive("b")
    for _ in range(1000):  # somebody is always at "a"
        world.arrive("a")
        world.finish("a")
        world.pass_time(0.1)
        if world.served.get("b"):
            break
    assert world.served["b"][0] <= 20 + 0.2 + 0.1 + 5
