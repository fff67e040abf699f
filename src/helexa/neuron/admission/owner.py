"""The owner of one model's admission: lets tasks wait for what ``Core`` decides.

Every call is synchronous but ``enter``, and everything happens on one loop, so no state is read
in one step and changed in another. A seat is handed over in the moment it becomes free; whoever
was cancelled in between gives it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    Overloaded,
    RateLimitExceeded,
    ServiceUnavailable,
    UnsupportedParameter,
)
from helexa.core.fleet import ModelLoad, Servable
from helexa.neuron.admission.core import Core
from helexa.neuron.admission.ticket import Refusals, Standing, Ticket
from helexa.neuron.kv import CellLedger
from helexa.neuron.settings import AdmissionSettings

SLICE_TOKENS = 256
_FADE = 0.8


@dataclass(slots=True, eq=False)
class Seat:
    """The right to run, with its cells. ``leave`` is called once by whoever got it."""

    ticket: Ticket
    since: float
    _admission: Admission

    @property
    def cells(self) -> int:
        """KV cells it holds."""
        return self._admission.core.cells.held(self.ticket)

    def charge(self, tokens: int) -> None:
        """It has cost ``tokens`` more (uncached prompt + output)."""
        self._admission.core.charge(self.ticket, tokens)

    def extend_cells(self, cells: int) -> bool:
        """Take ``cells`` more; False when they are not to be had: the answer ends there."""
        return self._admission.core.extend(self.ticket, cells)

    def shrink_to(self, cells: int) -> None:
        """It turned out to need no more than ``cells``; others may have the rest."""
        self._admission.shrink(self, cells)

    def leave(self) -> None:
        """Give up seat and cells; idempotent."""
        self._admission.leave(self)


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[Seat]
    deadline: asyncio.TimerHandle | None  # none for whoever waits as long as it takes

    def stop_clock(self) -> None:
        if self.deadline is not None:
            self.deadline.cancel()


class Admission:
    """Seats of one loaded model.

    Args:
        seats: Requests the engine runs at once (``Plan.slots``); ``max_in_flight`` lowers it.
        cells: KV cells of the model (``Plan.kv_cells``).
        context: Most cells of one request (``Plan.context``).
        clock: Monotonic seconds.
        slice_tokens: Cells kept for each running request when another is seated.
        changed: Called after every change of the figures.
    """

    def __init__(
        self,
        seats: int,
        cells: int,
        context: int,
        settings: AdmissionSettings,
        clock: Callable[[], float],
        *,
        slice_tokens: int = SLICE_TOKENS,
        changed: Callable[[], None] | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._changed = changed or _nobody_reads
        self.core = Core(
            self._capped(seats),
            CellLedger(cells, context),
            depth=settings.max_queue_depth,
            reserve=settings.reserve_seats,
            spare=slice_tokens,
        )
        self.refusals = Refusals()
        self._waiters: dict[Ticket, _Waiter] = {}
        self._closed: HelexaError | None = None
        self._mean_hold_s: float | None = None

    # ── coming and going ────────────────────────────────────────────────────────────────────

    def try_enter(self, ticket: Ticket) -> Seat | None:
        """A seat at once, without suspension, or None: then ``enter`` would wait.

        Raises:
            HelexaError: As ``enter`` does before it waits.
        """
        now = ticket.arrived = self._clock()
        guarded = self._closed is not None or self._settings.max_per_principal
        if guarded:
            self._refuse_at_once(ticket)
        if self.core.seat_at_once(ticket):
            self._changed()
            return Seat(ticket, now, self)
        if not guarded:  # and what had been seated would have been refused nothing
            self._refuse_at_once(ticket)
        return None

    def try_more(self, ticket: Ticket) -> Seat | None:
        """One more seat for an answer that has one, if nobody waits for it; never refuses."""
        ticket.arrived = self._clock()
        most = self._settings.max_per_principal
        if most and self.core.outstanding(ticket) >= most:
            return None
        if not self.core.seat_at_once(ticket):
            return None
        self._changed()
        return Seat(ticket, ticket.arrived, self)

    async def enter(self, ticket: Ticket) -> Seat:
        """A seat with its cells; waits for its turn if need be.

        Raises:
            ContextLengthExceeded: It can never fit.
            UnsupportedParameter: It wants more answers at once than there are seats.
            RateLimitExceeded: The principal's hard cap.
            Overloaded: The queue is full, or it waited too long; with an estimate.
            ServiceUnavailable: The model is going away.
        """
        seat = self.try_enter(ticket)
        if seat is not None:
            return seat
        place = self.line_up(ticket)
        try:
            return await place
        except asyncio.CancelledError:
            self.give_up(ticket, place)
            raise

    def line_up(self, ticket: Ticket) -> asyncio.Future[Seat]:
        """A place in the line of those that ``try_enter`` had no seat for; it becomes the seat,
        or what ``enter`` raises."""
        place = self._register(ticket)
        self.core.wait(ticket)
        self._seat_all()
        if not place.done():
            self._make_room(ticket)
        return place

    def give_up(self, ticket: Ticket, place: asyncio.Future[Seat]) -> None:
        """Whoever waited at ``place`` has gone; idempotent."""
        if place.done() and not place.cancelled() and place.exception() is None:
            place.result().leave()  # it was seated in the moment it left
        self._withdraw(ticket)
        place.cancel()

    def leave(self, seat: Seat) -> None:
        """``seat`` is free again; idempotent."""
        if not self.core.drop(seat.ticket):
            return
        held = self._clock() - seat.since
        mean = self._mean_hold_s
        self._mean_hold_s = held if mean is None else _FADE * mean + (1 - _FADE) * held
        self._seat_all()

    def shrink(self, seat: Seat, cells: int) -> None:
        """``seat`` gives back what it holds beyond ``cells``; whoever waits may now fit."""
        if self.core.shrink(seat.ticket, cells):
            self._seat_all()

    def close(self, error: HelexaError) -> None:
        """Refuse all that wait and all that come, with ``error`` (an unload)."""
        self._closed = error
        for ticket in list(self._waiters):
            if not ticket.begun:  # what has begun may end
                self._fail(ticket, error)

    def resize(self, seats: int, cells: int, context: int) -> None:
        """The engine came back with other figures; what no longer fits is refused."""
        self.core.seats = self._capped(seats)
        self.core.cells.resize(cells, context)
        for ticket in self.core.hopeless():
            self._fail(ticket, self._never(ticket))
        self._seat_all()

    # ── what others read ────────────────────────────────────────────────────────────────────

    def standing(self, ticket: Ticket) -> Standing | None:
        """Place and estimate of a waiting ticket; None when it does not wait."""
        if ticket not in self.core.queue:
            return None
        place = self.core.queue.place(ticket)
        return Standing(place, self._eta(place))

    def figures(self, model_id: str) -> ModelLoad:
        """Live figures; rates are the caller's to fill in."""
        core, refused = self.core, self.refusals
        return ModelLoad(
            id=model_id,
            in_flight=core.in_flight,
            queue_depth=core.queue.length,
            max_in_flight=core.seats,
            max_queue_depth=core.queue.depth,
            rejected_queue_full=refused.queue_full,
            rejected_timeout=refused.timeout,
            rejected_principal=refused.principal,
            rejected_too_long=refused.too_long,
            kv_used_tokens=core.cells.used,
            kv_total_tokens=core.cells.total,
        )

    def servable(self) -> Servable:
        """Whether a minimal request would be taken, now or after waiting; busy is servable."""
        if self._closed is not None:
            return Servable(ok=False, reason=self._closed.code, detail=self._closed.message)
        return Servable()

    # ── the waiting ─────────────────────────────────────────────────────────────────────────

    def _register(self, ticket: Ticket) -> asyncio.Future[Seat]:
        """From here on ``ticket`` can be seated, refused and withdrawn by anyone."""
        loop = asyncio.get_running_loop()
        longest = self._settings.max_wait_secs
        if ticket.max_wait_s is not None:
            longest = min(longest, ticket.max_wait_s)
        future: asyncio.Future[Seat] = loop.create_future()
        deadline = None
        if not ticket.begun:
            deadline = loop.call_later(max(0.0, longest), self._expire, ticket)
        self._waiters[ticket] = _Waiter(future, deadline)
        return future

    def _expire(self, ticket: Ticket) -> None:
        self.refusals.timeout += 1
        waited = self._clock() - ticket.arrived
        self._fail(
            ticket,
            Overloaded(
                f"The request waited {waited:.0f} s for a seat and none became free. "
                "Ask again later, or ask another node.",
                retry_after_s=self._retry_after(),
            ),
        )

    def _fail(self, ticket: Ticket, error: HelexaError) -> None:
        waiter = self._withdraw(ticket)
        if waiter is not None and not waiter.future.done():
            waiter.future.set_exception(error)

    def _withdraw(self, ticket: Ticket) -> _Waiter | None:
        """Take a waiting ticket out of everything; others may now fit."""
        waiter = self._waiters.pop(ticket, None)
        if waiter is None:
            return None
        waiter.stop_clock()
        self.core.drop(ticket)
        self._seat_all()
        return waiter

    def _seat_all(self) -> None:
        """Seat everyone who waits and can be."""
        core = self.core
        while core.queue.length and (ticket := core.seat_next()) is not None:
            waiter = self._waiters.pop(ticket)
            waiter.stop_clock()
            if waiter.future.done():  # who waited was cancelled and has not run since
                core.drop(ticket)
            else:
                waiter.future.set_result(Seat(ticket, self._clock(), self))
        self._changed()

    # ── refusals ────────────────────────────────────────────────────────────────────────────

    def _refuse_at_once(self, ticket: Ticket) -> None:
        """Whatever can be refused without waiting is refused here, before anything is held."""
        if self._closed is not None and not ticket.begun:
            raise self._closed.with_traceback(None)  # else it grows with each that it refuses
        if not self.core.ever_fits(ticket):
            raise self._never(ticket)
        most = self._settings.max_per_principal
        if most and not ticket.begun and self.core.outstanding(ticket) >= most:
            self.refusals.principal += 1
            raise RateLimitExceeded(
                f"{ticket.principal} has {most} requests here already, the most one key may "
                "have. Wait for one to end.",
                retry_after_s=self._retry_after(),
            )

    def _make_room(self, ticket: Ticket) -> None:
        """A full queue refuses the newcomer, or whoever takes more than a fair share of it.

        A seat that is free, and not for those who wait, is room for one more of them: else seats
        and queue would hold fewer than they have places.
        """
        queue = self.core.queue
        if queue.length <= queue.depth + self.core.free or ticket.begun:
            return
        queue.remove(ticket)
        victim = queue.victim(ticket)
        queue.add(ticket)
        self.refusals.queue_full += 1
        error = Overloaded(
            f"{queue.length - 1} requests wait for this model already, no more may. "
            "Ask again later, or ask another node.",
            retry_after_s=self._retry_after(),
        )
        self._fail(victim or ticket, error)

    def _never(self, ticket: Ticket) -> HelexaError:
        """Why ``ticket`` could not even run alone."""
        most = self.core.most(ticket)
        if ticket.seats > most:
            whom = " to requests without a key" if most < self.core.seats else ""
            return UnsupportedParameter(
                f"`n` is {ticket.seats}; this model gives at most {most} answers at once{whom}. "
                "Ask for fewer, or ask several times.",
                param="n",
            )
        self.refusals.too_long += 1
        cells = self.core.cells
        return ContextLengthExceeded(ticket.cells, min(cells.total, cells.per_request))

    def _retry_after(self) -> float:
        return max(1.0, self._eta(self.core.queue.length + 1) or 1.0)

    def _eta(self, place: int) -> float | None:
        """Seconds until ``place`` is seated: seats become free once per mean holding time."""
        if self._mean_hold_s is None:
            return None
        return self._mean_hold_s * place / max(1, self.core.seats)

    def _capped(self, seats: int) -> int:
        most = self._settings.max_in_flight
        return seats if most is None else min(seats, most)


def _nobody_reads() -> None:
    """Of figures that change."""


def going_away(model_id: str, retry_after_s: float = 5.0) -> ServiceUnavailable:
    """What those who wait for an unloading model are told."""
    return ServiceUnavailable(
        f"{model_id} is being unloaded on this node. Ask again.", retry_after_s=retry_after_s
    )
