"""What is told about a request: its record, its gateway, the metrics, one line in the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from helexa.core.fleet import RecordState, RequestRecord
from helexa.core.logging import LogLine
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.grants import GrantGate
from helexa.neuron.stream import Billed

if TYPE_CHECKING:
    from helexa.neuron.exchange.desk import Desk, Outcome
    from helexa.neuron.exchange.exchange import Exchange

FINAL: dict[Outcome, RecordState] = {
    "complete": "complete",
    "cut": "cut",
    "cancelled": "cancelled",
    "failed": "failed",
    "refused": "failed",
}
"""How a record ends."""

NOTHING = Billed(0, 0, 0, 0, 0)


def record_of(
    caller: Caller, model_id: str, state: RecordState, billed: Billed, gate: GrantGate
) -> RequestRecord:
    """The record as it stands."""
    return RequestRecord(  # by position: with names it takes five times as long
        caller.request_id,
        caller.attempt,
        caller.gateway or "",
        caller.epoch,
        model_id,
        state,
        gate.granted or 0,
        billed.prompt,
        billed.cached,
        billed.output,
        billed.reasoning,
        billed.discarded,
        caller.account_id,
        caller.key_id,
    )


def say_low(desk: Desk, caller: Caller, model_id: str, gate: GrantGate, needed: int) -> None:
    """Ask the gateway for more.

    Args:
        needed: Tokens that are missing right now; 0 while there are some left.
    """
    if caller.gateway is None:
        return
    desk.node.bus.publish(
        "grant_low",
        {
            "request_id": caller.request_id,
            "attempt": caller.attempt,
            "model": model_id,
            "granted": gate.granted,
            "used": gate.used,
            "needed": needed,
        },
        gateway=caller.gateway,
    )


def close_all(ended: Sequence[Exchange]) -> None:
    """Count and log requests that have ended; see ``Books``."""
    log = ended[0].desk.log
    stamp = log.stamp()
    lines: list[LogLine] = []
    for step in (_count, lambda exchange: lines.append(_line(exchange, stamp))):
        for exchange in ended:
            try:
                step(exchange)
            except Exception:  # the answer is out; what is left is bookkeeping
                log.exception("bug", request_id=exchange.caller.request_id)
    log.batch(lines)


def _count(exchange: Exchange) -> None:
    """Add the request to the metrics of its model."""
    model, times, billed = exchange.model, exchange.times, exchange.billed
    if model is None:
        return
    metrics = model.metrics
    metrics.requests.value += 1
    if exchange.error is not None:
        metrics.errors.inc()
    metrics.prompt_tokens.value += billed.prompt
    metrics.cached_tokens.value += billed.cached
    metrics.completion_tokens.value += billed.output
    exchange.desk.metrics.discarded.value += billed.discarded
    metrics.duration.observe(times.ended - times.received)
    if times.seated:
        metrics.queue.observe(times.seated - times.received)
    if times.first:
        metrics.first_token.observe(times.first - times.received)
        decoding = times.ended - times.first
        if billed.output > 1 and decoding > 0:
            metrics.tokens_per_second.observe((billed.output - 1) / decoding)
            metrics.inter_token.observe(decoding / (billed.output - 1))


class RequestLine(LogLine):
    """The one line that every request leaves, whatever became of it; never a word of the prompt.
    Milliseconds, and null for what has not happened."""

    role: str
    node: str
    request_id: str
    attempt: int
    route: str
    model: str
    stream: bool
    status: int
    outcome: str
    key_id: str
    gateway: str | None
    prompt: int
    cached: int
    output: int
    reasoning: int
    discarded: int
    queue_ms: float | None
    first_token_ms: float | None
    total_ms: float | None
    code: str | None = None
    error: str | None = None


def _line(exchange: Exchange, stamp: str) -> RequestLine:
    times, caller, billed = exchange.times, exchange.caller, exchange.billed
    model, error = exchange.model, exchange.error
    return RequestLine(
        stamp,
        "info",
        "request",
        "neuron",
        exchange.desk.node.name,
        caller.request_id,
        caller.attempt,
        exchange.route,
        "" if model is None else model.model_id,
        exchange.streams,
        exchange.reply.status,
        exchange.outcome,
        caller.key_id,
        caller.gateway,
        billed.prompt,
        billed.cached,
        billed.output,
        billed.reasoning,
        billed.discarded,
        times.ms(times.received, times.seated),
        times.ms(times.received, times.first),
        times.ms(times.received, times.ended),
        None if error is None else error.code,
        None if error is None else error.message,
    )


def cost(exchange: Exchange, state: RecordState) -> Billed:
    """What it costs as it stands."""
    if exchange.delivery is None:
        return NOTHING
    billed = exchange.delivery.stream.billed()
    if state == "failed" and (exchange.answer is None or not billed.output):
        return free_of_charge(billed)
    return billed


def free_of_charge(billed: Billed) -> Billed:
    """What we broke before the caller had any of it costs nothing; its tokens are thrown away."""
    return Billed(0, 0, 0, 0, billed.discarded + billed.output)
