"""The header lines of an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helexa.cortex.exchange.limits import limit_lines
from helexa.cortex.exchange.route import EXPOSED
from helexa.relay.attempt import Attempt
from helexa.wire.errors import Dialect

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

CORS = b"access-control-allow-origin: *\r\naccess-control-expose-headers: %b\r\n" % (
    ", ".join(EXPOSED).encode()
)


def head_lines(exchange: Exchange, lines: bytes) -> bytes:
    """``lines`` and those that every answer carries, a refusal too."""
    lines += id_lines(exchange.shown_id, exchange.route.dialect)
    if exchange.translation is not None:
        lines += exchange.translation.lines
    if b"origin" in exchange.head.headers:
        lines += CORS
    sender, desk = exchange.sender, exchange.desk
    if sender is not None and sender.limited:
        lines += limit_lines(exchange.principal, desk.seats, desk.ledger, lines)
    return lines


def id_lines(shown_id: str, dialect: Dialect) -> bytes:
    """What the request is called, under the names by which its client's SDK looks for it."""
    value = shown_id.encode("latin-1")
    lines = b"x-request-id: %b\r\n" % value
    return lines + b"request-id: %b\r\n" % value if dialect == "anthropic" else lines


def answer_lines(exchange: Exchange, attempt: Attempt | None) -> bytes:
    """Headers that say where the answer comes from and what is known of its time."""
    placed, times = exchange.placed, exchange.times
    if placed is None or attempt is None:
        return b""
    told = more = b""
    for name, value in attempt.headers:
        if name == b"x-helexa-queue-ms":
            more += b"x-helexa-queue-ms: %b\r\n" % value
            told += b", queue;dur=" + value
            times.queued = int(value) / 1000 if value.isdigit() else 0.0
        elif name == b"server-timing":
            told += b", " + value
    if placed.cold:
        more += b"x-helexa-cold-start: true\r\n"
        load = times.placed - times.granted - times.retried
        told += b", load;dur=%.1f" % (load * 1000)
    return b"x-helexa-node: %b\r\nserver-timing: gateway;dur=%.1f, upstream;dur=%.1f%b\r\n%b" % (
        placed.node.encode("latin-1", "replace"),
        (times.placed - times.received) * 1000,
        ((attempt.first_at or exchange.desk.now()) - times.placed) * 1000,
        told,
        more,
    )
