"""Who is seated next: the rules, one by one, then all of them against a model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from helexa.neuron.admission import Core, Ticket
from helexa.neuron.admission.core import MOST_PASSED
from helexa.neuron.kv import CellLedger


def make(seats: int = 2, cells: int = 1000, *, reserve: int = 0, spare: int = 0) -> Core:
    return Core(seats, CellLedger(cells, cells), depth=100, reserve=reserve, spare=spare)


def ask(
    core: Core, principal: str, cells: int = 10, *, anonymous: bool = False, priority: int = 0
) -> Ticket:
    ticket = Ticket(principal, cells, anonymous, priority=priority)
    core.wait(ticket)
    return ticket


def seat_all(core: Core) -> list[Ticket]:
    seated = []
    while (ticket := core.seat_next()) is not None:
        seated.append(ticket)
    return seated


def test_one_principal_may_use_every_seat_nobody_else_waits_for() -> None:
    core = make(seats=4)
    tickets = [ask(core, "a") for _ in range(6)]
    assert seat_all(core) == tickets[:4]


def test_the_reserved_seat_is_for_a_principal_that_holds_none() -> None:
    core = make(seats=4, reserve=1)
    tickets = [ask(core, "a") for _ in range(6)]
    assert seat_all(core) == tickets[:3]
    other = ask(core, "b")
    assert seat_all(core) == [other]


def test_whoever_takes_the_reserved_seat_passes_nobody_that_may_not_have_it() -> None:
    core = make(seats=2, reserve=1)
    ask(core, "a")
    seat_all(core)
    waiting = ask(core, "a")
    for name in range(MOST_PASSED + 3):
        newcomer = ask(core, f"newcomer {name}")
        assert seat_all(core) == [newcomer]
        core.drop(newcomer)
    assert waiting.passed == 0


def test_a_single_seat_is_not_reserved() -> None:
    core = make(seats=1, reserve=1)
    ticket = ask(core, "a")
    assert seat_all(core) == [ticket]


def test_the_higher_priority_is_seated_first_and_equals_take_turns() -> None:
    core = make(seats=1)
    low = [ask(core, "low", priority=-1) for _ in range(2)]
    plain = [ask(core, name) for name in ("a", "b", "a")]
    high = [ask(core, "high", priority=5) for _ in range(2)]
    assert core.queue.place(low[0]) == 6
    assert core.queue.place(plain[0]) == 4
    assert core.queue.place(high[1]) == 2
    seated = []
    for _ in range(7):
        (ticket,) = seat_all(core)
        seated.append(ticket)
        core.charge(ticket, 600)
        core.drop(ticket)
    assert seated == [*high, *plain, *low]


def test_a_lower_priority_is_seated_where_the_higher_does_not_fit() -> None:
    core = make(seats=2, cells=100)
    big = ask(core, "running", 60)
    assert seat_all(core) == [big]
    high, low = ask(core, "high", 80, priority=5), ask(core, "low", 30)
    assert seat_all(core) == [low]
    core.drop(low)
    core.drop(big)
    assert seat_all(core) == [high]


def test_a_full_queue_makes_room_for_a_higher_priority_and_never_at_its_cost() -> None:
    core = make(seats=1)
    ask(core, "running")
    seat_all(core)
    lower = [ask(core, "a", priority=1) for _ in range(2)]
    higher = [ask(core, "b", priority=3) for _ in range(5)]
    assert core.queue.victim(Ticket("c", 1, priority=2)) is lower[-1]
    for ticket in lower:
        core.drop(ticket)
    assert core.queue.victim(Ticket("c", 1, priority=2)) is None
    assert core.queue.victim(Ticket("c", 1, priority=3)) is higher[-1]


def test_seats_go_by_turns() -> None:
    core = make(seats=1)
    a = [ask(core, "a") for _ in range(3)]
    b = [ask(core, "b") for _ in range(3)]
    seated = []
    for _ in range(6):
        (ticket,) = seat_all(core)
        seated.append(ticket)
        core.charge(ticket, 600)
        core.drop(ticket)
    assert seated == [a[0], b[0], a[1], b[1], a[2], b[2]]


def test_the_anonymous_live_on_what_is_left() -> None:
    core = make(seats=3, reserve=1)
    nobody = [ask(core, "anonymous", anonymous=True) for _ in range(3)]
    assert seat_all(core) == nobody[:2]
    named = ask(core, "a")
    core.drop(nobody[0])
    assert seat_all(core) == [named]
    assert nobody[2] in core.queue


def test_the_anonymous_wait_while_anyone_else_waits_for_cells() -> None:
    core = make(seats=3, cells=100)
    first = ask(core, "a", 80)
    assert seat_all(core) == [first]
    ask(core, "b", 50)
    ask(core, "anonymous", 5, anonymous=True)
    assert seat_all(core) == []


def test_cells_come_with_the_seat() -> None:
    core = make(seats=3, cells=100)
    first, second = ask(core, "a", 70), ask(core, "b", 40)
    assert seat_all(core) == [first]
    assert core.cells.used == 70
    core.drop(first)
    assert seat_all(core) == [second]


def test_a_slice_stays_free_for_each_that_runs() -> None:
    core = make(seats=3, cells=100, spare=20)
    first, second = ask(core, "a", 50), ask(core, "b", 31)
    assert seat_all(core) == [first]
    core.drop(second)
    third = ask(core, "b", 30)
    assert seat_all(core) == [third]


def test_a_ticket_that_lacks_cells_is_passed_only_so_often() -> None:
    core = make(seats=2, cells=100)
    ask(core, "a", 60)
    (running,) = seat_all(core)
    large = ask(core, "b", 90)
    small = []
    for _ in range(MOST_PASSED + 3):
        ask(core, "c", 5)
        small = seat_all(core)
        if not small:
            break
        core.drop(small[0])
    assert large.passed == MOST_PASSED
    assert small == []
    core.drop(running)
    assert seat_all(core)[0] is large


def test_a_request_for_several_answers_takes_as_many_seats() -> None:
    core = make(seats=4)
    several = Ticket("a", 10, seats=3)
    assert core.seat_at_once(several)
    assert (core.in_flight, core.holds("a")) == (3, 3)
    assert not core.seat_at_once(Ticket("b", 10, seats=2))
    assert core.seat_at_once(Ticket("b", 10))
    assert core.drop(several)
    assert core.in_flight == 1


def test_several_seats_at_once_do_not_reach_into_the_reserve() -> None:
    core = make(seats=4, reserve=1)
    assert core.seat_at_once(Ticket("a", 10))
    assert not core.seat_at_once(Ticket("a", 10, seats=3))
    assert core.seat_at_once(Ticket("a", 10, seats=2))


def test_only_those_that_no_longer_fit_are_hopeless_when_cells_became_fewer() -> None:
    core = make(seats=1, cells=100)
    tickets = [ask(core, name, cells) for name, cells in (("a", 50), ("b", 51), ("c", 10))]
    core.cells.resize(50, 50)
    assert core.hopeless() == [tickets[1]]


def test_a_request_for_more_seats_than_there_are_is_hopeless() -> None:
    core = make(seats=2)
    ticket = Ticket("a", 10, seats=3)
    core.wait(ticket)
    assert core.hopeless() == [ticket]


def test_a_ticket_that_lacks_seats_is_passed_only_so_often() -> None:
    core = make(seats=3)
    held = ask(core, "a")
    seat_all(core)
    large = Ticket("b", 10, seats=3)
    core.wait(large)
    small: list[Ticket] = []
    for _ in range(MOST_PASSED + 3):
        ask(core, "c")
        small = seat_all(core)
        if not small:
            break
        core.drop(small[0])
    assert (large.passed, small) == (MOST_PASSED, [])
    core.drop(held)
    assert seat_all(core)[0] is large


def test_cells_that_are_given_back_seat_who_waits() -> None:
    core = make(seats=2, cells=100)
    first, second = ask(core, "a", 90), ask(core, "b", 50)
    assert seat_all(core) == [first]
    assert core.shrink(first, 40)
    assert seat_all(core) == [second]


def test_charges_of_those_who_left_change_nothing() -> None:
    core = make()
    ticket = ask(core, "a")
    seat_all(core)
    core.drop(ticket)
    core.charge(ticket, 10_000)
    assert core.rounds.deficit("a") == 0
    assert not core.extend(ticket, 5)


NAMES = st.sampled_from(["a", "b", "c", "anonymous"])


class AdmissionModel(RuleBasedStateMachine):
    """Random arrivals, departures, cancels, charges, extensions and resizes."""

    def __init__(self) -> None:
        super().__init__()
        self.core = make(seats=3, cells=200, reserve=1, spare=5)
        self.waiting: list[Ticket] = []
        self.seated: list[Ticket] = []

    def _settle(self) -> None:
        for ticket in seat_all(self.core):
            before = [t for t in self.seated if t.principal == ticket.principal]
            if before or ticket.anonymous:
                free_before = self.core.seats - sum(t.seats for t in self.seated)
                assert free_before - ticket.seats >= self.core.reserved
            if ticket.anonymous:
                assert not [t for t in self.waiting if not t.anonymous]
            self.waiting.remove(ticket)
            self.seated.append(ticket)

    @rule(name=NAMES, cells=st.integers(1, 80), seats=st.sampled_from([1, 1, 1, 2]))
    def arrive(self, name: str, cells: int, seats: int) -> None:
        anonymous = name == "anonymous"
        # The anonymous never reach into the reserve: with two seats they could wait for ever.
        ticket = Ticket(name, cells, anonymous, seats=1 if anonymous else seats)
        if not self.core.ever_fits(ticket):
            return
        self.core.wait(ticket)
        self.waiting.append(ticket)
        self._settle()

    @rule(data=st.data(), tokens=st.integers(0, 3000))
    def depart(self, data: st.DataObject, tokens: int) -> None:
        if self.seated:
            ticket = data.draw(st.sampled_from(self.seated))
            self.core.charge(ticket, tokens)
            self.seated.remove(ticket)
            assert self.core.drop(ticket)
            assert not self.core.drop(ticket)
            self._settle()

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.waiting:
            ticket = data.draw(st.sampled_from(self.waiting))
            self.waiting.remove(ticket)
            assert self.core.drop(ticket)
            self._settle()

    @rule(data=st.data(), cells=st.integers(1, 100))
    def extend(self, data: st.DataObject, cells: int) -> None:
        if self.seated:
            self.core.extend(data.draw(st.sampled_from(self.seated)), cells)

    @rule(data=st.data(), cells=st.integers(0, 60))
    def shrink(self, data: st.DataObject, cells: int) -> None:
        if self.seated:
            self.core.shrink(data.draw(st.sampled_from(self.seated)), cells)
            self._settle()

    @rule(seats=st.integers(1, 5), cells=st.sampled_from([100, 200]))
    def resize(self, seats: int, cells: int) -> None:
        self.core.seats = seats
        self.core.cells.resize(cells, cells)
        for ticket in self.core.hopeless():
            self.waiting.remove(ticket)
            assert self.core.drop(ticket)
        self._settle()

    @invariant()
    def nothing_leaks(self) -> None:
        self.core.check_integrity()
        assert self.core.in_flight == sum(ticket.seats for ticket in self.seated)
        assert len(self.core.queue) == len(self.waiting)
        assert set(self.core.queue) == set(self.waiting)

    def teardown(self) -> None:
        """Everyone who waits is served once those before have left."""
        for _ in range(500):
            if not self.waiting:
                break
            assert self.seated, "nobody runs and nobody is seated"
            ticket = self.seated.pop(0)
            self.core.drop(ticket)
            self._settle()
        assert not self.waiting
        for ticket in self.seated:
            self.core.drop(ticket)
        assert (self.core.in_flight, self.core.cells.used, len(self.core.queue)) == (0, 0, 0)


TestAdmissionModel = AdmissionModel.TestCase
TestAdmissionModel.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
