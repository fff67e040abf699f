"""One request, from its first check to its settlement.

::

    who? ─▶ what? ─▶ may it? ─▶ grant ─▶ place ─▶ attempt ─▶ bytes ─▶ settle
     401     400      403/404     429      503       │  ▲
                                                     └──┘ next candidate, while nothing of an
                                                          engine's answer has been relayed

Everything that is held (seat, grant, lease, connection) is let go in ``_settle``, whatever ends
the task: an answer, a refusal, a client that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from helexa.core.errors import (
    HelexaError,
    ModelNotFound,
    RateLimitExceeded,
    ServiceUnavailable,
    UpstreamConnectionError,
    UpstreamTimeout,
)
from helexa.core.principal import ANONYMOUS, Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.exchange import closing
from helexa.cortex.exchange.desk import (
    THREAD_BYTES,
    Desk,
    Lease,
    Outcome,
    Placed,
    Times,
    Watcher,
)
from helexa.cortex.exchange.route import Route
from helexa.cortex.exchange.stream import StreamRelay
from helexa.cortex.ledger.base import Grant, estimate
from helexa.cortex.seats import Seat
from helexa.relay.answer import Answer, StreamForm
from helexa.relay.attempt import Attempt
from helexa.relay.errand import in_task
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.upstream import Failure
from helexa.wire import errors as wire
from helexa.wire.chat_tail import ChatTail, plain_usage
from helexa.wire.peek import Peek, edit, images, peek

_JSON = b"content-type: application/json\r\n"
_SSE = b"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
_MOST_DIGITS = 12  # of a deadline; longer ones are no deadline at all
_NO_ROOM = frozenset((503, 429, 404))
_NEVER_SENT = frozenset(
    (Failure.CONNECT, Failure.TIMEOUT_CONNECT, Failure.FULL, Failure.RESET, Failure.STALE)
)


def _failed(failure: Failure, node: str) -> HelexaError:
    kind = UpstreamTimeout if failure.timed_out else UpstreamConnectionError
    return kind(f"Node {node}: {failure.value}.")


def _over_grant(error: HelexaError) -> bool:
    return isinstance(error, RateLimitExceeded) and "granted" in error.extras


async def _value(granted: Awaitable[Grant]) -> Grant:
    return await granted


def _nothing() -> None:
    pass


class Exchange:
    """Runs one request; ``run`` is cancelled when the client leaves.

    It runs as an ``Errand``: what needs a task is awaited through ``in_task``.
    """

    __slots__ = (
        "_attempt",
        "_lease",
        "_seat",
        "_stream",
        "_watcher",
        "attempts",
        "cancel",
        "desk",
        "error",
        "grant",
        "model",
        "outcome",
        "placed",
        "principal",
        "reply",
        "request",
        "request_id",
        "route",
        "seen",
        "sent",
        "shown_id",
        "times",
        "timings",
        "usage",
    )

    def __init__(self, desk: Desk, route: Route, request: Request, reply: Reply) -> None:
        self.desk = desk
        self.route = route
        self.request = request
        self.reply = reply
        self.request_id = desk.ids("req_")
        given = request.headers.get(b"x-request-id")
        self.shown_id = given[:128].decode("latin-1") if given else self.request_id
        self.times = Times(desk.now())
        self.principal: Principal = ANONYMOUS
        self.model = ""
        self.seen: Peek | None = None
        self.grant: int | None = None
        self.placed: Placed | None = None
        self.attempts = 0
        self.sent = False
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.outcome: Outcome = "refused"
        self.error: HelexaError | None = None
        self.cancel: Callable[[], None] = _nothing
        self._seat: Seat | None = None
        self._lease: Lease | None = None
        self._attempt: Attempt | None = None
        self._stream: StreamRelay | None = None
        self._watcher: Watcher | None = None

    async def run(self, running: set[Exchange]) -> None:
        """Answer the request; never raises.

        Args:
            running: Loses this exchange at the end.
        """
        try:
            await self._serve()
        except HelexaError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._cancelled()
        except Exception:  # the edge: a bug of ours must not take the loop along
            self.desk.log.exception("bug", request_id=self.request_id)
            self._fail(wire.internal_error(self.request_id))
        finally:
            running.discard(self)
            self._settle()

    # ── the way in ──────────────────────────────────────────────────────────────────────────

    async def _serve(self) -> None:
        desk, headers = self.desk, self.request.headers
        self.principal = principal = desk.keys.resolve(
            headers.get(b"authorization"), headers.get(b"x-api-key")
        )
        self._seat = desk.seats.take(principal)
        body = self.request.body
        if len(body) < THREAD_BYTES:
            seen = self.seen = peek(body)
        else:
            seen = self.seen = await asyncio.to_thread(peek, body)
        # A key may be given an alias or the id behind it.
        model, placed = desk.placer.find(seen.model, principal)
        self.model, self.placed = model, placed
        self._watcher = watcher = desk.observers.watch(principal, model, self.request_id)
        if watcher is not None:
            watcher.request(body)
        size = 0
        if principal.capped:
            size = estimate(
                len(body),
                images(body),
                slice_tokens=desk.slice_tokens,
                output_cap=seen.output_cap,
            )
        waiting = self._hold(size)
        if waiting is not None:
            self.grant = (await in_task(_value(waiting))).tokens
        streamed = seen.stream and self.route.streams
        if streamed:
            self._stream = self._open_stream(seen)
        if streamed or model != seen.model:
            body = edit(body, seen, model=model, include_usage=streamed)
        await self._send(body, size)

    def _open_stream(self, seen: Peek) -> StreamRelay:
        desk = self.desk
        form = StreamForm(self._head_lines(_SSE), self.route.keep_alive, desk.commit_s)
        return StreamRelay(
            Answer(self.reply, form, desk.wheel, desk.loop),
            show_usage=seen.usage_wanted,
            watcher=self._watcher,
            now=desk.now,
            header_lines=lambda: closing.answer_lines(self, self._attempt),
        )

    def _hold(self, size: int) -> Awaitable[Grant] | None:
        """Take a grant for the next attempt; returns what to wait for if it takes a moment."""
        self.attempts += 1
        self._attempt = None
        granted = self.desk.ledger.grant(self.principal, self.request_id, self.attempts, size)
        self.times.granted = self.desk.now()
        if type(granted) is Grant:
            self.grant = granted.tokens
            return None
        return granted  # type: ignore[return-value]  # what is no grant is to be awaited

    async def _send(self, body: bytes, size: int) -> None:
        """Try candidates until one answers, or the reason of the last refusal is the client's."""
        desk = self.desk
        avoid: set[str] = set()
        placed = self.placed
        self.outcome = "failed"
        if self._stream is not None:
            self._stream.answer.accept(self.times.received)
        while True:
            if placed is None:
                placed = self.placed = await self._place(avoid)
            self.times.placed = desk.now()
            self._lease = desk.placer.lease(placed, self.model)
            error = await self._try(placed.node, body)
            self._lease.release()
            if error is None:
                return
            if not self._again(error):
                self._check_room(error)
                raise error
            avoid.add(placed.node)
            desk.settler.settle(placed.node, self.request_id, self.attempts, Usage())
            waiting = self._hold(size)
            if waiting is not None:
                self.grant = (await in_task(_value(waiting))).tokens
            placed = None

    async def _place(self, avoid: set[str]) -> Placed:
        """Another candidate, or the model made warm."""
        placer = self.desk.placer
        placed = placer.now(self.model, avoid) if avoid else None
        if placed is not None:
            return placed
        if avoid and self.error is not None:
            raise self.error  # nobody else has it: what the last one said stands
        waiting = placer.later(self.model, self.principal, avoid, self._deadline())
        later: Placed = await in_task(waiting)
        return later

    def _deadline(self) -> float | None:
        given = self.request.headers.get(b"x-helexa-deadline-ms")
        if given is None or not given.isdigit() or len(given) > _MOST_DIGITS:
            return None
        return self.times.received + int(given) / 1000

    def _again(self, error: HelexaError) -> bool:
        """Whether another candidate may be tried after this failure."""
        self.error = error
        attempt = self._attempt
        if attempt is None or self.attempts > self.desk.retries or self.relaying:
            return False
        deadline = self._deadline()
        if deadline is not None and self.desk.now() > deadline:
            return False
        if attempt.failure is not None:
            return attempt.failure in _NEVER_SENT and not attempt.bytes_in
        return attempt.status in _NO_ROOM and not _over_grant(error)

    def _check_room(self, error: HelexaError) -> None:
        """A prompt beyond its grant may be beyond what the key has left: then say that."""
        needed = error.extras.get("prompt_len")
        if _over_grant(error) and isinstance(needed, int):
            self.desk.ledger.check_room(self.principal, needed + 1)

    # ── one attempt ─────────────────────────────────────────────────────────────────────────

    async def _try(self, node: str, body: bytes) -> HelexaError | None:
        """Relay one node's answer; what it refused or broke with is returned."""
        desk = self.desk
        link = desk.links.get(node)
        if link is None:
            return ServiceUnavailable(f"Node {node} has just been removed.", retry_after_s=1)
        stream = self._stream
        if stream is not None:
            stream.renew()
        attempt = self._attempt = Attempt(
            link.pool,
            desk.wheel,
            desk.loop,
            desk.deadlines,
            stream.events if stream is not None else None,
        )
        self.reply.on_flow = attempt.pause
        desk.settler.begin(self.request_id, self.attempts)
        head = link.head(self.route.upstream, len(body), self._node_lines())
        await attempt.run(head, body, direct=True)
        self.times.connected = attempt.connected_at
        self.times.first_byte = attempt.first_at
        if attempt.failure is not None and not (stream is not None and stream.tail.done):
            return _failed(attempt.failure, node)
        if attempt.status != 200:
            return wire.from_wire(attempt.status, attempt.body)
        if stream is not None:
            return self._finish_stream(stream, node)
        self._finish_plain(attempt)
        return None

    def _node_lines(self) -> bytes:
        """What the node is told about the request; the client's own headers stay here."""
        given = self.request.headers
        lines = b"x-request-id: %b\r\nx-helexa-attempt: %d\r\n%b" % (
            self.request_id.encode(),
            self.attempts,
            self.desk.principal_lines(self.principal),
        )
        if self.grant is not None:
            lines += b"x-helexa-grant: %d\r\n" % self.grant
        if given.get(b"x-include-thinking", b"").lower() == b"true":
            lines += b"x-include-thinking: true\r\n"
        if b"x-helexa-deadline-ms" in given:
            deadline = self._deadline()
            if deadline is not None:
                left = max(0.0, deadline - self.desk.now())
                lines += b"x-helexa-deadline-ms: %d\r\n" % (left * 1000)
        return lines

    @property
    def relaying(self) -> bool:
        """Bytes of an engine's answer have left for the client."""
        return self._stream is not None and self._stream.answer.relaying

    def _finish_stream(self, stream: StreamRelay, node: str) -> HelexaError | None:
        tail = stream.tail
        tail.measure()
        self.usage, self.timings = tail.usage, tail.timings
        self.times.first, self.times.last = tail.first_at, tail.last_at
        if tail.error is not None:
            return wire.from_wire(502, tail.error)
        if not tail.done:
            return UpstreamConnectionError(f"Node {node}: the answer ended early.")
        stream.finish(closing.comment(self))
        self.outcome = "complete"
        return None

    def _finish_plain(self, attempt: Attempt) -> None:
        body = attempt.body
        self.usage, self.timings = plain_usage(body)
        self.times.first = self.times.first_byte
        self.times.last = self.desk.now()
        if self._watcher is not None:
            self._watcher.response(body)
        lines = self._head_lines(_JSON) + closing.answer_lines(self, attempt)
        self.reply.send(200, lines, body)
        self.outcome = "complete"

    # ── the way out ─────────────────────────────────────────────────────────────────────────

    def _head_lines(self, lines: bytes) -> bytes:
        lines += b"x-request-id: %b\r\n" % self.shown_id.encode("latin-1")
        if b"origin" in self.request.headers:
            lines += b"access-control-allow-origin: *\r\n"
        return lines

    def _fail(self, error: HelexaError) -> None:
        """Say it: as a refusal while the status is open, as an event afterwards."""
        self.error = error
        if isinstance(error, ModelNotFound) and self.attempts:
            # A node has just unloaded it; the model itself is known.
            error = self.error = ServiceUnavailable(error.message, retry_after_s=2)
        dialect = self.route.dialect
        if self._stream is not None and self._stream.answer.committed:
            self.outcome = "broken" if self.relaying else "failed"
            self._stream.end(wire.event(error, dialect, self.shown_id))
        else:
            rendered = wire.render(error, dialect, self.shown_id)
            if self._watcher is not None:
                self._watcher.response(rendered.body)
            self.reply.send(rendered.status, self._head_lines(rendered.lines), rendered.body)

    def _cancelled(self) -> None:
        """The client has left, or the gateway cuts what runs too long after a drain."""
        if self.reply.gone:
            self.outcome = "cancelled"
            return
        error = ServiceUnavailable("The gateway is shutting down.", retry_after_s=5)
        self._fail(error)

    def _settle(self) -> None:
        """Let go of everything; called once."""
        self.times.ended = self.desk.now()
        attempt, self._attempt = self._attempt, None
        self.sent = attempt is not None and attempt.connected_at > 0
        if self.outcome == "refused":
            self.placed = None
        if self._seat is not None:
            self._seat.release()
        if self._lease is not None:
            self._lease.release()
        if self._watcher is not None:
            self._watcher.close(self.reply.status, self.outcome)
        if self.principal.capped:
            closing.settle(self)  # somebody may be waiting for the room
        self.desk.books.note(self)

    @property
    def tail(self) -> ChatTail | None:
        """What was seen of a streamed answer."""
        return None if self._stream is None else self._stream.tail
