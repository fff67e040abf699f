"""The life of one request on a node.

::

    serving? ─▶ clean ─▶ length ─▶ KV cells, seat ─▶ engine ─▶ events: meter, grant, cells ─▶ end
       └── refused: an error of the tree, nothing held ─┘            └─ cut, failed, cancelled

A chain of plain calls, each made by the event that allows it: the request is whole, the engine has
answered. What has to wait (a large body cleaned in a thread, a prompt that is counted, a seat) goes
on later and joins the chain again, see ``_later``.
Everything that is held (record, seat, cells, connection) is let go in ``settle``, whatever ends
the chain: an answer, an error, a client that leaves. What happens between the seat and the last
word is a ``Delivery``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from helexa.core.errors import (
    HelexaError,
    RateLimitExceeded,
    ServiceUnavailable,
    UnsupportedOperation,
    VisionUnsupported,
    let_frames_go,
)
from helexa.neuron.admission import Seat, Ticket
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.engines.plain import plain_chat
from helexa.neuron.exchange import closing
from helexa.neuron.exchange.batch import Batch
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.delivery import Delivery
from helexa.neuron.exchange.desk import THREAD_BYTES, Desk, Outcome, Row, Times
from helexa.neuron.exchange.elsewhere import naming
from helexa.neuron.exchange.length import counted, sized, uncounted
from helexa.neuron.exchange.lines import JSON, SSE, id_lines, queue_line
from helexa.neuron.exchange.waiting import Waiting, keep_alive
from helexa.neuron.exchange.way import Translate, Way
from helexa.neuron.grants import PATIENT_S, Grant, GrantGate
from helexa.neuron.registry.served import ServedModel
from helexa.relay.answer import Answer, StreamForm
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.wire import errors as wire
from helexa.wire.bodies import not_json
from helexa.wire.inline import InlineThinking
from helexa.wire.peek import peek
from helexa.wire.translation import Translation, restated

T = TypeVar("T")

_NOT_BY_THIS_MODEL = (UnsupportedOperation, VisionUnsupported)


class Exchange:
    """Runs one request; ``start`` it, and it sees to its own end."""

    def __init__(
        self, desk: Desk, way: Way, request: Request, reply: Reply, caller: Caller
    ) -> None:
        self.desk = desk
        self.way = way
        self.route = way.route
        self.body = request.body
        self.translation: Translation | None = None
        self.inline: InlineThinking | None = None
        self.as_is = True  # clean chat is what the caller reads
        self.caller = caller
        self.times = Times(request.received or desk.loop.time())
        self.model: ServedModel | None = None
        self.outcome: Outcome = "refused"
        self.error: HelexaError | None = None
        self.reply = reply
        self.answer: Answer | None = None
        self.delivery: Delivery | Batch | None = None
        self.row: Row | None = None
        self.billed = closing.NOTHING  # known at the end
        self.show_usage = True
        self.streams = False
        self.grant = Grant(GrantGate(caller.granted, desk.grants.slice_tokens // 2))
        self._settled = False
        self._ticket: Ticket | None = None
        self._place: asyncio.Future[Seat] | None = None
        self._seat: Seat | None = None
        self._waiting: Waiting[Any] | None = None

    def start(self) -> None:
        """Begin; never raises, and the reply ends now or later."""
        self.reply.on_gone = self._left
        self.reply.on_flow = self._flow
        try:
            if self.way.translate is not None:
                self._translate(self.way.translate)
            else:
                self._read()
        except Exception as error:  # noqa: BLE001  # the edge
            self.failed(error)

    def answered(self, delivery: Delivery) -> None:
        """The engine's answer has ended, well or not; the delivery says so."""
        try:
            if self.delivery is None or delivery.finish():
                self.settle()
            else:
                self._later(delivery.why(), self._fail)
        except Exception as error:  # noqa: BLE001  # the edge
            self.failed(error)

    def cut(self, why: str) -> None:
        """End the answer now: cleanly if the engine runs for it, else as a refusal."""
        if self.delivery is not None and self.delivery.stream.accepted:
            self.delivery.close("length", why)
        else:
            self._fail(
                ServiceUnavailable("The model is being unloaded; ask again.", retry_after_s=1)
            )

    def read_on(self) -> None:
        """The engine that it ran on is gone."""
        if self.delivery is not None:
            self.delivery.read_on()

    def broken(self, error: BaseException) -> None:
        """Something that runs beside the request has raised: a bug of ours."""
        self.desk.log.error("bug", request_id=self.caller.request_id, error=repr(error))
        self._fail(wire.internal_error(self.caller.request_id))

    def _left(self) -> None:
        """The client has gone."""
        if self.delivery is not None:
            self.outcome = "cancelled"
        self.settle()

    def failed(self, error: Exception) -> None:
        """A step of the chain raised: that ends the request, and must not take the loop along."""
        if not isinstance(error, HelexaError):
            self.desk.log.exception("bug", request_id=self.caller.request_id)  # noqa: LOG004  # called from one
            error = wire.internal_error(self.caller.request_id)
        elif isinstance(error, _NOT_BY_THIS_MODEL) and self.caller.gateway is None:
            error = naming(error, self.route, self.desk.node.registry.listings())
        self._fail(error)

    def _later(self, waiting: Coroutine[Any, Any, T], then: Callable[[T], None]) -> None:
        """Go on with ``then`` and the result when there is one; what it raises ends us."""
        self._waiting = Waiting(self.desk.loop.create_task(waiting), then, self.failed)

    # ── the way in ──────────────────────────────────────────────────────────────────────────

    def _translate(self, translate: Translate) -> None:
        """Make chat of it; in a thread if it is long."""
        args = self.body, self.caller.request_id.removeprefix("req_")
        if len(self.body) < THREAD_BYTES:
            self._translated(translate(*args))
        else:
            self._later(asyncio.to_thread(translate, *args), self._translated)

    def _translated(self, made: Translation) -> None:
        self.translation = made
        self.body = made.body
        self._read()

    def _read(self) -> None:
        """Which model is asked, and what in its engine's words; in a thread if that is long."""
        plain = plain_chat(self.body) if self.route == "chat" else None
        seen = plain or peek(self.body)
        self.show_usage = self.caller.gateway is not None or seen.usage_wanted
        model = self.model = self.desk.node.registry.serving(seen.model)
        if self.translation is not None:
            self.translation.begin(model.model_id)
        elif self.caller.inline and self.route == "chat":
            markers = model.served.facts.think_markers
            self.inline = InlineThinking(markers) if markers is not None else None
        self.as_is = self.translation is None and self.inline is None
        if len(self.body) < THREAD_BYTES:
            self._begin(model, self._clean(model, plain is not None))
        else:
            self._later(asyncio.to_thread(self._clean, model, False), partial(self._begin, model))

    def _clean(self, model: ServedModel, plain: bool) -> EngineRequest:
        caller = self.caller
        try:
            return model.engine.clean(
                self.route,
                self.body,
                model.served,
                caller.request_id,
                thinking=caller.thinking,
                plain=plain,
            )
        except RecursionError as error:  # in the schemas, for example
            raise not_json(error) from None

    def _begin(self, model: ServedModel, asked: EngineRequest) -> None:
        """Note everything that must be let go of again, and see whether the prompt fits."""
        caller, desk = self.caller, self.desk
        self.streams = asked.stream
        desk.node.requests.add(caller.request_id, self.grant)
        model.enter(self)
        opened = closing.record_of(
            caller, model.served.model_id, "queued", closing.NOTHING, self.grant.gate
        )
        self.row = desk.records.open(opened)
        if asked.stream:
            commit = desk.commit_s if caller.gateway is None else -1.0
            awake = self._comment if self.translation is None else self.translation.keep_alive
            form = StreamForm(SSE + self._id_lines(), awake, commit)
            self.answer = Answer(self.reply, form, desk.wheel, desk.loop)
        prompt = uncounted(model, asked, self.grant.gate)
        if asked.several is not None and asked.events:
            sizing = sized(model, asked, self.grant.gate, self.caller.key_id)
            self._later(sizing, lambda sized: self._counted(model, sized, sized.prompts))
        elif prompt is not None:
            self._sit(model, asked, prompt)
        else:
            counting = counted(model, asked, self.caller.key_id)
            self._later(counting, partial(self._counted, model, asked))

    def _counted(self, model: ServedModel, asked: EngineRequest, prompt: int) -> None:
        """A prompt that exceeds the grant waits for a raise like an answer at its edge."""
        needed = prompt + asked.events  # and one token more
        if self.grant.gate.fits(needed):
            self._sit(model, asked, prompt)
            return
        room = self.room_for(needed)
        self._later(room, partial(self._granted, model, asked, prompt))

    def _granted(self, model: ServedModel, asked: EngineRequest, prompt: int, grew: bool) -> None:
        if not grew:
            raise RateLimitExceeded(
                f"The prompt has {prompt} tokens; the budget has room for "
                f"{self.grant.gate.granted}.",
                retry_after_s=1,
                prompt_len=prompt,
                granted=self.grant.gate.granted,
            )
        self._sit(model, asked, prompt)

    def _sit(self, model: ServedModel, asked: EngineRequest, prompt: int) -> None:
        """Take a seat and cells, at once or when it is our turn."""
        if self.answer is not None:
            self.answer.accept(self.times.received)
        refusal = model.short_of_memory()
        if refusal is not None:
            raise refusal
        caller = self.caller
        if asked.several is not None:
            prompt = asked.several.size(0)
        self._ticket = ticket = Ticket(  # by position: with names it takes several times as long
            caller.key_id,
            self.cells_to_begin(model, prompt, asked.choices),
            caller.anonymous,
            caller.deadline_s,
            asked.choices,
            caller.priority,
        )
        seat = model.admission.try_enter(ticket)
        if seat is not None:
            self._seated(model, asked, seat)
        else:
            self._place = place = model.admission.line_up(ticket)
            self._waiting = Waiting(place, partial(self._seated, model, asked), self.failed)

    def _seated(self, model: ServedModel, asked: EngineRequest, seat: Seat) -> None:
        self._place, self._seat = None, seat
        self.times.seated = self.desk.loop.time()
        if self.answer is not None:
            self.answer.add_headers(queue_line(self.times))
        self.outcome = "failed"
        if asked.several is None:
            self.delivery = Delivery(self, model, asked, seat)
        else:
            self.delivery = Batch(self, model, asked.several, seat)
        self.delivery.start()

    def cells_to_begin(self, model: ServedModel, prompt: int, choices: int) -> int:
        """The prompt, which the answers share, and a slice for each of them."""
        slices = choices * (self.desk.grants.slice_tokens // 2)
        return min(prompt + slices, model.plan.context)

    # ── the way out ─────────────────────────────────────────────────────────────────────────

    def send(self, body: bytes) -> None:
        """Answer whole."""
        if self.inline is not None:
            body = self.inline.plain(body)
        elif self.translation is not None:
            body = self.translation.plain(body)
        self.reply.send(200, JSON + self._id_lines() + queue_line(self.times), body)

    def spoken(self, out: bytes) -> bytes:
        """Clean events as the caller reads them."""
        if self.inline is not None:
            return self.inline.events(out)
        return out if self.translation is None else self.translation.events(out)

    def _fail(self, error: HelexaError) -> None:
        """Say it, as a refusal while the status is open and as an event afterwards; and end."""
        try:
            if not self.times.ended:  # what happens after a complete answer is nobody's loss
                self._say(error)
        finally:
            self.settle()

    def _say(self, error: HelexaError) -> None:
        self.error = error
        let_frames_go(error)
        if self.delivery is not None:
            self.delivery.stream.abandon()
        self.conclude("refused" if self.delivery is None else "failed")
        if self.translation is not None:
            error = self.translation.restated(error)
        elif self.way.names:
            error = restated(error, self.way.names)
        if self.answer is not None and self.answer.committed:
            if self.translation is not None:
                self.answer.end(self.translation.fail(error, self.caller.request_id))
            else:
                self.answer.end(wire.event(error, self.way.dialect, self.caller.request_id))
        else:
            rendered = wire.render(error, self.way.dialect, self.caller.request_id)
            self.reply.send(rendered.status, rendered.lines + self._id_lines(), rendered.body)

    def _flow(self, paused: bool) -> None:
        if self.delivery is not None:
            self.delivery.pause(paused)

    def _comment(self) -> bytes:
        """A keep-alive, which tells a waiting caller its place."""
        model, ticket = self.model, self._ticket
        if model is None or ticket is None:
            return keep_alive(None)
        return keep_alive(model.admission.standing(ticket))

    def _id_lines(self) -> bytes:
        return id_lines(self.caller.request_id, self.translation)

    def say_low(self, needed: int) -> None:
        """Ask the gateway for a higher grant; ``needed`` tokens are missing right now."""
        if self.model is not None:
            gate = self.grant.gate
            closing.say_low(self.desk, self.caller, self.model.model_id, gate, needed)

    async def room_for(self, tokens: int) -> bool:
        """Ask for room in the grant, and wait for it."""
        self.say_low(tokens)
        heard = self.desk.node.bus.follows(self.caller.gateway)
        wait_s = self.desk.grants.wait_ms / 1000
        return await self.grant.room_for(tokens, wait_s, PATIENT_S if heard else 0.0)

    def conclude(self, outcome: Outcome) -> None:
        """Close the record and tell the gateway; once."""
        if self.times.ended:
            return
        self.outcome = outcome
        self.times.ended = self.desk.loop.time()
        state = closing.FINAL[outcome]
        self.billed = closing.cost(self, state)
        if self.row is None or self.model is None:
            return
        if self.delivery is None or self.caller.gateway is None:
            self.row.forget()
            return
        model_id, gate = self.model.served.model_id, self.grant.gate
        record = closing.record_of(self.caller, model_id, state, self.billed, gate)
        self.row.write(record)
        self.desk.node.bus.publish("request_end", {"record": record}, gateway=self.caller.gateway)

    def settle(self) -> None:
        """Let go of everything, whatever happened; once."""
        if self._settled:
            return
        self._settled = True
        if self._waiting is not None:
            self._waiting.drop()
        if self._place is not None and self._ticket is not None and self.model is not None:
            self.model.admission.give_up(self._ticket, self._place)
        if self.delivery is not None:
            self.delivery.settle()
        elif self._seat is not None:
            self._seat.leave()
        if not self.times.ended:
            self.conclude(self.outcome)
        if self.model is not None and self.row is not None:
            self.desk.node.requests.remove(self.caller.request_id, self.grant)
            self.model.leave(self, self.times.ended)
        if self.outcome != "complete":  # what it held is known to be thrown away only now
            self.billed = closing.cost(self, closing.FINAL[self.outcome])
        self.delivery = self.answer = self._waiting = None  # all know us: cycles
        self.body = b""  # nor does anything large wait for the books
        self.desk.books.note(self)
