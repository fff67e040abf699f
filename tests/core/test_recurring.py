from __future__ import annotations

import io
import json

from helexa.core.logging import configure, get_logger
from helexa.core.recurring import Recurring


def test_what_goes_on_failing_is_said_once_a_minute_and_when_it_is_over() -> None:
    stream, at = io.StringIO(), 0.0
    sink = configure("info", stream)
    trouble = Recurring(get_logger(), "cannot write", "written", lambda: at)
    trouble.succeeded()
    for second in range(150):
        at = float(second)
        trouble.failed(OSError(28, "No space left on device"))
    trouble.succeeded()
    trouble.succeeded()
    trouble.failed("again")
    sink.close()
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line.get("why")) for line in said] == [
        *[("cannot write", "[Errno 28] No space left on device")] * 3,
        ("written", None),
        ("cannot write", "again"),
    ]
