"""The header lines of an answer."""

from __future__ import annotations

from helexa.neuron.exchange.desk import Times
from helexa.wire.translation import Translation

JSON = b"content-type: application/json\r\n"
SSE = b"content-type: text/event-stream\r\ncache-control: no-store\r\nx-accel-buffering: no\r\n"


def id_lines(request_id: str, translation: Translation | None = None) -> bytes:
    """What the request is called, and what its dialect adds."""
    line = b"x-request-id: %b\r\n" % request_id.encode("latin-1", "replace")
    return line if translation is None else line + translation.lines


def queue_line(times: Times) -> bytes:
    """How long it waited for its seat."""
    return b"x-helexa-queue-ms: %d\r\n" % round((times.seated - times.received) * 1000)
