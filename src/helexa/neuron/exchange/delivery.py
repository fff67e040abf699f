"""An answer between its engine and its reader: metered, forwarded, held or cut at its edges.

::

    engine events ─▶ stream: clean, count ─▶ record, seat ─▶ reader
                           └─ edge: ask for more, wait, go on or cut ─┘

A ``Delivery`` begins when its request has a seat and ends with the engine's last word, a cut, or
its exchange. What it may not do is decide how a request ends otherwise: that is ``Exchange``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import monotonic
from typing import TYPE_CHECKING, Any

from helexa.core.errors import HelexaError
from helexa.neuron.admission import Seat
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.exchange.broken import broken_off
from helexa.neuron.exchange.desk import DEADLINES, Outcome
from helexa.neuron.limits import check_prompt
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.stream import AnswerStream, Step, without_usage
from helexa.relay.attempt import Attempt

if TYPE_CHECKING:
    from helexa.neuron.exchange.asker import Asker

CHARGED_TOKENS = 16
"""A seat is charged in steps of so many tokens while it runs: little against a round's quantum."""


class Delivery:
    """The answer to one seated request; its seat is given up when the engine's slot is free.

    Args:
        exchange: The request it answers, or a prompt of it.
        seat: Its right to run, charged as tokens come.
    """

    __slots__ = (
        "_answer",
        "_asked",
        "_broke_off",
        "_charged",
        "_edge",
        "_exchange",
        "_model",
        "_open",
        "_prefill_noted",
        "_row",
        "_seat",
        "_splice",
        "_stopped",
        "_too_long",
        "attempt",
        "stream",
    )

    def __init__(
        self, exchange: Asker, model: ServedModel, asked: EngineRequest, seat: Seat
    ) -> None:
        desk = exchange.desk
        self._exchange = exchange
        self._answer = exchange.answer
        self._row = exchange.row
        self._model = model
        self._asked = asked
        self._seat = seat
        self._prefill_noted = False
        self._charged = 0
        self._open = True
        self._broke_off = True
        self._stopped = False
        self._edge: asyncio.Task[None] | None = None
        self._too_long: HelexaError | None = None
        self.stream = AnswerStream(
            asked.cleaner,
            exchange.grant.gate,
            seat,
            desk.grants.slice_tokens // 2,
            splicer=asked.splice,
        )
        self._splice = self.stream.splice
        self.attempt = Attempt(
            model.pool,
            desk.wheel,
            desk.loop,
            DEADLINES,
            self._events if asked.events else None,
            forward=self._token if asked.splice is not None and exchange.as_is else None,
        )

    def start(self) -> None:
        """Ask the engine; the exchange is told when it has ``answered``.

        Raises:
            ModelRecovering: There is no engine to be asked.
        """
        self._watch()
        self.attempt.start(self._model.head(self._asked), self._asked.body, self._ended)

    def _ended(self) -> None:
        """The engine has ended its answer, or broken off; what waits at an edge comes first."""
        attempt = self.attempt
        if not self._stopped and attempt.error is None:
            self._broke_off = attempt.failure is not None
        if not self._broke_off:
            self._model.slots.free(self)
        if self._edge is None or self._exchange.times.ended:
            self._exchange.answered(self)

    def close(self, finish: str, why: str) -> None:
        """Cut the answer here and let go of the engine."""
        stream = self.stream
        ended = stream.cleaner.done and not stream.blocked
        if not self._open or self._exchange.reply.ended or ended:
            return
        self._deliver("cut", stream.cut(finish, why))
        self._stop()

    def pause(self, paused: bool) -> None:
        """The reader is slow, or has caught up.

        The engine computes on whether it is read or not, so it has to have the cells for that.
        Where they are not to be had it is read on: what waits in memory is one answer at most.
        Nothing can be seen to move while it is not read, which is no sign of a stuck engine.
        """
        if not paused:
            self.attempt.pause(False)
            self._watch()
        elif self._covered():
            self.attempt.pause(True)
            self._model.watchdog.end(self)

    def _watch(self) -> None:
        silent = 0 if self._asked.events else self._asked.most or 0
        self._model.watchdog.begin(self, silent)

    def read_on(self) -> None:
        """The engine is gone: what it left is read, however slow the reader, to free the seat."""
        self.attempt.pause(False)

    def _covered(self) -> bool:
        model, seat = self._model, self._seat
        longest = self.stream.cleaner.meter.prompt + self._asked.choices * model.served.max_output
        rest = min(longest, model.plan.context) - seat.cells
        return rest <= 0 or seat.extend_cells(rest)

    def settle(self) -> None:
        """It is over, whatever ended it: nothing is forwarded, everything is charged."""
        self._open = False
        if not self.attempt.ended:
            self.attempt.drop()
        if self._edge is not None:
            self._edge.cancel()
        self.stream.abandon()
        self._charge()
        if self._broke_off and self.attempt.connected_at:
            self._model.slots.leave(self, self._asked.choices, self._free)  # not free there yet
        else:
            self._free(spoken=True)
        meter = self.stream.cleaner.meter
        self._model.note_decode(meter.output, meter.predicted_ms / 1000)
        self._note_prefill()

    def _note_prefill(self) -> None:
        """How fast the prompt was read, once: some engines say it only with their last word."""
        meter = self.stream.cleaner.meter
        if meter.prompt_ms and not self._prefill_noted:
            self._prefill_noted = True
            self._model.note_prefill(meter.prompt - meter.cached, meter.prompt_ms / 1000)

    def _stop(self) -> None:
        """Let go of the engine, which will notice at its next write."""
        self._stopped = True
        self.attempt.stop()

    def _free(self, spoken: bool) -> None:
        if spoken:  # else it is watched on: whoever asks a stuck engine gives up before long
            self._model.watchdog.end(self)
        self._seat.leave()

    # ── while it runs ───────────────────────────────────────────────────────────────────────

    def _events(self, data: bytes) -> None:
        if not self._open:
            return
        step = self.stream.push(data)
        if self._exchange.times.first and step.edge is None and not step.done:
            self._flow(step.out)
        else:
            self._take(step)

    def _token(self, chunk: bytes) -> float:
        """A chunk as it came from the engine, if it is a token far from any edge; when it was
        forwarded, or 0 for what ``_events`` has to see. The path of nearly every token."""
        answer, row = self._answer, self._row
        out = self._splice(chunk) if self._open else b""
        if not out or answer is None:
            return 0.0
        meter = self.stream.meter
        output = meter.output
        if row is not None:
            row.said(output, meter.reasoning)
        cost = meter.prompt - meter.cached + output
        if cost >= self._charged + CHARGED_TOKENS:
            self._charge(cost)
        self._model.watchdog.moved = True
        answer.last = now = monotonic()
        answer.reply.write(out)
        return now

    def _flow(self, out: bytes) -> None:
        """``_take`` for nearly every event: somewhere in the answer, far from any edge."""
        exchange = self._exchange
        self._model.watchdog.moved = True
        self._account()
        answer = exchange.answer
        if out and answer is not None:
            if exchange.as_is:
                answer.write(out)
            else:
                self._pass_on(out)
        gate = exchange.grant.gate
        if gate.granted is not None and gate.low():
            exchange.say_low(0)

    def _take(self, step: Step) -> None:
        """Forward what a step gave and act on the edge it met."""
        exchange, model = self._exchange, self._model
        times = exchange.times
        now = exchange.desk.loop.time()
        model.watchdog.moved = True
        begins = step.began and not times.began
        if begins:
            times.began = now
            if not self._accepted():
                return
        if step.out and not times.first:
            times.first = now
            self._note_prefill()
            self.stream.look_ahead()
        if step.done and self.stream.cleaner.failed is None:
            self._deliver("complete", step.out)
            return
        self._account()
        answer = exchange.answer
        if answer is not None:
            if step.out:
                self._pass_on(step.out)
            if begins and exchange.caller.gateway is not None and not answer.committed:
                answer.write(b"")
        if step.done:  # it has failed, which is said when the attempt has returned
            return
        if exchange.grant.gate.low():
            exchange.say_low(0)
        if step.edge == "kv_exhausted":
            self._out_of_cells()
        elif step.edge is not None and self._edge is None:
            self._wait(self._wait_at_edge())

    def _pass_on(self, out: bytes) -> None:
        """Forward clean events, in the caller's dialect."""
        exchange = self._exchange
        if not exchange.as_is:
            out = exchange.spoken(out)
        if out and exchange.answer is not None:
            exchange.answer.write(out)

    def _accepted(self) -> bool:
        """The engine has said how long the prompt is: if it fits, a gateway may have its header."""
        exchange, model, prompt = self._exchange, self._model, self.stream.cleaner.meter.prompt
        model.slots.take(self, self._asked.choices)
        self._too_long = check_prompt(prompt, model.limit)
        if self._too_long is not None:
            model.rejected_too_long += 1
            self._stop()
            return False
        # bytes were only a bound
        self._seat.shrink_to(exchange.cells_to_begin(model, prompt, self._asked.choices))
        self.stream.edges_moved()
        return True

    def _account(self) -> None:
        """Write down what it has cost so far, and charge the seat now and then."""
        exchange = self._exchange
        counts = self.stream.counts()
        prompt, cached, output, _, _ = counts
        if exchange.row is not None:
            granted = exchange.grant.gate.granted or 0
            begun = output or exchange.times.first
            exchange.row.update("decode" if begun else "prefill", granted, counts)
        cost = prompt - cached + output
        if cost >= self._charged + CHARGED_TOKENS:
            self._charge(cost)

    def _charge(self, cost: int | None = None) -> None:
        """The seat has cost so much; None is all that is known of it."""
        if cost is None:
            prompt, cached, output, _, _ = self.stream.counts()
            cost = prompt - cached + output
        if cost > self._charged:
            self._seat.charge(cost - self._charged)
            self._charged = cost

    # ── at an edge ──────────────────────────────────────────────────────────────

    async def _wait_at_edge(self) -> None:
        """Hold the answer until the grant grows; cut it when it does not in time."""
        exchange, missing = self._exchange, self.stream.missing
        grew = await exchange.room_for(missing)
        self._edge = None
        if not self._open:
            return
        if grew:
            self._take(self.stream.resume())
        else:
            self.close("length", "budget")

    def _out_of_cells(self) -> None:
        """Wait for those of answers that are leaving, as long as the engine can compute ahead."""
        slots, room = self._model.slots, self._model.plan.ahead_cells // 2
        if self.stream.ahead > room or (self._edge is None and not slots.leaving):
            self.close("length", "kv_exhausted")
        elif self._edge is None:
            self._wait(self._wait_for_cells(slots.releases))

    async def _wait_for_cells(self, since: int) -> None:
        await self._model.slots.released(since)
        self._edge = None
        if self._open:
            self._take(self.stream.resume())

    def _wait(self, waiting: Coroutine[Any, Any, None]) -> None:
        self._edge = self._exchange.desk.loop.create_task(waiting)
        self._edge.add_done_callback(self._edge_left)

    def _edge_left(self, edge: asyncio.Task[None]) -> None:
        error = None if edge.cancelled() else edge.exception()
        if error is not None:
            self._exchange.broken(error)
        elif self._open and self._edge is None and self.attempt.ended:
            self._exchange.answered(self)

    # ── the end ─────────────────────────────────────────────────────────────────────────────

    def _deliver(self, outcome: Outcome, last: bytes) -> None:
        """The end of an answer; its record is final before the caller can have seen it, and if it
        is complete its seat is free: who has read it may ask again at once."""
        exchange = self._exchange
        exchange.conclude(outcome)
        if outcome == "complete":
            self._charge()
            self._seat.leave()
        if exchange.answer is not None:
            if not exchange.show_usage:
                last = without_usage(last)
            exchange.answer.end(last if exchange.as_is else exchange.spoken(last))
        else:
            exchange.send(self.stream.cleaner.whole())

    def why(self) -> Coroutine[Any, Any, HelexaError]:
        """What became of the engine that broke off."""
        spoken = self._exchange.answer is not None and bool(self._exchange.times.first)
        return broken_off(self._model, spoken=spoken)

    def finish(self) -> bool:
        """Give what is left to be given after the engine's last word; False if it broke off.

        Raises:
            HelexaError: It has refused, or what it sent is no answer.
        """
        asked, attempt, model = self._asked, self.attempt, self._model
        if attempt.error is not None:
            raise attempt.error
        if self._exchange.times.ended:
            return True
        if self._too_long is not None:
            raise self._too_long
        if attempt.failure is not None:
            return False
        if attempt.status != 200:
            raise model.engine.error(attempt.status, attempt.body, model.served)
        whole = b""
        if not asked.events:
            asked.cleaner.feed(attempt.body)
            whole = asked.cleaner.whole()
        if asked.cleaner.failed is not None:
            raise asked.cleaner.failed
        if asked.events:
            return False
        self.stream.settle_whole()
        self._account()
        self._exchange.conclude("complete")
        self._exchange.send(whole)
        return True
