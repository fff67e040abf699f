"""What is told about a request: its record, its gateway, the metrics, one line in the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helexa.core.fleet import RecordState, RequestRecord
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.desk import Desk, Outcome
from helexa.neuron.grants import GrantGate
from helexa.neuron.stream import Billed

if TYPE_CHECKING:
    from helexa.neuron.exchange.exchange import Exchange

_FINAL: dict[Outcome, RecordState] = {
    "complete": "complete",
    "cut": "cut",
    "cancelled": "cancelled",
    "failed": "failed",
    "refused": "failed",
}


def record_of(
    caller: Caller, model_id: str, state: RecordState, billed: Billed, gate: GrantGate
) -> RequestRecord:
    """The record as it stands."""
    return RequestRecord(
        request_id=caller.request_id,
        attempt=caller.attempt,
        gateway=caller.gateway or "",
        epoch=caller.epoch,
        model=model_id,
        state=state,
        granted=gate.granted or 0,
        prompt=billed.prompt,
        cached=min(billed.cached, billed.prompt),
        output=billed.output,
        reasoning=billed.reasoning,
        discarded=billed.discarded,
        account_id=caller.account_id,
        key_id=caller.key_id,
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


def count(exchange: Exchange, billed: RequestRecord) -> None:
    """Add the request to the metrics of its model."""
    model, times = exchange.model, exchange.times
    if model is None:
        return
    metrics = model.metrics
    metrics.requests.inc()
    if exchange.error is not None:
        metrics.errors.inc()
    metrics.prompt_tokens.inc(billed.prompt)
    metrics.cached_tokens.inc(billed.cached)
    metrics.completion_tokens.inc(billed.output)
    exchange.desk.metrics.discarded.inc(billed.discarded)
    metrics.duration.observe(times.ended - times.received)
    if times.seated:
        metrics.queue.observe(times.seated - times.received)
    if times.first:
        metrics.first_token.observe(times.first - times.received)
        decoding = times.ended - times.first
        if billed.output > 1 and decoding > 0:
            metrics.tokens_per_second.observe((billed.output - 1) / decoding)
            metrics.inter_token.observe(decoding / (billed.output - 1))


def log_line(exchange: Exchange, record: RequestRecord) -> None:
    """The one closing line; never a word of the prompt."""
    times, caller = exchange.times, exchange.caller
    fields: dict[str, object] = {
        "request_id": caller.request_id,
        "attempt": caller.attempt,
        "route": exchange.route,
        "model": record.model,
        "stream": exchange.asked is not None and exchange.asked.stream,
        "status": exchange.reply.status,
        "outcome": exchange.outcome,
        "key_id": caller.key_id,
        "gateway": caller.gateway,
        "prompt": record.prompt,
        "cached": record.cached,
        "output": record.output,
        "reasoning": record.reasoning,
        "discarded": record.discarded,
        "queue_ms": times.ms(times.received, times.seated),
        "first_token_ms": times.ms(times.received, times.first),
        "total_ms": times.ms(times.received, times.ended),
    }
    if exchange.error is not None:
        fields["code"] = exchange.error.code
        fields["error"] = exchange.error.message
    exchange.desk.log.info("request", **fields)


def final_state(outcome: Outcome) -> RecordState:
    """How a record ends."""
    return _FINAL[outcome]
