"""From a grant to an answer: the candidates of one exchange, tried until one answers.

::

    first ─▶ place ─▶ deliver ─▶ (the node answers) ─▶ ended ─┬─▶ finished
               ▲                                              ├─▶ refused, broken: the client's
               └── another grant ◀── may another be tried? ◀──┘

Functions of an ``Exchange``, called by its chain. Another candidate is tried only while nothing
of an engine's answer has been relayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from helexa.core.errors import (
    HelexaError,
    InternalError,
    ModelNotFound,
    RateLimitExceeded,
    ServiceUnavailable,
    UpstreamConnectionError,
    UpstreamFailed,
    UpstreamTimeout,
)
from helexa.cortex.exchange import billing, closing
from helexa.cortex.exchange.desk import Placed, Tried
from helexa.cortex.exchange.lines import answer_lines, head_lines
from helexa.cortex.exchange.stream import StreamRelay
from helexa.relay.answer import Answer, StreamForm
from helexa.relay.attempt import Attempt
from helexa.relay.upstream import Failure
from helexa.wire import errors as wire
from helexa.wire.chat_tail import plain_end
from helexa.wire.peek import Peek, edit
from helexa.wire.prefix import stabilise

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange
    from helexa.cortex.exchange.sender import Sender

_JSON = b"content-type: application/json\r\n"
_SSE = b"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"
_SMALL = 65_536  # bytes of a body that nobody notices who shares a connection with it
_NO_ROOM = frozenset((503, 429, 404))
_LOST = frozenset(
    (
        Failure.CONNECT,
        Failure.TIMEOUT_CONNECT,
        Failure.FULL,
        Failure.RESET,
        Failure.STALE,
        Failure.FRAMING,  # a node that died between the head of its answer and the first byte
    )
)
_MODEL_FAILURES = (InternalError, UpstreamFailed)


def first(exchange: Exchange) -> None:
    """Granted: fix the body that nodes get, start the commit clock, try the first candidate."""
    seen: Peek = exchange.seen  # type: ignore[assignment]  # a cast costs as much as a call
    streamed = seen.stream and exchange.route.streams
    if streamed or exchange.model != seen.model:
        exchange.body = edit(exchange.body, seen, model=exchange.model, include_usage=streamed)
    habits = exchange.desk.habits
    if habits is not None:
        exchange.habit = habit = habits.of(exchange.model)
        if habit is not None and habit.stabilises:
            exchange.body, exchange.moved = stabilise(exchange.body)
    exchange.outcome = "failed"
    if streamed:
        exchange.stream = _open_stream(exchange, show_usage=seen.usage_wanted)
        exchange.stream.answer.accept(exchange.times.received)
    if exchange.placed is not None:
        _deliver(exchange, exchange.placed)
    else:
        _place(exchange)


def _open_stream(exchange: Exchange, *, show_usage: bool) -> StreamRelay:
    desk = exchange.desk
    translation = exchange.translation
    form = StreamForm(head_lines(exchange, _SSE), lambda: keep_alive(exchange), desk.commit_s)
    return StreamRelay(
        Answer(exchange.reply, form, desk.wheel, desk.loop),
        show_usage=show_usage,
        watcher=exchange.watcher,
        now=desk.now,
        header_lines=lambda: _begun(exchange),
        translation=translation,
    )


def keep_alive(exchange: Exchange) -> bytes:
    """A sign of life in the dialect's form; whoever waits for a model is told their place.

    In chat the place is the comment itself. Other dialects need an event to reset their clients'
    timers; there the comment stands before it.
    """
    translation, waiter = exchange.translation, exchange.waiter
    place = b""
    if waiter is not None and waiter.waits:
        standing = waiter.standing(exchange.desk.now())
        place = b": helexa %b\n\n" % msgspec.json.encode(standing)
    if translation is not None:
        return place + translation.keep_alive()
    return place or exchange.route.keep_alive()


def _begun(exchange: Exchange) -> bytes:
    """The first events of an answer have come: its prefill is done. Returns header lines."""
    if exchange.lease is not None:
        exchange.lease.started()
    return answer_lines(exchange, exchange.attempt)


def _place(exchange: Exchange) -> None:
    """To the place that was found, to another one, or wait until the model is warm."""
    placer, avoid = exchange.desk.placer, exchange.avoid
    if avoid:
        last = exchange.placed
        ask = last.ask if last is not None else None
        found = placer.now(exchange.model, avoid, ask, exchange.need)
        if found is None and exchange.error is not None:
            if not isinstance(exchange.error, ModelNotFound):
                # Nobody else has it: what the last one said stands, and it was no detour.
                if exchange.tried:
                    exchange.times.retried -= exchange.tried.pop().ms / 1000
                raise exchange.error
            exchange.avoid = avoid = None  # its node has just unloaded it: it is asleep again
        exchange.placed = found
    if exchange.placed is not None:
        _deliver(exchange, exchange.placed)
        return
    waiting = placer.later(
        exchange.model,
        exchange.principal,
        avoid or frozenset(),
        exchange.deadline(),
        told=exchange.in_line,
        need=exchange.need,
    )
    exchange.later(waiting, lambda placed: _deliver(exchange, placed))


def _deliver(exchange: Exchange, placed: Placed) -> None:
    """Send the request to one node."""
    desk, stream, body = exchange.desk, exchange.stream, exchange.body
    exchange.placed = placed
    exchange.times.placed = desk.now()
    exchange.lease = desk.placer.lease(placed, exchange.model)
    link = desk.links.get(placed.node)
    if link is None:
        gone = ServiceUnavailable(f"Node {placed.node} has just been removed.", retry_after_s=1)
        _refused(exchange, gone)
        return
    route = exchange.route
    pool = link.way(small=route.streams and len(body) <= _SMALL)
    if stream is None:
        attempt = Attempt(pool, desk.wheel, desk.loop, desk.deadlines)
    else:
        forward = stream.forward if stream.forwards else None
        attempt = Attempt(
            pool, desk.wheel, desk.loop, desk.deadlines, stream.events, forward=forward
        )
        exchange.reply.on_flow = attempt.pause
    exchange.attempt = attempt
    request_id, number = exchange.request_id, exchange.attempts
    if not route.free:
        desk.settler.begin(request_id, number)
    head = link.head(route.upstream, len(body), request_id, number, _node_lines(exchange))
    attempt.start(head, body, exchange.answered)


def _node_lines(exchange: Exchange) -> bytes:
    """What the node is told about the request; the client's own headers stay here."""
    sender: Sender = exchange.sender  # type: ignore[assignment]
    lines = sender.lines
    if exchange.grant is not None:
        lines += b"x-helexa-grant: %d\r\n" % exchange.grant
    if exchange.habit is not None and exchange.habit.thinks:
        lines += b"x-helexa-thinking: on\r\n"
    deadline = exchange.deadline()
    if deadline is not None:
        left = max(0.0, deadline - exchange.desk.now())
        lines += b"x-helexa-deadline-ms: %d\r\n" % (left * 1000)
    return lines


# ── the answer ──────────────────────────────────────────────────────────────────────────────────


def ended(exchange: Exchange) -> None:
    """The node's answer has ended, well or not."""
    attempt: Attempt = exchange.attempt  # type: ignore[assignment]
    times = exchange.times
    times.connected = attempt.connected_at
    times.first_byte = attempt.first_at
    if attempt.error is not None:
        raise attempt.error
    error = _result(exchange, attempt)
    if error is None:
        exchange.outcome = "complete"
        exchange.close()
    else:
        _blame(exchange, attempt, error)
        _refused(exchange, error)


def _blame(exchange: Exchange, attempt: Attempt, error: HelexaError) -> None:
    """Hold a failure against its place; a refusal is an answer, and a full pool is our own."""
    if exchange.placed is None or attempt.failure is Failure.FULL:
        return
    if attempt.failure in _LOST:
        exchange.desk.placer.failed(exchange.placed, "connection")
    elif attempt.failure is not None or isinstance(error, _MODEL_FAILURES):
        exchange.desk.placer.failed(exchange.placed, "model")


def _result(exchange: Exchange, attempt: Attempt) -> HelexaError | None:
    """Finish the client's answer; what the node refused or broke with is returned."""
    stream = exchange.stream
    if stream is None and attempt.failure is None and attempt.status == 200:
        _finish_plain(exchange, attempt)
        return None
    node = exchange.placed.node if exchange.placed is not None else ""
    if attempt.failure is not None and not (stream is not None and stream.tail.done):
        kind = UpstreamTimeout if attempt.failure.timed_out else UpstreamConnectionError
        why = attempt.failure.value if attempt.unreached is None else attempt.unreached.short
        return kind(f"Node {node}: {why}.")
    if attempt.status != 200 or stream is None:
        return wire.from_wire(attempt.status, attempt.body)
    return _finish_stream(exchange, stream, node)


def _finish_stream(exchange: Exchange, stream: StreamRelay, node: str) -> HelexaError | None:
    tail, times = stream.tail, exchange.times
    tail.measure()
    exchange.usage, exchange.timings = tail.usage, tail.timings
    exchange.cut = tail.cut
    times.first, times.last = tail.first_at, tail.last_at
    if tail.error is not None:
        return wire.from_wire(502, tail.error)
    if not tail.done:
        return UpstreamConnectionError(f"Node {node}: the answer ended early.")
    stream.finish(closing.comment(exchange))
    return None


def _finish_plain(exchange: Exchange, attempt: Attempt) -> None:
    body = attempt.body
    exchange.usage, exchange.timings, exchange.cut = plain_end(body)
    _decoded(exchange)
    if exchange.translation is not None:
        body = exchange.translation.plain(body)
    if exchange.watcher is not None:
        exchange.watcher.response(body)
    lines = head_lines(exchange, _JSON) + answer_lines(exchange, attempt)
    exchange.reply.send(200, lines, body)


def _decoded(exchange: Exchange) -> None:
    """When the tokens of an answer that came whole were made: nobody here saw it, but its engine
    says how long it took. A count, a vector and a ranking have none."""
    usage, timings, times = exchange.usage, exchange.timings, exchange.times
    if usage is None or not usage.completion:
        return
    decode_s = 0.0 if timings is None else timings.predicted_ms / 1000
    times.last = times.first_byte
    times.first = max(times.placed, times.last - decode_s)


# ── the next candidate ──────────────────────────────────────────────────────────────────────────


def _refused(exchange: Exchange, error: HelexaError) -> None:
    """One candidate has refused, or was not to be had: on to the next, or it is the client's."""
    placed = exchange.placed
    if exchange.lease is not None:
        exchange.lease.release()
    exchange.error = error
    if placed is None or not _again(exchange, error):
        _check_room(exchange, error)
        raise error
    if exchange.avoid is None:
        exchange.avoid = set()
    exchange.avoid.add(placed.node)
    _note(exchange, placed.node, error)
    if exchange.attempt is not None:
        billing.settle_tried(exchange, placed.node, exchange.attempt)
    if exchange.stream is not None:
        exchange.stream.renew()
    exchange.hold(_place)


def _note(exchange: Exchange, node: str, error: HelexaError) -> None:
    """Remember a candidate that did not answer, and the time it cost."""
    took = exchange.desk.now() - exchange.times.placed
    exchange.times.retried += took
    if exchange.tried is None:
        exchange.tried = []
    exchange.tried.append(Tried(node, error.code, round(took * 1000, 2)))


def _again(exchange: Exchange, error: HelexaError) -> bool:
    """Whether another candidate may be tried after this failure."""
    attempt = exchange.attempt
    if attempt is None or exchange.attempts > exchange.desk.retries or exchange.relaying:
        return False
    deadline = exchange.deadline()
    if deadline is not None and exchange.desk.now() > deadline:
        return False
    if attempt.failure is not None:
        return attempt.failure in _LOST and not attempt.bytes_in
    return attempt.status in _NO_ROOM and not _over_grant(error)


def _check_room(exchange: Exchange, error: HelexaError) -> None:
    """A prompt beyond its grant may be beyond what the key has left: then say that."""
    needed = error.extras.get("prompt_len")
    if _over_grant(error) and isinstance(needed, int):
        exchange.desk.ledger.check_room(exchange.principal, needed + 1)


def _over_grant(error: HelexaError) -> bool:
    return isinstance(error, RateLimitExceeded) and "granted" in error.extras
