"""The life of one request on a node.

::

    serving? ─▶ clean ─▶ length ─▶ KV cells, seat ─▶ engine ─▶ events: meter, grant, cells ─▶ end
       └── refused: an error of the tree, nothing held ─┘            └─ cut, failed, cancelled

Everything that is held (record, seat, cells, connection) is noted before it is awaited for and
let go in ``_settle``, whatever ends the task: an answer, an error, a client that leaves.
"""

from __future__ import annotations

import asyncio

from helexa.core.errors import (
    HelexaError,
    ModelRecovering,
    RateLimitExceeded,
    ServiceUnavailable,
    UpstreamConnectionError,
)
from helexa.core.fleet import RecordState, RequestRecord
from helexa.neuron.admission import Seat, Ticket
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.exchange import closing
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.desk import DEADLINES, THREAD_BYTES, Desk, Outcome, Row, Times
from helexa.neuron.exchange.length import prompt_tokens
from helexa.neuron.grants import Grant, GrantGate
from helexa.neuron.limits import check_prompt
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.service import Running
from helexa.neuron.stream import AnswerStream, Billed, Step
from helexa.relay.answer import Answer, StreamForm
from helexa.relay.attempt import Attempt
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.wire import errors as wire
from helexa.wire.peek import peek

_JSON = b"content-type: application/json\r\n"
_SSE = b"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
_NOTHING = Billed(0, 0, 0, 0, 0)

CHARGED_TOKENS = 16
"""A seat is charged in steps of so many tokens while it runs: little against a round's quantum."""


def without_usage(events: bytes) -> bytes:
    """The last events of a stream for a caller who did not ask for the usage chunk."""
    kept = [e for e in events.split(b"\n\n") if e and b'"choices":[],"usage"' not in e]
    return b"".join(event + b"\n\n" for event in kept)


def free_of_charge(billed: Billed) -> Billed:
    """What we broke before the caller had any of it costs nothing; its tokens are thrown away."""
    return Billed(0, 0, 0, 0, billed.discarded + billed.output)


class Exchange:
    """Runs one request; ``start`` it, and it sees to its own end."""

    def __init__(
        self, desk: Desk, route: str, request: Request, reply: Reply, caller: Caller
    ) -> None:
        self.desk = desk
        self.route = route
        self.caller = caller
        self.times = Times(request.received or desk.loop.time())
        self.model: ServedModel | None = None
        self.asked: EngineRequest | None = None
        self.outcome: Outcome = "refused"
        self.error: HelexaError | None = None
        self.reply = reply
        self._request = request
        self._task: asyncio.Task[None] | None = None
        self._edge: asyncio.Task[None] | None = None
        self._answer: Answer | None = None
        self._attempt: Attempt | None = None
        self._stream: AnswerStream | None = None
        self._ticket: Ticket | None = None
        self._seat: Seat | None = None
        self._row: Row | None = None
        self._charged = 0
        self._show_usage = True
        self._stopped_for: HelexaError | None = None
        self._too_long: HelexaError | None = None
        self._grant = Grant(GrantGate(caller.granted, desk.grants.slice_tokens // 2))
        self._running: Running | None = None

    def start(self) -> asyncio.Task[None]:
        """Begin; the task ends when everything is settled."""
        self._task = self.desk.loop.create_task(self._run())
        self.reply.on_gone = self._task.cancel
        self.reply.on_flow = self._flow
        return self._task

    def cut(self, why: str) -> None:
        """End the answer now: cleanly if the engine runs for it, else as a refusal."""
        if self._stream is not None and self._stream.cleaner.meter.prompt_known:
            self._close("length", why)
        elif self._task is not None:
            self._stopped_for = ServiceUnavailable(
                "The model is being unloaded; ask again.", retry_after_s=1
            )
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._serve()
        except HelexaError as error:
            self._fail(error)
        except asyncio.CancelledError:
            if self._stopped_for is not None and not self.reply.gone:
                self._fail(self._stopped_for)
            elif self._stream is not None:
                self.outcome = "cancelled"
        except Exception:  # the edge of a request: a bug of ours must not leave it hanging
            self.desk.log.exception("bug", request_id=self.caller.request_id)
            self._fail(wire.internal_error(self.caller.request_id))
        finally:
            self._settle()

    # ── the way in ──────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        seen = peek(self._request.body)
        self._show_usage = seen.usage_wanted or self.caller.gateway is not None
        model = self.model = self.desk.node.registry.serving(seen.model)
        asked = self.asked = await self._clean(model)
        self._begin(model, asked)
        prompt, exact = await prompt_tokens(model, self.route, asked, self._grant.gate)
        if exact:
            await self._room_for_prompt(prompt)
        seat = await self._sit(model, prompt, asked.choices)
        self.times.seated = self.desk.loop.time()
        if self._answer is not None:
            self._answer.add_headers(self._queued())
        self._stream = AnswerStream(
            asked.cleaner, self._grant.gate, seat, self.desk.grants.slice_tokens // 2
        )
        self.outcome = "failed"
        model.watchdog.begin(self)
        attempt = self._attempt = Attempt(
            model.pool,
            self.desk.wheel,
            self.desk.loop,
            DEADLINES,
            self._events if asked.events else None,
        )
        await attempt.run(model.head(asked), asked.body)
        while self._edge is not None:  # the engine is done, the answer waits for its grant
            await asyncio.wait([self._edge])
        self._after(attempt, asked, model)

    async def _clean(self, model: ServedModel) -> EngineRequest:
        args = (self.route, self._request.body, model.served, self.caller.request_id)
        thinking = self.caller.thinking
        if len(self._request.body) < THREAD_BYTES:
            return model.engine.clean(*args, thinking=thinking)
        return await asyncio.to_thread(model.engine.clean, *args, thinking=thinking)

    def _begin(self, model: ServedModel, asked: EngineRequest) -> None:
        """Note everything that must be let go of again; nothing here waits."""
        caller, desk = self.caller, self.desk
        self._running = Running(
            caller.request_id, caller.attempt, caller.gateway, model.model_id, self._grant, self.cut
        )
        desk.node.requests.add(self._running)
        model.enter(self)
        self._row = desk.records.open(self._record("queued"))
        if asked.stream:
            commit = desk.commit_s if caller.gateway is None else -1.0
            form = StreamForm(_SSE + self._echo(), self._comment, commit, waiting_secs=1.0)
            self._answer = Answer(self.reply, form, desk.wheel, desk.loop)

    async def _room_for_prompt(self, prompt: int) -> None:
        """A prompt that exceeds the grant waits for a raise like an answer at its edge."""
        if self._grant.gate.fits(prompt + 1):
            return
        self._say_low(prompt + 1)
        if not await self._grant.room_for(prompt + 1, self.desk.grants.wait_ms / 1000):
            raise RateLimitExceeded(
                f"The prompt has {prompt} tokens; the budget has room for "
                f"{self._grant.gate.granted}.",
                retry_after_s=1,
                prompt_len=prompt,
                granted=self._grant.gate.granted,
            )

    async def _sit(self, model: ServedModel, prompt: int, choices: int) -> Seat:
        if self._answer is not None:
            self._answer.accept(self.times.received)
        refusal = model.short_of_memory()
        if refusal is not None:
            raise refusal
        caller = self.caller
        cells = self._cells_to_begin(model, prompt, choices)
        ticket = Ticket(caller.key_id, cells, caller.anonymous, caller.deadline_s, seats=choices)
        self._ticket = ticket
        self._seat = await model.admission.enter(ticket)
        return self._seat

    def _cells_to_begin(self, model: ServedModel, prompt: int, choices: int) -> int:
        """The prompt, which the answers share, and a slice for each of them."""
        slices = choices * (self.desk.grants.slice_tokens // 2)
        return min(prompt + slices, model.plan.context)

    # ── the way out ─────────────────────────────────────────────────────────────────────────

    def _events(self, data: bytes) -> None:
        stream = self._stream
        if stream is not None and self._attempt is not None:
            self._take(stream.push(data))

    def _take(self, step: Step) -> None:
        """Forward what a step gave and act on the edge it met."""
        model, stream, answer = self.model, self._stream, self._answer
        if model is None or stream is None:
            return
        now = self.desk.loop.time()
        model.watchdog.progress(self, now)
        if step.began and not self.times.began:
            self.times.began = now
            if not self._accepted(model, stream):
                return
        if step.out and not self.times.first:
            self.times.first = now
            meter = stream.cleaner.meter
            model.note_prefill(meter.prompt - meter.cached, meter.prompt_ms / 1000)
        self._account(stream)
        if step.done:
            self._done(stream, step.out)
            return
        if answer is not None and step.out:
            answer.write(step.out)
        if self._grant.gate.low():
            self._say_low(0)
        if step.edge is None:
            return
        if step.edge == "kv_exhausted":
            self._close("length", "kv_exhausted")
        elif self._edge is None:
            self._edge = self.desk.loop.create_task(self._wait_at_edge(stream))
            self._edge.add_done_callback(self._edge_left)

    def _accepted(self, model: ServedModel, stream: AnswerStream) -> bool:
        """The engine has said how long the prompt is: if it fits, a gateway may have its header."""
        self._too_long = check_prompt(stream.cleaner.meter.prompt, model.limit)
        if self._too_long is not None and self._attempt is not None:
            model.rejected_too_long += 1
            self._attempt.stop()
            return False
        if self._seat is not None and self.asked is not None:  # bytes were only a bound
            prompt = stream.cleaner.meter.prompt
            self._seat.shrink_to(self._cells_to_begin(model, prompt, self.asked.choices))
            stream.edges_moved()
        if self._answer is not None and self.caller.gateway is not None:
            self._answer.write(b"")
        return True

    def _account(self, stream: AnswerStream) -> None:
        """Write down what it has cost so far, and charge the seat now and then."""
        counts = stream.counts()
        prompt, cached, output, _, _ = counts
        if self._row is not None:
            self._row.update(
                "decode" if output else "prefill", self._grant.gate.granted or 0, counts
            )
        cost = prompt - cached + output
        if cost >= self._charged + CHARGED_TOKENS:
            self._charge(cost)

    def _charge(self, cost: int) -> None:
        if self._seat is not None and cost > self._charged:
            self._seat.charge(cost - self._charged)
            self._charged = cost

    async def _wait_at_edge(self, stream: AnswerStream) -> None:
        """Hold the answer until the grant grows; cut it when it does not in time."""
        self._say_low(stream.missing)
        grew = await self._grant.room_for(stream.missing, self.desk.grants.wait_ms / 1000)
        self._edge = None
        if self._attempt is None:
            return
        if grew:
            self._take(stream.resume())
        else:
            self._close("length", "budget")

    def _edge_left(self, edge: asyncio.Task[None]) -> None:
        if not edge.cancelled() and edge.exception() is not None and self._task is not None:
            self.desk.log.error(
                "bug", request_id=self.caller.request_id, error=repr(edge.exception())
            )
            self._stopped_for = wire.internal_error(self.caller.request_id)
            self._task.cancel()

    def _done(self, stream: AnswerStream, out: bytes) -> None:
        """The engine's last word has been cleaned; its connection ends by itself."""
        if stream.cleaner.failed is not None:
            if self._answer is not None and out:
                self._answer.write(out)
            return  # said when the attempt has returned
        self._deliver("complete", out, stream)

    def _close(self, finish: str, why: str) -> None:
        """Cut the answer here and let go of the engine."""
        stream, attempt = self._stream, self._attempt
        if stream is None or attempt is None or self.reply.ended or stream.cleaner.done:
            return
        self._deliver("cut", stream.cut(finish, why), stream)
        attempt.stop()

    def _deliver(self, outcome: Outcome, last: bytes, stream: AnswerStream) -> None:
        """The end of an answer; its record is final before the caller can have seen it."""
        self._conclude(outcome)
        if self._answer is not None:
            self._answer.end(last if self._show_usage else without_usage(last))
        else:
            head = _JSON + self._echo() + self._queued()
            self.reply.send(200, head, stream.cleaner.whole())

    def _after(self, attempt: Attempt, asked: EngineRequest, model: ServedModel) -> None:
        """The engine has ended its answer, or broken off."""
        if self.times.ended:
            return
        if self._too_long is not None:
            raise self._too_long
        if attempt.failure is not None:
            raise self._engine_gone(model)
        if attempt.status != 200:
            raise model.engine.error(attempt.status, attempt.body, model.served)
        whole = b""
        if not asked.events:
            asked.cleaner.feed(attempt.body)
            whole = asked.cleaner.whole()
        if asked.cleaner.failed is not None:
            raise asked.cleaner.failed
        if asked.events or self._stream is None:
            raise self._engine_gone(model)
        self._stream.settle_whole()
        self._account(self._stream)
        self._conclude("complete")
        self.reply.send(200, _JSON + self._echo() + self._queued(), whole)

    def _engine_gone(self, model: ServedModel) -> HelexaError:
        if self._answer is not None and self.times.first:
            return UpstreamConnectionError(
                f"The engine of {model.model_id} stopped before the answer was complete."
            )
        return ModelRecovering(f"The engine of {model.model_id} is restarting.", retry_after_s=2)

    def _fail(self, error: HelexaError) -> None:
        if self.times.ended:
            return  # the answer was complete; what its connection did afterwards is nobody's loss
        self.error = error
        if self._stream is not None:
            self._stream.abandon()
        self._conclude("refused" if self._stream is None else "failed")
        if self._answer is not None and self._answer.committed:
            self._answer.end(wire.event(error, "openai", self.caller.request_id))
        else:
            rendered = wire.render(error, "openai", self.caller.request_id)
            self.reply.send(rendered.status, rendered.lines + self._echo(), rendered.body)

    def _flow(self, paused: bool) -> None:
        if self._attempt is not None:
            self._attempt.pause(paused)

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
        return b"x-request-id: %b\r\n" % self.caller.request_id.encode("latin-1", "replace")

    def _say_low(self, needed: int) -> None:
        if self.model is not None:
            gate = self._grant.gate
            closing.say_low(self.desk, self.caller, self.model.model_id, gate, needed)

    def _record(self, state: RecordState) -> RequestRecord:
        model_id = self.model.model_id if self.model is not None else ""
        billed = self._stream.billed() if self._stream is not None else _NOTHING
        if state == "failed" and (self._answer is None or not billed.output):
            billed = free_of_charge(billed)
        return closing.record_of(self.caller, model_id, state, billed, self._grant.gate)

    def _conclude(self, outcome: Outcome) -> None:
        """Close the record and tell the gateway; once."""
        if self.times.ended:
            return
        self.outcome = outcome
        self.times.ended = self.desk.loop.time()
        if self._row is None:
            return
        if self._stream is None or self.caller.gateway is None:
            self._row.forget()
            return
        record = self._record(closing.final_state(outcome))
        self._row.write(record)
        self.desk.node.bus.publish("request_end", {"record": record}, gateway=self.caller.gateway)

    def _settle(self) -> None:
        """Let go of everything; called once, whatever happened."""
        self._attempt = None
        if self._edge is not None:
            self._edge.cancel()
        if self._stream is not None:
            self._stream.abandon()
        self._conclude(self.outcome)
        if self._seat is not None:
            if self._stream is not None:
                billed = self._stream.billed()
                self._charge(billed.prompt - billed.cached + billed.output)
            self._seat.leave()
        if self.model is not None and self._running is not None:
            self.model.watchdog.end(self)
            self.desk.node.requests.remove(self._running)
            self.model.leave(self, self.times.ended)
        if self._stream is not None and self.model is not None:
            meter = self._stream.cleaner.meter
            self.model.note_decode(meter.output, meter.predicted_ms / 1000)
        record = self._record(closing.final_state(self.outcome))
        closing.count(self, record)
        closing.log_line(self, record)
