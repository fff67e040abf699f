"""Fair seats: a simulated engine, a token per seat and step."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest

from helexa.neuron.admission import Core, Ticket
from helexa.neuron.kv import CellLedger

STEPS = 6000


@dataclass
class Simulation:
    """Every principal keeps ``outstanding`` requests of ``length`` tokens in the system."""

    seats: int
    outstanding: dict[str, int]
    length: dict[str, int]
    tokens: Counter[str] = field(default_factory=Counter)

    def run(self, steps: int = STEPS) -> None:
        core = Core(self.seats, CellLedger(10**9, 10**9), depth=1000, reserve=1)
        running: dict[Ticket, int] = {}
        for _ in range(steps):
            self._arrive(core)
            while (ticket := core.seat_next()) is not None:
                running[ticket] = self.length[ticket.principal]
            for ticket in list(running):
                core.charge(ticket, 1)
                self.tokens[ticket.principal] += 1
                running[ticket] -= 1
                if not running[ticket]:
                    del running[ticket]
                    core.drop(ticket)

    def _arrive(self, core: Core) -> None:
        for principal, wanted in self.outstanding.items():
            probe = Ticket(principal, 1)
            for _ in range(wanted - core.outstanding(probe)):
                core.wait(Ticket(principal, 1))

    def share(self, principal: str) -> float:
        return self.tokens[principal] / self.tokens.total()


def test_of_two_principals_the_pushy_one_gets_no_more_than_its_half() -> None:
    simulation = Simulation(8, {"a": 64, "b": 8}, {"a": 100, "b": 100})
    simulation.run()
    assert simulation.share("a") <= 0.55


@pytest.mark.parametrize("length", [10, 300])
def test_tokens_are_shared_not_requests(length: int) -> None:
    simulation = Simulation(8, {"a": 64, "b": 64}, {"a": 100, "b": length})
    simulation.run()
    assert simulation.share("a") == pytest.approx(0.5, abs=0.05)


def test_four_principals_get_a_quarter_each() -> None:
    names = "abcd"
    simulation = Simulation(
        8, dict.fromkeys(names, 16), dict(zip(names, (20, 50, 100, 200), strict=True))
    )
    simulation.run(20_000)
    for name in names:
        assert simulation.share(name) == pytest.approx(0.25, abs=0.04)


def test_a_principal_with_one_request_starts_at_once() -> None:
    core = Core(8, CellLedger(10**9, 10**9), depth=1000, reserve=1)
    for _ in range(64):
        core.wait(Ticket("a", 1))
    while core.seat_next() is not None:
        pass
    modest = Ticket("b", 1)
    core.wait(modest)
    assert core.seat_next() is modest
