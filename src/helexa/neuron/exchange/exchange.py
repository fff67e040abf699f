"""The life of one request on a node.

::

    serving? ─▶ clean ─▶ length ─▶ KV cells, seat ─▶ engine ─▶ events: meter, grant, cells ─▶ end
       └── refused: an error of the tree, nothing held ─┘            └─ cut, failed, cancelled

Everything that is held (record, seat, cells, connection) is noted before it is awaited for and
let go in ``_settle``, whatever ends the task: an answer, an error, a client that leaves. What
happens between the seat and the last word is a ``Delivery``.
"""

from __future__ import annotations

import asyncio

from helexa.core.errors import (
    HelexaError,
    RateLimitExceeded,
    ServiceUnavailable,
    UnsupportedOperation,
    VisionUnsupported,
    let_frames_go,
)
from helexa.core.fleet import RecordState, RequestRecord
from helexa.neuron.admission import Seat, Ticket
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.exchange import closing
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.delivery import Delivery
from helexa.neuron.exchange.desk import THREAD_BYTES, Desk, Outcome, Row, Times
from helexa.neuron.exchange.elsewhere import naming
from helexa.neuron.exchange.length import prompt_tokens
from helexa.neuron.exchange.way import Translate, Way
from helexa.neuron.grants import PATIENT_S, Grant, GrantGate
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.service import Running
from helexa.neuron.stream import Billed
from helexa.relay.answer import Answer, StreamForm
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.wire import errors as wire
from helexa.wire.bodies import not_json
from helexa.wire.inline import InlineThinking
from helexa.wire.peek import peek
from helexa.wire.translation import Translation

_JSON = b"content-type: application/json\r\n"
_SSE = b"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
_NOTHING = Billed(0, 0, 0, 0, 0)


def free_of_charge(billed: Billed) -> Billed:
    """What we broke before the caller had any of it costs nothing; its tokens are thrown away."""
    return Billed(0, 0, 0, 0, billed.discarded + billed.output)


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
        self.delivery: Delivery | None = None
        self.row: Row | None = None
        self.billed = _NOTHING  # known at the end
        self.show_usage = True
        self.streams = False
        self.grant = Grant(GrantGate(caller.granted, desk.grants.slice_tokens // 2))
        self._task: asyncio.Task[None] | None = None
        self._ticket: Ticket | None = None
        self._seat: Seat | None = None
        self._stopped_for: HelexaError | None = None
        self._running: Running | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends when everything is settled."""
        self._task = self.desk.loop.create_task(self._run())
        self.reply.on_gone = self._task.cancel
        self.reply.on_flow = self._flow
        return self._task

    def cut(self, why: str) -> None:
        """End the answer now: cleanly if the engine runs for it, else as a refusal."""
        if self.delivery is not None and self.delivery.stream.cleaner.meter.prompt_known:
            self.delivery.close("length", why)
        else:
            self._stop(
                ServiceUnavailable("The model is being unloaded; ask again.", retry_after_s=1)
            )

    def read_on(self) -> None:
        """The engine that it ran on is gone."""
        if self.delivery is not None:
            self.delivery.read_on()

    def broken(self, error: BaseException) -> None:
        """Something that runs beside the request has raised: a bug of ours."""
        self.desk.log.error("bug", request_id=self.caller.request_id, error=repr(error))
        self._stop(wire.internal_error(self.caller.request_id))

    def _stop(self, error: HelexaError) -> None:
        if self._task is not None:
            self._stopped_for = error
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._serve()
        except HelexaError as error:
            self._fail(error)
        except asyncio.CancelledError:
            if self._stopped_for is not None and not self.reply.gone:
                self._fail(self._stopped_for)
            elif self.delivery is not None:
                self.outcome = "cancelled"
        except Exception:  # the edge of a request: a bug of ours must not leave it hanging
            self.desk.log.exception("bug", request_id=self.caller.request_id)
            self._fail(wire.internal_error(self.caller.request_id))
        finally:
            self._settle()

    # ── the way in ──────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        if self.way.translate is not None:
            await self._translate(self.way.translate)
        seen = peek(self.body)
        self.show_usage = seen.usage_wanted or self.caller.gateway is not None
        model = self.model = self.desk.node.registry.serving(seen.model)
        if self.translation is not None:
            self.translation.begin(model.model_id)
        elif self.caller.inline and self.route == "chat":
            markers = model.served.facts.think_markers
            self.inline = InlineThinking(markers) if markers is not None else None
        self.as_is = self.translation is None and self.inline is None
        asked = await self._clean(model)
        self.streams = asked.stream
        self._begin(model, asked)
        prompt, exact = await prompt_tokens(model, asked, self.grant.gate)
        if exact:
            await self._room_for_prompt(prompt, prompt + asked.events)  # and for one token more
        seat = await self._sit(model, prompt, asked.choices)
        self.times.seated = self.desk.loop.time()
        if self.answer is not None:
            self.answer.add_headers(self._queued())
        self.outcome = "failed"
        delivery = self.delivery = Delivery(self, model, asked, seat)
        await delivery.run()

    async def _translate(self, translate: Translate) -> None:
        args = self.body, self.caller.request_id.removeprefix("req_")
        long = len(self.body) >= THREAD_BYTES
        made = await asyncio.to_thread(translate, *args) if long else translate(*args)
        self.translation = made
        self.body = made.body

    async def _clean(self, model: ServedModel) -> EngineRequest:
        args = (self.route, self.body, model.served, self.caller.request_id)
        thinking = self.caller.thinking
        try:
            if len(self.body) < THREAD_BYTES:
                return model.engine.clean(*args, thinking=thinking)
            return await asyncio.to_thread(model.engine.clean, *args, thinking=thinking)
        except RecursionError as error:  # in the schemas, for example
            raise not_json(error) from None
        except (UnsupportedOperation, VisionUnsupported) as error:
            if self.caller.gateway is not None:
                raise
            raise naming(error, self.route, self.desk.node.registry.listings()) from None

    def _begin(self, model: ServedModel, asked: EngineRequest) -> None:
        """Note everything that must be let go of again; nothing here waits."""
        caller, desk = self.caller, self.desk
        self._running = Running(
            caller.request_id, caller.attempt, caller.gateway, model.model_id, self.grant, self.cut
        )
        desk.node.requests.add(self._running)
        model.enter(self)
        self.row = desk.records.open(self._record("queued", _NOTHING))
        if asked.stream:
            commit = desk.commit_s if caller.gateway is None else -1.0
            awake = self._comment if self.translation is None else self.translation.keep_alive
            form = StreamForm(_SSE + self._echo(), awake, commit, waiting_secs=1.0)
            self.answer = Answer(self.reply, form, desk.wheel, desk.loop)

    async def _room_for_prompt(self, prompt: int, needed: int) -> None:
        """A prompt that exceeds the grant waits for a raise like an answer at its edge."""
        if self.grant.gate.fits(needed):
            return
        if not await self.room_for(needed):
            raise RateLimitExceeded(
                f"The prompt has {prompt} tokens; the budget has room for "
                f"{self.grant.gate.granted}.",
                retry_after_s=1,
                prompt_len=prompt,
                granted=self.grant.gate.granted,
            )

    async def _sit(self, model: ServedModel, prompt: int, choices: int) -> Seat:
        if self.answer is not None:
            self.answer.accept(self.times.received)
        refusal = model.short_of_memory()
        if refusal is not None:
            raise refusal
        caller = self.caller
        cells = self.cells_to_begin(model, prompt, choices)
        ticket = Ticket(
            caller.key_id,
            cells,
            caller.anonymous,
            caller.deadline_s,
            seats=choices,
            priority=caller.priority,
        )
        self._ticket = ticket
        self._seat = await model.admission.enter(ticket)
        return self._seat

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
        self.reply.send(200, _JSON + self._echo() + self._queued(), body)

    def spoken(self, out: bytes) -> bytes:
        """Clean events as the caller reads them."""
        if self.inline is not None:
            return self.inline.events(out)
        return out if self.translation is None else self.translation.events(out)

    def _fail(self, error: HelexaError) -> None:
        if self.times.ended:
            return  # the answer was complete; what its connection did afterwards is nobody's loss
        self.error = error
        let_frames_go(error)
        if self.delivery is not None:
            self.delivery.stream.abandon()
        self.conclude("refused" if self.delivery is None else "failed")
        if self.translation is not None:
            error = self.translation.restated(error)
        if self.answer is not None and self.answer.committed:
            if self.translation is not None:
                self.answer.end(self.translation.fail(error, self.caller.request_id))
            else:
                self.answer.end(wire.event(error, self.way.dialect, self.caller.request_id))
        else:
            rendered = wire.render(error, self.way.dialect, self.caller.request_id)
            self.reply.send(rendered.status, rendered.lines + self._echo(), rendered.body)

    def _flow(self, paused: bool) -> None:
        if self.delivery is not None:
            self.delivery.pause(paused)

    def _comment(self) -> bytes:
        """A keep-alive, which tells a waiting caller its place."""
        standing = None
        if self.model is not None and self._ticket is not None:
            standing = self.model.admission.standing(self._ticket)
        if standing is None:
            return b": keep-alive\n\n"
        eta = b"" if standing.eta_s is None else b", about %d s" % max(1, round(standing.eta_s))
        return b": keep-alive, place %d in the queue%b\n\n" % (standing.place, eta)

    def _queued(self) -> bytes:
        waited = round((self.times.seated - self.times.received) * 1000)
        return b"x-helexa-queue-ms: %d\r\n" % waited

    def _echo(self) -> bytes:
        line = b"x-request-id: %b\r\n" % self.caller.request_id.encode("latin-1", "replace")
        return line if self.translation is None else line + self.translation.lines

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

    def _record(self, state: RecordState, billed: Billed) -> RequestRecord:
        model_id = self.model.model_id if self.model is not None else ""
        return closing.record_of(self.caller, model_id, state, billed, self.grant.gate)

    def _cost(self, state: RecordState) -> Billed:
        if self.delivery is None:
            return _NOTHING
        billed = self.delivery.stream.billed()
        if state == "failed" and (self.answer is None or not billed.output):
            return free_of_charge(billed)
        return billed

    def conclude(self, outcome: Outcome) -> None:
        """Close the record and tell the gateway; once."""
        if self.times.ended:
            return
        self.outcome = outcome
        self.times.ended = self.desk.loop.time()
        if self.row is None:
            return
        if self.delivery is None or self.caller.gateway is None:
            self.row.forget()
            return
        state = closing.final_state(outcome)
        record = self._record(state, self._cost(state))
        self.row.write(record)
        self.desk.node.bus.publish("request_end", {"record": record}, gateway=self.caller.gateway)

    def _settle(self) -> None:
        """Let go of everything; called once, whatever happened."""
        if self.delivery is not None:
            self.delivery.settle()
        elif self._seat is not None:
            self._seat.leave()
        self.conclude(self.outcome)
        if self.model is not None and self._running is not None:
            self.desk.node.requests.remove(self._running)
            self.model.leave(self, self.times.ended)
        self.billed = self._cost(closing.final_state(self.outcome))
        self.delivery = self.answer = self._running = None  # all know us: cycles
        self.body = b""  # nor does anything large wait for the books
        self.desk.books.note(self)
