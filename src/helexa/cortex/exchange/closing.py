"""The end of an exchange: the closing comment, metrics, one log line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from helexa.core.logging import LogLine
from helexa.cortex.exchange import billing
from helexa.cortex.metrics import NONE

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange


def queue_seconds(exchange: Exchange) -> float:
    """How long the request waited for its turn, here and at the node; a load is no queue."""
    placed, times = exchange.placed, exchange.times
    if placed is None or placed.cold:
        return times.queued
    return times.queued + times.placed - times.granted - times.retried


def comment(exchange: Exchange) -> bytes:
    """The comment before the end of a stream: what was not known when the status was sent."""
    placed, times, timings = exchange.placed, exchange.times, exchange.timings
    known: dict[str, object] = {"node": placed.node if placed is not None else None}
    known["queue_ms"] = round(queue_seconds(exchange) * 1000, 2)
    if placed is not None and placed.cold:
        known["load_ms"] = times.ms(times.granted + times.retried, times.placed)
    if timings is not None:
        known["prefill_ms"] = round(timings.prompt_ms, 2)
        known["cached"] = timings.cache_n
    return b": helexa " + msgspec.json.encode(known) + b"\n\n"


def close_all(ended: Sequence[Exchange]) -> None:
    """Settle, count, learn from, remember and log ended exchanges.

    One step is made for all of them before the next: it then finds its own code in the caches.
    """
    if not ended:
        return
    observers, log = ended[0].desk.observers, ended[0].desk.log
    stamp = log.stamp()
    lines: list[LogLine] = []
    steps = (_settle, _count, _learn, lambda exchange: lines.append(_line(exchange, stamp)))
    for step in steps:
        for exchange in ended:
            try:
                step(exchange)
            except Exception:  # the answer is out; what is left is bookkeeping
                log.exception("bug", request_id=exchange.request_id)
    try:
        observers.finished(ended)
    except Exception:
        log.exception("bug", request_ids=[exchange.request_id for exchange in ended])
    log.batch(lines)


def _settle(exchange: Exchange) -> None:
    if not exchange.settled:
        billing.settle(exchange)


def _learn(exchange: Exchange) -> None:
    placed = exchange.placed
    if placed is not None:
        placer = exchange.desk.placer
        placer.learn(exchange.model, placed, exchange.usage, exchange.timings)


def _count(exchange: Exchange) -> None:
    desk, times, usage = exchange.desk, exchange.times, exchange.usage
    placed = exchange.placed
    if placed is None:
        code = exchange.error.code if exchange.error is not None else None
        desk.metrics.refusals.labels(code or NONE).inc()
        return
    at = desk.metrics.placement(exchange.model, placed.node)
    at.requests.value += 1
    at.duration.observe(times.ended - times.received)
    if times.first_byte and not exchange.route.free:  # to count tokens takes no seat
        at.queue.observe(queue_seconds(exchange))
    if times.first:
        at.first_token.observe(times.first - times.received)
    if usage is not None:
        at.prompt_tokens.value += usage.prompt
        at.completion_tokens.value += usage.completion
        at.cached_tokens.value += usage.cached
    if placed.cold:
        at.cold_starts.inc()
        at.load.observe(times.placed - times.granted - times.retried)
    if exchange.outcome not in ("complete", "cancelled"):
        at.errors.inc()
    tail = exchange.tail
    if tail is not None:
        tail.measure()
        if tail.gaps is not None:
            at.inter_token.add_bucket_counts(tail.gaps, tail.gap_sum)
    rate = _tokens_per_second(exchange)
    if rate is not None:
        at.tokens_per_second.observe(rate)


def _tokens_per_second(exchange: Exchange) -> float | None:
    """From the engine's own clock when it tells, else from the stream's first to last batch."""
    timings, usage, times = exchange.timings, exchange.usage, exchange.times
    if timings is not None and timings.predicted_ms > 0 and timings.predicted_n:
        return timings.predicted_n / timings.predicted_ms * 1000
    if usage is not None and times.last > times.first > 0 and usage.completion > 1:
        return (usage.completion - 1) / (times.last - times.first)
    return None


class RequestLine(LogLine):
    """The one line that every request leaves, whatever became of it; milliseconds and bytes."""

    request_id: str
    route: str
    model: str
    key: str
    status: int
    outcome: str
    attempts: int
    bytes: int
    total_ms: float
    first_ms: float | None = None
    stream: bool | None = None
    node: str | None = None
    code: str | None = None
    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None


def _line(exchange: Exchange, stamp: str) -> RequestLine:
    times, usage, placed = exchange.times, exchange.usage, exchange.placed
    failed = exchange.error if exchange.outcome != "complete" else None
    # By position, and none of it later: with names it takes five times as long.
    return RequestLine(
        stamp,
        "info",
        "request",
        exchange.shown_id,
        exchange.route.name,
        exchange.model,
        exchange.principal.key_id,
        exchange.reply.status,
        exchange.outcome,
        exchange.delivered,
        exchange.reply.bytes_sent,
        _ms(times.ended - times.received),
        _ms(times.first - times.received) if times.first else None,
        exchange.streams,
        None if placed is None else placed.node,
        None if failed is None else failed.code,
        None if usage is None else usage.prompt,
        None if usage is None else usage.completion,
        None if usage is None else usage.cached,
    )


def _ms(seconds: float) -> float:
    """Milliseconds with two digits; ``round`` takes four times as long, to be right about ties."""
    return int(seconds * 1e5 + 0.5) / 100
