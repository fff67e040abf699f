from __future__ import annotations

import io
import json
import logging
import os
import pty
import threading
import time
import warnings
from typing import Any

import pytest

from helexa.core.logging import LogLine, LogSink, configure, get_logger
from helexa.core.settings import Secret

pytestmark = pytest.mark.usefixtures("own_logging")


class Stuck(io.StringIO):
    """A log that nobody reads: the first write waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        self.released.wait(60)
        return super().write(text)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_event_and_fields() -> None:
    stream = io.StringIO()
    sink = configure("info", stream, clock=lambda: 1_700_000_000.5)
    get_logger(role="cortex").bind(node="a").info("relayed", tokens=3)
    get_logger().debug("not shown")
    sink.close()
    assert "log" not in [thread.name for thread in threading.enumerate()]
    assert lines(stream) == [
        {
            "ts": "2023-11-14T22:13:20.500Z",
            "level": "info",
            "event": "relayed",
            "role": "cortex",
            "node": "a",
            "tokens": 3,
        }
    ]


def test_what_json_cannot_say_is_shown_and_secrets_stay_masked() -> None:
    stream = io.StringIO()
    sink = configure("info", stream)
    get_logger().info("odd", key=Secret("hunter"), thing={1, 2}, text="\ud800", big=2**70)
    sink.close()
    assert "hunter" not in stream.getvalue()
    assert len(lines(stream)) == 1


def test_an_exception_brings_its_traceback_on_one_line() -> None:
    stream = io.StringIO()
    sink = configure("info", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        get_logger().exception("failed")
    sink.close()
    assert "ValueError: broken" in lines(stream)[0]["exception"]


def test_libraries_and_warnings_come_the_same_way() -> None:
    stream = io.StringIO()
    sink = configure("info", stream)
    logging.getLogger("asyncio").warning("slow %s", "callback")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    sink.close()
    shown = lines(stream)
    assert (shown[0]["event"], shown[0]["logger"]) == ("slow callback", "asyncio")
    assert shown[1]["logger"] == "py.warnings"


def test_a_log_nobody_reads_costs_lines_not_time() -> None:
    stream = Stuck()
    sink = LogSink("info", stream, bound=10)
    sink.emit(20, "first", {})
    assert stream.entered.wait(30)
    for number in range(25):
        sink.emit(20, "more", {"n": number})
    assert sink.dropped == 15
    stream.released.set()
    sink.close()
    shown = lines(stream)
    assert [line["event"] for line in shown].count("more") == 10
    assert shown[-1]["event"] == "log lines dropped"
    assert shown[-1]["count"] == 15


def test_closing_does_not_wait_for_a_reader_that_never_comes() -> None:
    stream = Stuck()
    sink = LogSink("info", stream)
    sink.emit(20, "first", {})
    assert stream.entered.wait(30)
    sink.close(timeout=0.05)
    stream.released.set()


def test_every_line_of_many_threads_arrives_whole() -> None:
    read, write = os.pipe()
    stream = os.fdopen(write, "w")
    sink = LogSink("info", stream)

    def work(worker: int) -> None:
        for number in range(200):
            sink.emit(20, "x" * 50, {"worker": worker, "n": number})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    got: list[bytes] = []

    def collect() -> None:
        with os.fdopen(read, "rb") as pipe:
            got.extend(pipe)

    reader = threading.Thread(target=collect)
    for thread in (reader, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    sink.close()
    stream.close()
    reader.join()
    seen = [json.loads(line) for line in got]
    assert len(seen) == 800
    for worker in range(4):
        assert [s["n"] for s in seen if s["worker"] == worker] == list(range(200))


def test_a_terminal_gets_columns_instead_of_json() -> None:
    parent, child = pty.openpty()
    with os.fdopen(child, "w") as terminal:
        sink = LogSink("info", terminal)
        sink.emit(20, "loaded", {"model": "helexa/spark"})
        sink.close()
        shown = os.read(parent, 10_000).decode()
    os.close(parent)
    assert "loaded" in shown
    assert not shown.startswith("{")


class Told(LogLine):
    who: str
    what: str | None = None


def told(*who: str) -> list[LogLine]:
    return [Told("2023-11-14T22:13:20.500Z", "info", "told", name) for name in who]


def test_a_batch_is_logged_in_order_and_what_is_beyond_the_bound_is_counted() -> None:
    stream = Stuck()
    sink = LogSink("info", stream, bound=3, clock=lambda: 1_700_000_000.5)
    sink.emit_lines(told("first"))
    assert stream.entered.wait(30)  # the thread has taken it and is stuck with it
    sink.emit_lines(told("a", "b"))
    sink.emit_lines(told("c", "d", "e"))
    assert sink.dropped == 2
    stream.released.set()
    sink.close()
    shown = lines(stream)
    assert [line["who"] for line in shown if "who" in line] == ["first", "a", "b", "c"]
    assert shown[0] == {
        "ts": "2023-11-14T22:13:20.500Z",
        "level": "info",
        "event": "told",
        "who": "first",
    }
    assert {"event": "log lines dropped", "count": 2}.items() <= shown[-1].items()


def test_a_batch_that_was_written_makes_room_for_as_many_lines() -> None:
    stream = io.StringIO()
    sink = LogSink("info", stream, bound=3)
    for batch in range(1, 6):
        sink.emit_lines(told("a", "line\nbreak", "c"))
        deadline = time.monotonic() + 30
        while len(stream.getvalue().splitlines()) < 3 * batch and time.monotonic() < deadline:
            time.sleep(0.001)
    sink.close()
    assert sink.dropped == 0
    assert [line["who"] for line in lines(stream)] == ["a", "line\nbreak", "c"] * 5


def test_a_line_of_a_batch_that_json_cannot_say_does_not_take_the_others_along() -> None:
    stream = io.StringIO()
    sink = LogSink("info", stream)
    sink.emit_lines(told("a", "\ud800", "b"))
    sink.close()
    assert [line["who"] for line in lines(stream)] == ["a", "'\\ud800'", "b"]
