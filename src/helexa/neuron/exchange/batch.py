"""The answers to several prompts of one text completion, as one answer; likewise the vectors and
scores of many inputs, a few at a time.

::

    prompts ─▶ a seat each, in turn ─▶ deliveries ─▶ choices, numbered on ─▶ one stream, or one body
                                          └─ one grant, one record ─┘         one usage, one end

Each prompt is asked of the engine by itself and has a ``Delivery``, so that it is admitted, metered
and cut as if it were alone. The first waits for its seat like any request. The others take what is
free while one of them runs; where none does, the next takes its turn among all who wait, and is not
refused any more. What fails one fails the answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from helexa.neuron.admission import Seat, Ticket
from helexa.neuron.engines.base import Several
from helexa.neuron.engines.render import DONE
from helexa.neuron.exchange.delivery import Delivery
from helexa.neuron.exchange.desk import Outcome
from helexa.neuron.exchange.part import Part
from helexa.neuron.exchange.together import Together
from helexa.neuron.exchange.waiting import Waiting
from helexa.neuron.registry.served import ServedModel

if TYPE_CHECKING:
    from helexa.neuron.exchange.exchange import Exchange

T = TypeVar("T")


class _Cut(msgspec.Struct):
    finish: str


_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Batch:
    """Runs the prompts of one request; to its exchange it is what a ``Delivery`` is.

    Args:
        exchange: The request.
        seat: For the first prompt.

    Attributes:
        stream: What all answers have cost together.
    """

    def __init__(
        self, exchange: Exchange, model: ServedModel, several: Several, seat: Seat
    ) -> None:
        self.stream = Together(cuttable=several.requests[0].events)
        self._exchange = exchange
        self._model = model
        self._several = several
        self._seat = seat
        self._left = deque(range(len(several.requests)))
        self._running: dict[Part, Delivery] = {}
        self._choices: dict[int, list[Any]] = {}  # of plain answers, by prompt
        self._cut: str | None = None
        self._paused = self._over = False
        self._place: tuple[Ticket, asyncio.Future[Seat]] | None = None
        self._waiting: Waiting[Any] | None = None

    def start(self) -> None:
        """Ask for the first prompt, and for as many more as there is room.

        Raises:
            HelexaError: There is no engine to be asked, or a prompt can never fit.
        """
        self._begin(self._seat)
        self._fill()

    def close(self, finish: str, why: str) -> None:
        """Cut all answers here, and leave out those that have not begun."""
        if self._over:
            return
        self._give_up_waiting()
        self._leave_out(why)
        for delivery in list(self._running.values()):
            delivery.close(finish, why)

    def pause(self, paused: bool) -> None:
        """The reader is slow, or has caught up."""
        self._paused = paused
        for delivery in self._running.values():
            delivery.pause(paused)
        if not paused:
            self._step()

    def read_on(self) -> None:
        """The engine is gone."""
        for delivery in list(self._running.values()):
            delivery.read_on()

    def settle(self) -> None:
        """It is over, whatever ended it."""
        self._over = True
        self._give_up_waiting()
        for part, delivery in list(self._running.items()):
            delivery.settle()
            self._forget(part)

    # ── one after the other ─────────────────────────────────────────────────────────────────

    def _step(self) -> None:
        try:
            self._fill()
        except Exception as error:  # noqa: BLE001  # the edge
            self._exchange.failed(error)

    def _fill(self) -> None:
        """Start as many prompts as the grant and the free seats allow; one at least."""
        admission = self._model.admission
        while self._left and not (self._over or self._paused or self._waiting):
            if self._running and not self._spreads:
                return
            if self._spreads and not self._exchange.grant.gate.fits(self._size + 1):
                if not self._running:
                    self._wait(self._exchange.room_for(self._size + 1), self._roomed)
                return
            ticket = self._ticket()
            if self._running:
                seat = admission.try_more(ticket)
                if seat is None:
                    return
            else:
                seat = admission.try_enter(ticket)
                if seat is None:
                    place = admission.line_up(ticket)
                    self._place = ticket, place
                    self._wait(place, self._seated)
                    return
            self._begin(seat)

    @property
    def _spreads(self) -> bool:
        """Whether one seat is one prompt, which is charged as it comes. The inputs of vectors and
        scores are in all slots already, and all together have been found to fit the grant."""
        return self._several.requests[0].events

    @property
    def _size(self) -> int:
        """Tokens of the next prompt."""
        return self._several.size(self._left[0])

    def _ticket(self) -> Ticket:
        caller, choices = self._exchange.caller, self._several.requests[0].choices
        return Ticket(
            caller.key_id,
            self._exchange.cells_to_begin(self._model, self._size, choices),
            caller.anonymous,
            seats=choices,
            priority=caller.priority,
            begun=True,
        )

    def _seated(self, seat: Seat) -> None:
        self._waiting = self._place = None
        self._begin(seat)
        self._step()

    def _roomed(self, grew: bool) -> None:
        """The grant has grown, or there is no more: what has not begun is left out."""
        self._waiting = None
        if grew:
            self._step()
        else:
            self._leave_out("budget")

    def _begin(self, seat: Seat) -> None:
        """Ask for the next prompt."""
        number = self._left.popleft()
        asked = self._several.requests[number]
        part = Part(self._exchange, self, number)
        delivery = self._running[part] = Delivery(part, self._model, asked, seat)
        self.stream.add(part, delivery.stream)
        delivery.start()
        if self._paused:
            delivery.pause(True)

    def _wait(self, waiting: Awaitable[T], then: Callable[[T], None]) -> None:
        future = asyncio.ensure_future(waiting)
        self._waiting = Waiting(future, then, self._exchange.failed)

    def _give_up_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.drop()
        if self._place is not None:
            self._model.admission.give_up(*self._place)
            self._place = None

    def _forget(self, part: Part) -> None:
        self._running.pop(part, None)
        self.stream.leave(part)

    # ── what the parts tell ─────────────────────────────────────────────────────────────────

    def account(self) -> None:
        """Write down what all have cost so far."""
        row = self._exchange.row
        if row is not None:
            counts = self.stream.counts()
            granted = self._exchange.grant.gate.granted or 0
            row.update("decode" if counts[2] else "prefill", granted, counts)

    def streamed(self, last: bytes) -> None:
        """The last events of one streamed answer."""
        last = last.removesuffix(DONE)
        if self._complete:
            self._end(last)
        elif self._exchange.answer is not None:
            self._exchange.answer.write(last)

    def plain(self, part: Part, body: bytes) -> None:
        """One plain answer."""
        found = _members(body)
        self._choices[part.number] = _items(found[self._several.items])
        if "helexa" in found:
            self._cut = self._cut or msgspec.json.decode(found["helexa"], type=_Cut).finish
        if self._complete:
            self._end(b"")

    def concluded(self, part: Part, outcome: Outcome) -> None:
        """One answer is about to be complete, or was cut."""
        self.account()
        self._cut = self._cut or ("cut" if outcome == "cut" and self._exchange.streams else None)
        times = self._exchange.times
        times.first = times.first or part.times.first

    def answered(self, part: Part, delivery: Delivery) -> None:
        """The engine has ended one answer, well or not."""
        try:
            if not delivery.finish():
                self._give_up_waiting()
                self._wait(delivery.why(), self._exchange.failed)
                return
            delivery.settle()
            self._forget(part)
        except Exception as error:  # noqa: BLE001  # the edge
            self._exchange.failed(error)
            return
        self._go_on()

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    @property
    def _complete(self) -> bool:
        """Whether every prompt has its answer; the engine may have a word to say yet."""
        return not self._left and all(part.times.ended for part in self._running)

    def _leave_out(self, why: str) -> None:
        """What has not begun is cut before its first token, and says so."""
        self._cut = why
        events: list[bytes] = []
        frame, number = self._several.frame, self._several.requests[0].choices
        while self._left:
            prompt = self._left.popleft()
            first = prompt * number
            self._choices[prompt] = [_nothing(first + index) for index in range(number)]
            if frame is not None:
                members = {"helexa": {"finish": why}}
                events += [frame.chunk({"choices": [c], **members}) for c in self._choices[prompt]]
        if self._complete:
            self._end(b"".join(events))
        elif self._exchange.answer is not None:
            self._exchange.answer.write(b"".join(events))
        self._go_on()

    def _end(self, last: bytes) -> None:
        """All answers are there; the record is final before the caller can have seen it."""
        exchange, frame = self._exchange, self._several.frame
        self._over = True
        exchange.conclude("complete" if self._cut is None else "cut")
        meter = self.stream.meter()
        if exchange.answer is not None:
            usage = frame.usage(meter) if frame is not None and exchange.show_usage else b""
            exchange.answer.end(last + usage + DONE)
        else:
            choices = [choice for _, found in sorted(self._choices.items()) for choice in found]
            exchange.send(self._several.whole(choices, meter, self._cut))

    def _go_on(self) -> None:
        if not self._over:
            self._step()
        elif not self._running:
            self._exchange.settle()


def _nothing(index: int) -> dict[str, Any]:
    """The choice of a prompt that was left out."""
    return {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}
