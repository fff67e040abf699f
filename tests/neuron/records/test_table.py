"""The request records: kept through everything, forgotten when they may be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.neuron.records.made import record

from helexa.core.errors import Overloaded, ServiceUnavailable
from helexa.core.fleet import Ack, RecordState, RequestRecord
from helexa.neuron.records import RecordTable
from helexa.neuron.records.layout import FINAL, HEADER_BYTES, RECORD_BYTES
from helexa.neuron.records.table import HELD_S


def test_a_record_shows_what_was_written(table: RecordTable) -> None:
    row = table.open(record(granted=500))
    assert table.snapshot() == [record(granted=500)]
    now = record(state="decode", granted=900, prompt=40, cached=8, output=3, reasoning=1)
    row.write(now)
    assert table.snapshot() == [now]
    row.update("decode", 900, (40, 8, 4, 1, 0))  # it is not over
    assert table.snapshot()[0].output == 4


def test_an_update_at_an_event_replaces_state_and_counts_only(table: RecordTable) -> None:
    other, row = table.open(record("req_b")), table.open(record(granted=500))
    for output in range(1, 4):
        row.update("decode", 900, (40, 8, output, 1, 2))
    assert table.snapshot()[0] == record("req_b")
    other.forget()
    now = record(
        state="decode", granted=900, prompt=40, cached=8, output=3, reasoning=1, discarded=2
    )
    assert table.snapshot() == [now]
    row.write(record(state="complete", output=3))
    row.update("decode", 900, (40, 8, 4, 1, 2))
    assert table.snapshot()[0].output == 3


def test_a_token_renews_only_what_has_been_said(table: RecordTable) -> None:
    other, row = table.open(record("req_b")), table.open(record(granted=500))
    for output in range(2, 300):
        if output % 7 == 0:  # from one block to the other
            row.update("decode", 900, (40, 8, output, 1, 2))
        row.said(output, output // 2)
    now = record(
        state="decode", granted=900, prompt=40, cached=8, output=299, reasoning=149, discarded=2
    )
    assert table.snapshot() == [record("req_b"), now]
    row.write(record(state="complete", output=299))
    row.said(300, 0)
    other.forget()
    other.said(5, 5)
    assert [(r.state, r.output) for r in table.snapshot()] == [("complete", 299)]


def test_records_that_nobody_comes_for_are_given_up_in_the_end(path: Path) -> None:
    now = 1000.0
    table = RecordTable(path, lambda: now, steady=lambda: now)
    for name in ("old", "running"):
        table.open(record(name))
    old = table.snapshot()[0]
    next(iter(table._rows.values())).write(record("old", state="complete"))
    assert old.request_id == "old"
    now = 1500.0
    table.open(record("late")).write(record("late", state="cut"))
    assert table.expire(600.0) == 0
    now = 1601.0
    assert table.expire(600.0) == 1
    assert table.lost == 1
    assert [kept.request_id for kept in table.snapshot()] == ["running", "late"]
    table.close()
    now = 2000.0
    again = RecordTable(path, lambda: now + 90, steady=lambda: now)  # their age outlives the node
    assert again.expire(600.0) == 0, "a gateway may be on its way to the new life"
    now = 2010.0 + 590
    assert again.expire(600.0) == 2
    again.close()


def test_a_clock_that_is_set_right_gives_up_no_record(path: Path) -> None:
    wall, steady = 0.0, 50.0  # a node without a battery begins in 1970
    table = RecordTable(path, lambda: wall, steady=lambda: steady)
    table.open(record()).write(record(state="complete", output=3))
    wall, steady = 1.8e9, 60.0
    assert table.expire(604_800.0) == 0
    assert [kept.output for kept in table.snapshot()] == [3]
    steady += HELD_S
    assert table.expire(604_800.0) == 1
    table.close()


def test_a_record_outlives_its_process_byte_for_byte(table: RecordTable, path: Path) -> None:
    ended = record("req_b", state="complete", prompt=10, output=5, discarded=2)
    table.open(record("req_b")).write(ended)
    table.close()
    again = RecordTable(path, time.time)
    assert again.snapshot() == [ended]
    again.close()


def test_what_ran_when_the_node_died_is_lost_with_its_counts(
    table: RecordTable, path: Path
) -> None:
    table.open(record()).write(record(state="decode", prompt=40, output=17))
    table.close()
    again = RecordTable(path, time.time)
    assert again.snapshot() == [record(state="node_lost", prompt=40, output=17)]
    again.close()
    third = RecordTable(path, time.time)
    assert third.snapshot()[0].state == "node_lost"
    third.close()


def test_finished_records_stay_until_acknowledged(table: RecordTable) -> None:
    row = table.open(record())
    assert not table.acknowledge("req_a", 1)
    row.write(record(state="complete", prompt=1))
    assert len(table.snapshot()) == 1
    assert table.ack([Ack("req_a", 1), Ack("req_a", 2), Ack("nobody", 1)]) == 1
    assert not table.acknowledge("req_a", 1)
    assert table.snapshot() == []


def test_a_direct_callers_record_goes_when_its_request_ends(table: RecordTable, path: Path) -> None:
    row = table.open(record(gateway=""))
    assert len(table.snapshot()) == 1
    row.write(record(gateway="", state="complete"))
    assert table.snapshot() == []
    table.open(record("req_b", gateway=""))
    table.close()
    again = RecordTable(path, time.time)
    assert again.snapshot() == []
    again.close()


def test_an_ended_row_writes_into_nobodys_record(table: RecordTable) -> None:
    row = table.open(record())
    row.write(record(state="complete", prompt=5))
    row.write(record(state="decode", prompt=99))
    assert table.snapshot()[0].prompt == 5
    table.acknowledge("req_a", 1)
    successor = table.open(record("req_b"))
    assert successor.index != row.index
    before = bytes(table._memory)
    row.write(record(state="decode", prompt=99))
    row.forget()
    gone = table.open(record("req_c"))
    gone.forget()
    gone.write(record("req_c", state="complete", prompt=99))
    gone.update("decode", 99, (99, 99, 99, 99, 99))
    gone.said(99, 99)
    assert table.snapshot() == [record("req_b")]
    assert bytes(table._memory)[:HEADER_BYTES] == before[:HEADER_BYTES]


def test_two_requests_of_one_name_have_a_record_each(table: RecordTable) -> None:
    """A client of the node's own may use a name twice at once."""
    first, second = table.open(record()), table.open(record())
    first.write(record(state="complete", output=1))
    assert table.acknowledge("req_a", 1)
    second.write(record(state="complete", output=2))
    assert [r.output for r in table.snapshot()] == [2]
    third = table.open(record())
    third.write(record(state="cut", output=3))
    assert table.acknowledge("req_a", 1)  # both are over
    assert table.snapshot() == []
    assert not table._by_key


def test_attempts_are_apart_and_gateways_see_their_own(table: RecordTable) -> None:
    table.open(record(attempt=1)).write(record(attempt=1, state="failed"))
    table.open(record(attempt=2))
    table.open(record("req_c", gateway="other"))
    assert [r.attempt for r in table.snapshot("gw")] == [1, 2]
    assert table.acknowledge("req_a", 1)
    assert [r.attempt for r in table.snapshot("gw")] == [2]


def test_the_file_grows_and_keeps_what_it_had(table: RecordTable, path: Path) -> None:
    rows = [table.open(record(f"req_{n}")) for n in range(1024)]
    for n, row in enumerate(rows):
        row.write(record(f"req_{n}", state="decode", output=n))
    assert [r.output for r in table.snapshot()] == list(range(1024))
    assert path.stat().st_size == HEADER_BYTES + 1024 * RECORD_BYTES
    for row in rows:
        row.forget()
    assert len(table) == 0


def test_when_it_is_full_the_oldest_finished_record_is_given_up(path: Path) -> None:
    table = RecordTable(path, time.time, most=3)
    for name in ("req_a", "req_b"):
        table.open(record(name)).write(record(name, state="complete"))
    table.open(record("req_c"))
    table.open(record("req_d"))
    assert [r.request_id for r in table.snapshot()] == ["req_b", "req_c", "req_d"]
    assert table.lost == 1
    table.open(record("req_e"))
    with pytest.raises(Overloaded):
        table.open(record("req_f"))
    table.close()
    table = RecordTable(path.with_name("larger"), time.time, most=300)
    for n in range(300):
        table.open(record(f"req_{n}"))
    with pytest.raises(Overloaded) as refused:
        table.open(record("req_f"))
    assert refused.value.retry_after_s == 5
    table.close()


def test_two_nodes_do_not_share_a_file(table: RecordTable, path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="in use by another node"):
        RecordTable(path, time.time)
    with pytest.raises(ServiceUnavailable, match=r"cannot be opened: .* Set state_dir"):
        RecordTable(path / "below", time.time)


def test_long_and_foreign_names_survive(table: RecordTable) -> None:
    odd = record("r" * 128, model="/modèle/" + "x" * 400)
    table.open(odd)
    (seen,) = table.snapshot()
    assert seen.request_id == "r" * 128
    assert odd.model.startswith(seen.model)
    assert seen.model.startswith("/modèle/")


def test_an_update_costs_microseconds(table: RecordTable) -> None:
    row = table.open(record())
    now = record(state="decode", prompt=40, output=17)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        for _ in range(1000):
            row.write(now)
        best = min(best, time.perf_counter() - begin)
    assert best / 1000 < 20e-6  # about one; the bound allows for a busy machine


class Life(RuleBasedStateMachine):
    """Records in any order, over several lives of the node, against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "records"
        self.table = RecordTable(self.path, lambda: 0.0)
        self.rows: dict[int, object] = {}
        self.model: dict[int, RequestRecord] = {}
        self.next = 0

    @rule(gateway=st.sampled_from(["", "gw", "other"]))
    def open(self, gateway: str) -> None:
        new = record(f"req_{self.next}", gateway=gateway)
        self.rows[self.next] = self.table.open(new)
        self.model[self.next] = new
        self.next += 1

    @rule(data=st.data(), counts=st.lists(st.integers(0, 2**40), min_size=3, max_size=3),
          state=st.sampled_from(["prefill", "decode", "complete", "cut", "failed"]))  # fmt: skip
    def write(self, data: st.DataObject, counts: list[int], state: RecordState) -> None:
        running = [n for n, r in self.model.items() if n in self.rows and r.state not in FINAL]
        if not running:
            return
        n = data.draw(st.sampled_from(running))
        old = self.model[n]
        new = record(old.request_id, gateway=old.gateway, state=state, prompt=counts[0],
                     output=counts[1], discarded=counts[2])  # fmt: skip
        self.rows[n].write(new)  # type: ignore[attr-defined]
        self.model[n] = new
        if state in FINAL and not old.gateway:
            del self.model[n]

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.model:
            n = data.draw(st.sampled_from(sorted(self.model)))
            old = self.model[n]
            final = old.state in FINAL
            assert self.table.acknowledge(old.request_id, old.attempt) == final
            if final:
                del self.model[n]

    @rule()
    def die_and_come_back(self) -> None:
        self.table.close()
        self.table = RecordTable(self.path, lambda: 0.0)
        self.rows.clear()
        for n, old in list(self.model.items()):
            if not old.gateway:
                del self.model[n]
            elif old.state not in FINAL:
                self.model[n] = record(
                    old.request_id, gateway=old.gateway, state="node_lost", prompt=old.prompt,
                    output=old.output, discarded=old.discarded,
                )  # fmt: skip

    @invariant()
    def agrees(self) -> None:
        def by_id(r: RequestRecord) -> str:
            return r.request_id

        assert sorted(self.table.snapshot(), key=by_id) == sorted(self.model.values(), key=by_id)

    def teardown(self) -> None:
        self.table.close()
        self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)
