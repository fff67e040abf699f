"""The decision: given who runs, who waits and what is free, who is seated next.

Synchronous and complete in itself; no clock, no tasks. The rules, in their order:

1. A principal that holds a seat may not take the last ``reserve`` free ones; the anonymous never.
2. Anonymous tickets are looked at only when nobody else waits.
3. Cells come with the seat: a prompt and a slice, and a slice must stay for each that runs.
4. Among those that pass, the highest priority goes first; among equals, deficit round robin
   decides.
5. A ticket whose cells or seats are not free may be passed ``MOST_PASSED`` times; then all wait
   for it.
"""

from __future__ import annotations

from helexa.neuron.admission.queue import Queue
from helexa.neuron.admission.rounds import QUANTUM, Rounds
from helexa.neuron.admission.ticket import Ticket
from helexa.neuron.kv import CellLedger

MOST_PASSED = 8


class Core:
    """Seats, cells, turns and the queue of one model.

    Args:
        seats: Requests that run at once.
        cells: The model's KV cells.
        depth: Most tickets that wait while all seats are taken.
        reserve: Seats kept for principals that hold none; none are with a single seat.
        spare: Cells that must stay free for each running request when another is seated.
    """

    def __init__(
        self,
        seats: int,
        cells: CellLedger,
        *,
        depth: int,
        reserve: int = 1,
        spare: int = 0,
        quantum: int = QUANTUM,
    ) -> None:
        self.seats = seats
        self.cells = cells
        self.queue = Queue(depth)
        self.rounds = Rounds(quantum)
        self._reserve = reserve
        self._spare = spare
        self._seated: dict[Ticket, None] = {}
        self._holds: dict[str, int] = {}
        self._taken = 0

    @property
    def in_flight(self) -> int:
        """Seats taken."""
        return self._taken

    @property
    def free(self) -> int:
        """Seats not taken."""
        return max(0, self.seats - self._taken)

    @property
    def reserved(self) -> int:
        """Seats kept for principals that hold none."""
        return min(self._reserve, self.seats - 1) if self.seats >= 2 else 0

    def holds(self, principal: str) -> int:
        """Seats ``principal`` has."""
        return self._holds.get(principal, 0)

    def outstanding(self, ticket: Ticket) -> int:
        """Requests of the ticket's principal, seated and waiting."""
        return self.holds(ticket.principal) + self.queue.waiting(ticket)

    def wait(self, ticket: Ticket) -> None:
        """Put ``ticket`` into the queue."""
        self.rounds.join(ticket.principal)
        self.queue.add(ticket)

    def seat_at_once(self, ticket: Ticket) -> bool:
        """Seat a newcomer that nobody waits before, if it can be; the usual case, made short."""
        taken = self._taken
        left = self.seats - taken - ticket.seats
        if left < 0 or self.queue.length:
            return False
        if left < self._reserve and self._kept_from(ticket, left):
            return False
        if not self.cells.grant(ticket, ticket.cells, self._spare * taken):
            return False
        self._take(ticket)
        return True

    def seat_next(self) -> Ticket | None:
        """Seat whoever waits and is next, if anyone can be; call until it says None."""
        ticket = self._choose() if self.queue.length else None
        if ticket is not None:
            self.queue.remove(ticket)
            self.cells.grant(ticket, ticket.cells)
            self._take(ticket)
        return ticket

    def charge(self, ticket: Ticket, tokens: int) -> None:
        """A seated request has cost ``tokens`` more."""
        if ticket in self._seated:
            self.rounds.charge(ticket.principal, tokens)

    def extend(self, ticket: Ticket, cells: int) -> bool:
        """Give a seated request ``cells`` more; False when they are not to be had."""
        return ticket in self._seated and self.cells.extend(ticket, cells)

    def shrink(self, ticket: Ticket, cells: int) -> bool:
        """A seated request needs no more than ``cells``; whether that freed any."""
        return ticket in self._seated and self.cells.shrink(ticket, cells)

    def drop(self, ticket: Ticket) -> bool:
        """``ticket`` is over, wherever it was; False when it was nowhere (idempotent)."""
        if ticket in self._seated:
            del self._seated[ticket]
            self.cells.release(ticket)
            self._taken -= ticket.seats
            left = self._holds.pop(ticket.principal) - ticket.seats
            if left:
                self._holds[ticket.principal] = left
                return True
        elif not self.queue.remove(ticket):
            return False
        if not self.outstanding(ticket):
            self.rounds.leave(ticket.principal)
        return True

    def hopeless(self) -> list[Ticket]:
        """Waiting tickets that can no longer fit, after cells or seats became fewer."""
        return [t for t in self.queue if not self.ever_fits(t)]

    def ever_fits(self, ticket: Ticket) -> bool:
        """Whether ``ticket`` could run if it were alone."""
        return ticket.seats <= self.most(ticket) and self.cells.ever_fits(ticket.cells)

    def most(self, ticket: Ticket) -> int:
        """Seats that one like ``ticket`` may take at once: nobody in particular none of those that
        are kept."""
        return self.seats - self.reserved if ticket.anonymous else self.seats

    def _take(self, ticket: Ticket) -> None:
        self._seated[ticket] = None
        self._taken += ticket.seats
        principal, holds = ticket.principal, self._holds
        holds[principal] = holds.get(principal, 0) + ticket.seats
        self.rounds.seated(principal)

    def _kept_from(self, ticket: Ticket, left: int) -> bool:
        """Whether the seats that would be left are fewer than what is kept from such as it."""
        return left < self.reserved and (ticket.anonymous or self.holds(ticket.principal) > 0)

    def _choose(self) -> Ticket | None:
        free = self.seats - self.in_flight
        if free <= 0:
            return None
        beyond = free > self.reserved
        waiting = self.queue.principals
        if not waiting:
            ticket = self.queue.first_anonymous() if beyond else None
            return ticket if ticket is not None and self._may_sit(ticket, free) else None
        entitled = [p for p in waiting if beyond or not self.holds(p)]
        if not entitled:
            return None
        order = self.rounds.order(entitled, waiting)
        order.sort(key=lambda principal: -self.queue.head(principal).priority)
        return self._first_that_fits(order, free)

    def _first_that_fits(self, principals: list[str], free: int) -> Ticket | None:
        passed: list[Ticket] = []
        for principal in principals:
            ticket = self.queue.head(principal)
            if self._may_sit(ticket, free):
                for other in passed:
                    other.passed += 1
                return ticket
            if ticket.passed >= MOST_PASSED:
                return None
            passed.append(ticket)
        return None

    def _may_sit(self, ticket: Ticket, free: int) -> bool:
        """Room, and none of the reserved seats for those that hold one or are nobody."""
        kept = self.reserved if ticket.anonymous or self.holds(ticket.principal) else 0
        return self._fits(ticket, free - kept)

    def _fits(self, ticket: Ticket, free: int) -> bool:
        spare = self._spare * self.in_flight
        return ticket.seats <= free and self.cells.fits(ticket.cells, spare)

    def check_integrity(self) -> None:
        """Assert what must always hold; for tests and for idle moments."""
        self.cells.check_integrity()
        held = sum(self._holds.values())
        cells = sum(self.cells.held(t) for t in self._seated)
        taken = sum(t.seats for t in self._seated)
        odd = held != taken or taken != self._taken or 0 in self._holds.values()
        if odd or cells != self.cells.used:
            raise AssertionError(f"seats leaked: {self._holds}, {len(self._seated)} seated")
