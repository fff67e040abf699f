"""One request, from its first check to its settlement.

::

    who? ─▶ what? ─▶ may it? ─▶ grant ─▶ place ─▶ attempt ─▶ bytes ─▶ settle
     401     400      403/404     429      503       │  ▲
                                                     └──┘ next candidate (``sending``)

A chain of plain calls, each made by the event that allows it: the request is whole, the node has
answered. What has to wait (a large body parsed in a thread, a grant that is only held, a cold
model) goes on in a task of its own and joins the chain again, see ``later``.
Everything that is held (seat, grant, lease, connection) is let go in ``close``, whatever ends
the chain: an answer, a refusal, a client that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

from helexa.core.errors import HelexaError, ModelNotFound, ServiceUnavailable, let_frames_go
from helexa.core.principal import ANONYMOUS, Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange import billing, sending
from helexa.cortex.exchange.desk import (
    THREAD_BYTES,
    Desk,
    Lease,
    Outcome,
    Placed,
    Times,
    Tried,
    Watcher,
)
from helexa.cortex.exchange.lines import head_lines
from helexa.cortex.exchange.route import Asked, Route, Translate
from helexa.cortex.exchange.sender import Sender, sender_of
from helexa.cortex.exchange.stream import StreamRelay
from helexa.cortex.habits import Habit
from helexa.cortex.ledger.base import Grant, estimate
from helexa.cortex.residency.waiting import Waiter
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.prompt import ask_of
from helexa.cortex.seats import Seat
from helexa.relay.attempt import Attempt
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.wire import errors as wire
from helexa.wire.chat_tail import ChatTail
from helexa.wire.images import images
from helexa.wire.peek import Peek, peek
from helexa.wire.translation import Translation

T = TypeVar("T")


def _read(body: bytes, hint: bytes | None) -> tuple[Peek, Ask]:
    """All that is to be known of a long body."""
    seen = peek(body)
    return seen, ask_of(seen, hint)


class Exchange:
    """Answers one request; ``cancel`` it when the client leaves.

    Args:
        running: Holds this exchange from ``run`` until it has ended.

    Attributes:
        given: The client's body; ``body`` is what nodes get.
        streams: Whether the client asked for a stream; None until its body was read.
    """

    __slots__ = (
        "_running",
        "_then",
        "_waiting",
        "attempt",
        "attempts",
        "avoid",
        "body",
        "cut",
        "desk",
        "ended",
        "error",
        "given",
        "grant",
        "habit",
        "head",
        "lease",
        "model",
        "moved",
        "need",
        "outcome",
        "placed",
        "principal",
        "refused",
        "reply",
        "request_id",
        "route",
        "seat",
        "seen",
        "sender",
        "sent",
        "settled",
        "shown_id",
        "size",
        "stream",
        "streams",
        "tail",
        "times",
        "timings",
        "translation",
        "tried",
        "usage",
        "waiter",
        "watcher",
    )

    def __init__(
        self, desk: Desk, route: Route, request: Request, reply: Reply, running: set[Exchange]
    ) -> None:
        self.desk = desk
        self.route = route
        self.reply = reply
        self.request_id = desk.ids("req_")
        self.head = head = request.head
        given = head.headers.get(b"x-request-id")
        self.shown_id = given[:128].decode("latin-1") if given else self.request_id
        self.times = Times(desk.now())
        self.sender: Sender | None = None
        self.principal: Principal = ANONYMOUS
        self.model = ""
        self.body = self.given = request.body
        self.size = 0
        self.seen: Peek | None = None
        self.streams: bool | None = None
        self.translation: Translation | None = None
        self.moved = False
        self.need = route.need
        self.grant: int | None = None
        self.habit: Habit | None = None
        self.placed: Placed | None = None
        self.avoid: set[str] | None = None
        self.attempts = 0
        self.tried: list[Tried] | None = None
        self.cut: str | None = None
        self.attempt: Attempt | None = None
        self.stream: StreamRelay | None = None
        self.tail: ChatTail | None = None
        self.sent = False
        self.refused = False
        self.ended = False
        self.settled = False
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.outcome: Outcome = "refused"
        self.error: HelexaError | None = None
        self.seat: Seat | None = None
        self.lease: Lease | None = None
        self.waiter: Waiter | None = None
        self.watcher: Watcher | None = None
        self._running = running
        self._waiting: asyncio.Future[Any] | None = None
        self._then: Callable[[Any], None] | None = None

    def run(self) -> None:
        """Begin; never raises, and the reply ends now or later."""
        self._running.add(self)
        self.reply.on_gone = self.cancel
        try:
            self._check()
        except Exception as error:  # noqa: BLE001  # the edge
            self._failed(error)

    def in_line(self, waiter: Waiter) -> None:
        """It waits for its model; ``waiter`` knows for how long."""
        self.waiter = waiter

    def answered(self) -> None:
        """The node's answer has ended; the attempt says so."""
        try:
            sending.ended(self)
        except Exception as error:  # noqa: BLE001  # the edge
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        """A step of the chain raised: that ends the exchange, and must not take the loop along."""
        if isinstance(error, HelexaError):
            self.fail(error)
        else:
            self.desk.log.exception("bug", request_id=self.request_id)  # noqa: LOG004  # called from one
            self.fail(wire.internal_error(self.request_id))

    def later(self, waiting: Awaitable[T], then: Callable[[T], None]) -> None:
        """Go on with ``then`` and the result when there is one; what it raises ends us."""
        self._then = then
        self._waiting = future = asyncio.ensure_future(waiting)
        future.add_done_callback(self._waited)

    def _waited(self, future: asyncio.Future[Any]) -> None:
        then, self._then, self._waiting = self._then, None, None
        if self.ended or then is None:
            return
        if future.cancelled():
            self._cancelled()
        else:
            try:
                then(future.result())
            except Exception as error:  # noqa: BLE001  # the edge
                self._failed(error)

    # ── the way in ──────────────────────────────────────────────────────────────────────────

    def _check(self) -> None:
        desk = self.desk
        self.sender = sender = sender_of(self.head, desk.keys)
        self.principal = principal = sender.principal
        if sender.seated:
            self.seat = desk.seats.take(principal)
        if self.route.translate is not None:
            self._translate(Asked(self.request_id, principal, self.body))
        else:
            self._read()

    def _translate(self, asked: Asked) -> None:
        """Make chat of it; in a thread if it is long, so nothing else is touched there."""
        translate = cast("Translate", self.route.translate)
        if len(asked.body) < THREAD_BYTES:
            self._translated(translate(asked))
        else:
            self.later(asyncio.to_thread(translate, asked), self._translated)

    def _translated(self, made: Translation | Awaitable[Translation]) -> None:
        if isinstance(made, Awaitable):
            self.later(made, self._translated)
            return
        self.translation = made
        self.body = made.body
        self._read()

    def _read(self) -> None:
        """Look at the chat body; in a thread if it is long."""
        if len(self.body) < THREAD_BYTES:
            self._admit(peek(self.body))
        else:
            hint = None if self.sender is None else self.sender.hint
            self.later(asyncio.to_thread(_read, self.body, hint), self._admit_read)

    def _admit_read(self, read: tuple[Peek, Ask]) -> None:
        self._admit(*read)

    def _admit(self, seen: Peek, ask: Ask | None = None) -> None:
        desk, principal = self.desk, self.principal
        sender: Sender = self.sender  # type: ignore[assignment]
        self.seen, self.streams = seen, seen.stream
        # A key may be given an alias or the id behind it.
        carried = images(self.body)
        self.need = "vision" if carried.number else self.route.need
        try:
            self.model, self.placed = desk.placer.find(
                seen.model, principal, seen, sender.hint, ask, self.need
            )
        except HelexaError:
            self.model = seen.model_for_people  # what is logged names what was asked for
            raise
        if self.translation is not None:
            self.translation.begin(self.model)
        self._watch()
        if sender.capped and not self.route.free:
            self.size = estimate(
                len(self.body) - carried.size,
                carried.number,
                slice_tokens=desk.slice_tokens,
                output_cap=seen.output_cap,
            )
        self.hold(sending.first)

    def _watch(self) -> None:
        watcher = self.desk.observers.watch(self.principal, self.model, self.request_id)
        if watcher is not None:
            self.watcher = watcher
            watcher.request(self.given, self.body)

    def hold(self, then: Callable[[Exchange], None]) -> None:
        """Take a grant for the next attempt and go on with ``then``, at once if there is room."""
        self.attempts += 1
        self.attempt = None
        desk, times = self.desk, self.times
        if self.route.free:
            times.granted = times.granted or desk.now()
            then(self)
            return
        granted = desk.ledger.grant(self.principal, self.request_id, self.attempts, self.size)
        if not times.granted:
            times.granted = desk.now()
        if type(granted) is Grant:
            self.grant = granted.tokens
            then(self)
        else:
            self.later(granted, lambda given: self._granted(given, then))  # type: ignore[arg-type]

    def _granted(self, granted: Grant, then: Callable[[Exchange], None]) -> None:
        self.grant = granted.tokens
        then(self)

    def deadline(self) -> float | None:
        """When the client stops waiting, by ``Desk.now``; None when it did not say."""
        sender: Sender = self.sender  # type: ignore[assignment]
        return None if sender.patience_s is None else self.times.received + sender.patience_s

    @property
    def delivered(self) -> int:
        """To how many candidates it was sent, the last one included."""
        return len(self.tried or ()) + (self.placed is not None)

    @property
    def relaying(self) -> bool:
        """Bytes of an engine's answer have left for the client."""
        return self.stream is not None and self.stream.answer.relaying

    # ── the way out ─────────────────────────────────────────────────────────────────────────

    def fail(self, error: HelexaError) -> None:
        """Say it, as a refusal while the status is open and as an event afterwards; and end."""
        if self.ended:
            return
        self.error = error
        let_frames_go(error)
        if isinstance(error, ModelNotFound) and self.delivered:
            # A node has just unloaded it; the model itself is known.
            error = self.error = ServiceUnavailable(error.message, retry_after_s=2)
        dialect = self.route.dialect
        if self.translation is not None:
            error = self.translation.restated(error)
        if self.stream is not None and self.stream.answer.committed:
            self.outcome = "broken" if self.relaying else "failed"
            self.stream.fail(error, dialect, self.shown_id)
        else:
            rendered = wire.render(error, dialect, self.shown_id)
            if self.watcher is None and self.sender is not None and self.outcome == "refused":
                self._watch()  # what a client does wrong is what one wants to see of it
            if self.watcher is not None:
                self.watcher.response(rendered.body)
            self.reply.send(rendered.status, head_lines(self, rendered.lines), rendered.body)
        self.close()

    def cancel(self) -> None:
        """The client has left, or the gateway cuts what runs too long after a drain."""
        if self._waiting is not None:
            self._waiting.cancel()  # what waits may have something to undo before we settle
        elif not self.ended:
            self._cancelled()

    def _cancelled(self) -> None:
        if self.reply.gone:
            self.outcome = "cancelled"
            self.close()
        else:
            self.fail(ServiceUnavailable("The gateway is shutting down.", retry_after_s=5))

    def close(self) -> None:
        """Let go of everything; called once."""
        self.ended = True
        self._running.discard(self)
        self.times.ended = self.desk.now()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            if not attempt.ended:
                attempt.drop()
            self.sent = attempt.connected_at > 0
            self.refused = self.outcome == "failed" and billing.was_refused(attempt)
        self.body = self.given = b""  # neither body nor what points into it waits for the books
        self.seen = self.translation = None
        stream, self.stream = self.stream, None  # it knows us: a cycle
        if stream is not None:
            self.tail = tail = stream.tail
            if self.outcome != "complete":  # what was seen of it is as true
                tail.measure()
                self.times.first, self.times.last = tail.first_at, tail.last_at
        if self.outcome == "refused":
            self.placed = None
        elif self.outcome == "failed":
            self.usage = None  # the client has none of what it paid for
        if self.seat is not None:
            self.seat.release()
        if self.lease is not None:
            self.lease.release()
        if self.watcher is not None:
            self.watcher.close(self.reply.status, self.outcome)
        sender = self.sender
        if sender is not None and sender.capped:
            complete = self.outcome == "complete"
            if not complete or self.desk.ledger.tight(self.principal):
                billing.settle(self)
                self.settled = True
        self.desk.books.note(self)
