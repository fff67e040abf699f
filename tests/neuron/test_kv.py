"""KV cells: granted before the seat, extended while running, never more than there are."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helexa.neuron.kv import CellLedger


def test_a_request_gets_its_cells_once() -> None:
    cells = CellLedger(100, 60)
    assert cells.grant("a", 40)
    assert not cells.grant("a", 10)
    assert (cells.used, cells.free, cells.held("a")) == (40, 60, 40)


def test_what_exceeds_the_slot_or_the_pool_never_fits() -> None:
    cells = CellLedger(100, 60)
    assert not cells.ever_fits(61)
    assert not CellLedger(50, 60).ever_fits(51)
    assert cells.ever_fits(60)


def test_an_extension_ends_at_the_pool_and_at_the_context() -> None:
    cells = CellLedger(100, 60)
    cells.grant("a", 50)
    cells.grant("b", 45)
    assert not cells.extend("a", 6)
    assert cells.extend("a", 5)
    cells.release("b")
    assert not cells.extend("a", 6)
    assert cells.extend("a", 5)
    assert not cells.extend("nobody", 1)


def test_what_turns_out_not_to_be_needed_is_given_back() -> None:
    cells = CellLedger(100, 100)
    cells.grant("a", 60)
    assert cells.shrink("a", 20)
    assert not cells.shrink("a", 30)
    assert not cells.shrink("nobody", 0)
    assert (cells.held("a"), cells.free) == (20, 80)


def test_spare_cells_are_left_for_those_that_run() -> None:
    cells = CellLedger(100, 100)
    assert cells.fits(60, spare=40)
    assert not cells.fits(61, spare=40)


class Ledger(RuleBasedStateMachine):
    """Any order of grants, extensions, releases and resizes."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = CellLedger(100, 60)
        self.model: dict[int, int] = {}

    @rule(who=st.integers(0, 5), cells=st.integers(1, 70))
    def grant(self, who: int, cells: int) -> None:
        room = cells <= min(self.cells.total - self._sum(), 60, self.cells.total)
        expected = who not in self.model and room
        assert self.cells.grant(who, cells) == expected
        if expected:
            self.model[who] = cells

    @rule(who=st.integers(0, 5), cells=st.integers(1, 30))
    def extend(self, who: int, cells: int) -> None:
        has = who in self.model
        free = max(0, self.cells.total - self._sum())
        expected = has and cells <= free and self.model[who] + cells <= 60
        assert self.cells.extend(who, cells) == expected
        if expected:
            self.model[who] += cells

    @rule(who=st.integers(0, 5), cells=st.integers(0, 40))
    def shrink(self, who: int, cells: int) -> None:
        expected = self.model.get(who, 0) > cells
        assert self.cells.shrink(who, cells) == expected
        if expected:
            self.model[who] = cells

    @rule(who=st.integers(0, 5))
    def release(self, who: int) -> None:
        assert self.cells.release(who) == self.model.pop(who, 0)

    @rule(total=st.sampled_from([40, 100]))
    def resize(self, total: int) -> None:
        self.cells.resize(total, 60)

    def _sum(self) -> int:
        return sum(self.model.values())

    @invariant()
    def adds_up(self) -> None:
        self.cells.check_integrity()
        assert self.cells.used == self._sum()


TestLedger = Ledger.TestCase
TestLedger.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
