"""Where a cold model goes, who makes room for it, and when."""

from __future__ import annotations

from msgspec.structs import replace

from helexa.cortex.residency.choose import Hopeless, Load, MakeRoom, NotBefore, choose, in_order
from helexa.cortex.residency.world import Demand, Option, Resident, Room, Rules

RULES = Rules(min_residency_s=60, max_wait_s=600)
NOW = 1000.0


def room(node: str, free: int, *residents: Resident) -> Room:
    return Room(node, {0: free}, {r.model: r for r in residents})


def idle(model: str, used: int, **more: object) -> Resident:
    facts = Resident(model, used_mb=used, devices=(0,), since=0.0, last_used=500.0, load_s=10.0)
    return replace(facts, **more)


def wants(need: int | None, *nodes: str, firm: bool = True, **more: object) -> Demand:
    options = tuple(Option(node, need, firm, load_s=10.0) for node in nodes)
    return replace(Demand("new", options=options, since=NOW - 1), **more)


def pick(demand: Demand, *rooms: Room, taken: tuple[str, ...] = (), rules: Rules = RULES) -> object:
    return choose(demand, {r.node: r for r in rooms}, taken, rules, NOW)


def test_places_are_ranked_by_free_memory_first() -> None:
    rooms = room("a", 5000), room("b", 9000), room("c", 20000, idle("x", 1))
    assert pick(wants(4000, "a", "b"), *rooms) == Load("b")
    assert pick(wants(4000, "a", "b", "c"), *rooms) == Load("c")


def test_then_by_what_would_have_to_be_evicted() -> None:
    dear = room("a", 3000, idle("big", 5000, load_s=100.0))
    cheap = room("b", 1000, idle("small", 5000, load_s=3.0))
    assert pick(wants(4000, "a", "b"), dear, cheap) == MakeRoom("b", ("small",))


def test_memory_is_counted_over_all_devices_that_the_model_would_use() -> None:
    one = Room("one", {0: 9000, 1: 100}, {})
    two = Room("two", {0: 6000, 1: 6000}, {})
    demand = wants(10000, "one", "two")
    spread = replace(demand, options=tuple(replace(o, devices=2) for o in demand.options))
    assert pick(spread, one, two) == Load("two")


def test_a_node_whose_needs_nobody_knows_is_asked() -> None:
    assert pick(wants(None, "a"), room("a", 10, idle("x", 5000))) == Load("a")


def test_a_node_that_is_at_work_is_left_alone() -> None:
    rooms = room("a", 9000), room("b", 5000)
    assert pick(wants(4000, "a", "b"), *rooms, taken=("a",)) == Load("b")
    assert pick(wants(4000, "a"), *rooms, taken=("a",)) == NotBefore(None)


def test_lru_takes_the_one_that_was_used_longest_ago() -> None:
    where = room("a", 0, idle("old", 5000, last_used=100.0), idle("new", 5000, last_used=300.0))
    assert pick(wants(4000, "a"), where) == MakeRoom("a", ("old",))


def test_priority_takes_the_least_important_first() -> None:
    residents = (
        idle("old", 5000, last_used=100.0, priority=90),
        idle("least", 5000, last_used=300.0, priority=10),
    )
    rules = replace(RULES, strategy="priority")
    assert pick(wants(4000, "a"), room("a", 0, *residents), rules=rules) == MakeRoom(
        "a", ("least",)
    )


def test_nobody_goes_whose_room_is_not_needed() -> None:
    residents = (
        idle("small", 500, last_used=1.0),
        idle("large", 5000, last_used=2.0, load_s=1.0),
    )
    assert pick(wants(4000, "a"), room("a", 0, *residents)) == MakeRoom("a", ("large",))


def test_equal_and_lower_priorities_may_be_displaced_higher_ones_never() -> None:
    for priority, expected in ((50, MakeRoom), (100, MakeRoom), (101, Hopeless), (1000, Hopeless)):
        found = pick(wants(4000, "a"), room("a", 0, idle("x", 5000, priority=priority)))
        assert type(found) is expected, priority


def test_without_room_a_node_that_has_not_said_so_is_asked_before_giving_up() -> None:
    where = room("a", 3000, idle("x", 5000, priority=1000))
    assert pick(wants(4000, "a", firm=False), where) == Load("a")
    assert pick(wants(4000, "a", firm=True), where) == Hopeless(4000, 3000)


def test_a_wish_displaces_nobody() -> None:
    where = room("a", 0, idle("x", 5000))
    assert isinstance(pick(wants(4000, "a", may_evict=False), where), Hopeless)


def test_nobody_is_evicted_before_the_minimum_residency() -> None:
    young = idle("x", 5000, since=NOW - 20, last_used=NOW - 20, load_s=1.0)
    assert pick(wants(4000, "a"), room("a", 0, young)) == NotBefore(NOW + 40, "a")


def test_a_freshly_loaded_model_is_not_evictable_before_it_served_a_waiter() -> None:
    owing = idle("x", 5000, owed=True)
    assert pick(wants(4000, "a"), room("a", 0, owing)) == NotBefore(None, "a")


def test_an_idle_model_is_kept_for_as_long_as_loading_it_again_would_take() -> None:
    just = idle("x", 5000, last_used=NOW - 4, load_s=10.0)
    assert pick(wants(4000, "a"), room("a", 0, just)) == NotBefore(NOW + 6, "a")
    assert pick(wants(4000, "a", waiters=20), room("a", 0, just)) == MakeRoom("a", ("x",))


def test_a_busy_model_keeps_its_place_for_its_turn() -> None:
    busy = idle("x", 5000, running=3, since=NOW - 70, last_used=NOW, load_s=50.0)
    waiting = wants(4000, "a", since=NOW - 65, waiters=100)
    assert RULES.turn(50.0) == 200.0
    assert pick(waiting, room("a", 0, busy)) == NotBefore(NOW + 130, "a")


def test_a_busy_model_goes_when_waiting_has_cost_more_than_the_swap_would() -> None:
    busy = idle("x", 5000, running=4, last_used=NOW)
    # Four clients would wait for two loads of 10 s; two have waited for 1 s each.
    early = wants(4000, "a", since=NOW - 1, waiters=2)
    assert pick(early, room("a", 0, busy)) == NotBefore(NOW + 39, "a")
    late = wants(4000, "a", since=NOW - 40, waiters=2)
    assert pick(late, room("a", 0, busy)) == MakeRoom("a", ("x",))


def test_nobody_waits_longer_than_a_turn_for_a_busy_model_to_be_closed() -> None:
    hot = idle("x", 5000, running=10_000, last_used=NOW)
    turn = RULES.turn(10.0)
    assert pick(wants(4000, "a", since=NOW - turn), room("a", 0, hot)) == MakeRoom("a", ("x",))


def test_idle_victims_anywhere_go_before_busy_ones() -> None:
    busy = room("a", 0, idle("x", 5000, running=1, load_s=1.0))
    calm = room("b", 0, idle("y", 5000, load_s=100.0))
    demand = wants(4000, "a", "b", since=NOW - 500)
    assert pick(demand, busy, calm) == MakeRoom("b", ("y",))


def test_no_turn_is_longer_than_half_of_what_requests_may_wait() -> None:
    assert RULES.turn(400.0) == 300.0
    assert RULES.turn(1.0) == 60.0


def test_who_has_waited_for_a_turn_comes_first_and_is_not_overtaken_any_more() -> None:
    old = wants(1, "a", since=NOW - 61, model="old", waiters=1, priority=1)
    crowd = wants(1, "a", since=NOW - 50, model="crowd", waiters=500)
    important = wants(1, "a", since=NOW - 1, model="important", priority=1000)
    assert [d.model for d in in_order([crowd, important, old], RULES, NOW)] == [
        "old", "important", "crowd"
    ]  # fmt: skip


def test_more_waiting_for_a_shorter_load_comes_first() -> None:
    slow = replace(wants(1, "a", model="slow"), options=(Option("a", load_s=100.0),))
    quick = wants(1, "a", model="quick")
    many = wants(1, "a", model="many", waiters=5)
    assert [d.model for d in in_order([slow, quick, many], RULES, NOW)] == ["many", "quick", "slow"]


def test_one_who_has_waited_long_comes_before_a_few_who_have_not() -> None:
    few = wants(1, "a", since=NOW - 1, model="few", waiters=3)
    long = wants(1, "a", since=NOW - 30, model="long", waiters=1)
    assert [d.model for d in in_order([few, long], RULES, NOW)] == ["long", "few"]
