"""Leases are counted in one place and corrected by what nodes report."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from helexa.core.fleet import ModelEntry, ModelLoad
from helexa.core.usage import Timings, Usage
from helexa.cortex.fleet.snapshot import ModelState, NodeSnapshot
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.rank import Candidate, Field
from helexa.cortex.routing.router import Router
from helexa.cortex.routing.work import SHUT, Lease


def node(in_flight: int, queued: int = 0) -> NodeSnapshot:
    load = ModelLoad("m", in_flight=in_flight, queue_depth=queued)
    return NodeSnapshot("one", "", models={"m": ModelState(ModelEntry("m", "loaded"), load)})


def test_a_lease_is_released_once_on_every_path() -> None:
    table = LeaseTable()
    with table.take("one", "m") as lease:
        assert table.open() == table.open("one") == 1
        lease.release()
    lease.release()
    assert table.open() == 0


def test_what_a_node_runs_beyond_our_own_is_others_work() -> None:
    table = LeaseTable()
    lease = table.take("one", "m")
    table.reconcile([node(3, 2)])
    work = table.work("one", "m")
    assert (work.open, work.others) == (1, 4)
    lease.release()
    assert (work.open, work.others) == (0, 4)
    table.reconcile([node(0)])
    assert work.others == 0


def test_an_old_report_is_not_compared_with_new_counts() -> None:
    table = LeaseTable()
    lease = table.take("one", "m")
    report = node(1)
    table.reconcile([report])
    lease.release()
    table.reconcile([replace(report, draining=True)])
    assert table.work("one", "m").others == 0


def test_places_that_are_gone_are_forgotten_when_idle() -> None:
    table = LeaseTable()
    lease = table.take("one", "m")
    table.reconcile([node(1)])
    table.reconcile([])
    assert table.open() == 1
    lease.release()
    table.reconcile([node(0)])
    table.reconcile([])
    assert not table._work


def test_every_request_that_was_ever_there_is_counted() -> None:
    table = LeaseTable()
    for _ in range(3):
        table.take("n", "m").release()
    assert (table.work("n", "m").open, table.work("n", "m").taken) == (0, 3)


def test_a_place_that_comes_back_has_forgotten_its_cache() -> None:
    table = LeaseTable()
    ask = Ask([1, 2], [10, 20], 20, 0, 1.0)
    table.reconcile([node(0)])
    work = table.work("one", "m")
    for lost in (
        replace(node(0), models={}),
        replace(node(0), epoch=7),
        replace(node(0), models={"m": ModelState(ModelEntry("m", "recovering"), ModelLoad("m"))}),
    ):
        table.reconcile([replace(node(0), epoch=5)])
        work = table.work("one", "m")
        table.index.touch(work.cache, ask, 0.0)
        assert work.cache.match(ask) == 20
        table.reconcile([lost])
        assert work.cache.match(ask) == 0


def test_a_nodes_report_tells_its_speed_until_we_have_measured_it_and_its_capacity() -> None:
    table = LeaseTable()
    load = ModelLoad("m", tok_s_prefill=2000.0, kv_total_tokens=4000, prompt_cache_tokens=1000)
    report = replace(node(0), models={"m": ModelState(ModelEntry("m", "loaded"), load)})
    table.reconcile([report])
    work = table.work("one", "m")
    assert (work.per_token, work.cache.capacity) == (1 / 2000, 5000.0)
    work.learn_rate(1000, 1.0)
    slower = ModelState(ModelEntry("m", "loaded"), replace(load, tok_s_prefill=9.0))
    table.reconcile([replace(report, models={"m": slower})])
    assert work.per_token == 1 / 1000


def test_a_place_that_was_shut_is_tried_again_when_whoever_tried_it_leaves_without_a_word() -> None:
    now = [100.0]
    table = LeaseTable(lambda: now[0])
    router, work = Router(table), table.work("one", "m")
    router.failed(work, "connection")
    router.failed(work, "connection")
    now[0] += 1
    with table.take("one", "m"):
        assert work.stand(now[0]) is SHUT
    router.gave_up(work)
    assert work.stand(now[0]) is not SHUT


def test_how_a_place_stands_is_told_anew_after_whatever_changes_it() -> None:
    table = LeaseTable(lambda: 100.0)
    router, ask = Router(table), Ask([1], [400], 400, 0, 1.0)
    table.reconcile([node(0)])
    work = table.work("one", "m")
    field = Field([Candidate("one", 8, work)])
    usage, timings = Usage(200, 50), Timings(200, 0, 40.0, 50, 500.0)
    choice = router.choose(field, ask)
    assert choice is not None
    leases: list[Lease] = []
    changes: list[Callable[[], object]] = [
        lambda: leases.append(router.take(choice, ask)),
        lambda: table.reconcile([node(5, 2)]),
        lambda: leases[0].started(),  # noqa: PLW0108  # there is none yet
        lambda: router.learn("m", work, ask, 0.0, usage, timings),
        lambda: router.learn("m", work, ask, 0.0, usage, None),
        lambda: router.learn("m", work, None, 0.0, usage, Timings(200, 0, 80.0, 50, 500.0)),
        lambda: router.failed(work, "connection"),
        lambda: router.failed(work, "connection"),
        lambda: router.learn("m", work, None, 0.0, usage, None),
        lambda: leases[0].release(),  # noqa: PLW0108
        lambda: table.reconcile([replace(node(0), epoch=7)]),
        lambda: table.reconcile([replace(node(0), epoch=8)]),
        lambda: table.reconcile([]),
    ]
    for change in changes:
        work.stand(100.0)
        change()
        known, work.standing = work.standing, None
        assert known in (None, work.stand(100.0))
