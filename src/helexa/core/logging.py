"""Logs: one line per event, JSON for machines and columns for people, never in anybody's way.

::

    loop ──emit──▶ bounded queue ──▶ one thread ──one write per batch──▶ stderr
             │                 20 ms after a line; 200 ms while many come
             └─ full: counted in ``dropped``, said in the log when there is room again

Nothing that logs ever waits for the reader of the log. A line is encoded where it happens (about
2 µs with msgspec) because a thread that encodes would fight the event loop for the interpreter;
the thread only writes, which needs no interpreter. Waking it costs more than its lines do, so while
many come it is woken seldom. On a terminal structlog renders instead, and
is imported only there: it costs as much to import as the rest of the gateway.

The sink is the one thing in the project that belongs to the process and not to a caller.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import msgspec
from msgspec.structs import asdict

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_NAMES = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "error"}
_BATCH_SECS = 0.02
_BUSY_SECS = 0.2
_MANY = 3  # lines in a batch from which on the next may wait longer

Render = Callable[[dict[str, Any]], bytes]


class LogLine(msgspec.Struct, omit_defaults=True, gc=False):
    """Base of lines with fixed members, logged at ``info``; see ``Logger.stamp`` for ``ts``."""

    ts: str
    level: str
    event: str


class LogSink:
    """A bounded queue of lines and the thread that writes them.

    Args:
        level: Least level that is kept: ``debug``, ``info``, ``warning``, ``error``.
        stream: Where lines go; its file descriptor is written directly if it has one.
        bound: Lines that may wait.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        level: str,
        stream: TextIO,
        *,
        bound: int = 10_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.level = LEVELS[level]
        self.dropped = 0
        self._write = _writer(stream)
        self._pretty = stream.isatty()
        encoder = msgspec.json.Encoder(enc_hook=repr)
        self._encode, self._encode_lines = encoder.encode, encoder.encode_lines
        self._clock = clock
        self._second = 0
        self._stamp = ""
        self._bound = bound
        self._lines: deque[bytes | dict[str, Any]] = deque()  # in bytes also several, as written
        # Lines so far. Threads that log at once may lose one of each other: no bound is that exact.
        self._queued = 0
        self._taken = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._reported = 0
        self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
        self._thread.start()

    def emit(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """Queue one line; ``fields`` is not kept. Never blocks, never raises."""
        if level < self.level:
            return
        if self._room() <= 0:
            self.dropped += 1
            return
        self._queued += 1
        head = {"ts": self.stamp(), "level": _NAMES.get(level, "info"), "event": event}
        self._lines.append(self._shape(head | fields))
        if not self._wake.is_set():
            self._wake.set()

    def emit_lines(self, lines: Sequence[LogLine]) -> None:
        """Queue lines whose members are known beforehand: a quarter of the cost of ``emit``."""
        if self.level > LEVELS["info"]:
            return
        room = max(0, self._room())
        if len(lines) > room:
            self.dropped += len(lines) - room
            lines = lines[:room]
        if not lines:
            return
        self._queued += len(lines)
        try:
            if self._pretty:
                self._lines.extend([msgspec.to_builtins(line) for line in lines])
            else:  # one piece, without its last line break
                self._lines.append(self._encode_lines(lines)[:-1])
        except (TypeError, ValueError, UnicodeEncodeError):  # one of them: all by themselves, then
            self._lines.extend(self._shape(asdict(line)) for line in lines)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = 2.0) -> None:
        """Write what waits, for at most ``timeout`` seconds; later lines are dropped."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)

    def _room(self) -> int:
        """Lines that may still be queued."""
        return self._bound - (self._queued - self._taken)

    def _shape(self, line: dict[str, Any]) -> bytes | dict[str, Any]:
        if self._pretty:
            return line
        try:
            return self._encode(line)
        except (TypeError, ValueError, RecursionError, UnicodeEncodeError):
            return self._encode({key: repr(value) for key, value in line.items()})

    def stamp(self) -> str:
        """The time as lines show it."""
        now = self._clock()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._stamp}.{int((now - second) * 1000):03d}Z"

    def _drain(self) -> None:
        render = _console() if self._pretty else self._encode
        written = 0
        while True:
            self._wake.wait()
            self._closing.wait(_BATCH_SECS if written < _MANY else _BUSY_SECS)
            last = self._closing.is_set()
            self._wake.clear()
            written = self._write_batch(render)
            if last:
                return

    def _write_batch(self, render: Render) -> int:
        batch: list[bytes] = []
        while self._lines:
            line = self._lines.popleft()
            if isinstance(line, bytes):
                self._taken += 1 + line.count(b"\n")  # inside a line they are escaped
                batch.append(line)
            else:
                self._taken += 1
                batch.append(render(line))
        if self.dropped > self._reported:
            missing, self._reported = self.dropped - self._reported, self.dropped
            line = {"ts": self.stamp(), "level": "warning", "event": "log lines dropped"}
            batch.append(render(line | {"count": missing}))
        if batch:
            with contextlib.suppress(OSError, ValueError):  # nobody reads the log: go on serving
                self._write(b"\n".join(batch) + b"\n")
        return len(batch)


class Logger:
    """Writes events with bound fields: ``log.bind(model=m).info("loaded", seconds=0.1)``."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def bind(self, **fields: Any) -> Logger:
        """A logger that adds ``fields`` to every line."""
        return Logger(self._fields | fields)

    def debug(self, event: str, **fields: Any) -> None:
        """Detail for whoever looks for a fault."""
        _emit(10, event, self._fields | fields)

    def stamp(self) -> str:
        """What ``LogLine.ts`` of a line that is logged now says."""
        sink = _Process.sink
        return "" if sink is None else sink.stamp()

    def batch(self, lines: Sequence[LogLine]) -> None:
        """Lines with fixed members, for what is logged once per request."""
        sink = _Process.sink
        if sink is not None:
            sink.emit_lines(lines)

    def info(self, event: str, **fields: Any) -> None:
        """Something happened that an operator may want to know."""
        _emit(20, event, self._fields | fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Something is not as it should be and we go on."""
        _emit(30, event, self._fields | fields)

    def error(self, event: str, **fields: Any) -> None:
        """Something failed."""
        _emit(40, event, self._fields | fields)

    def exception(self, event: str, **fields: Any) -> None:
        """As ``error``, with the traceback of the exception being handled."""
        _emit(40, event, self._fields | fields | {"exception": traceback.format_exc()})


class _Process:
    """The sink of this process; lines before ``configure`` go nowhere."""

    sink: LogSink | None = None


def get_logger(**fields: Any) -> Logger:
    """A logger; cheap, and may be made before ``configure``."""
    return Logger(fields)


def dropped() -> int:
    """Lines that found the queue full since the process configured its log."""
    return 0 if _Process.sink is None else _Process.sink.dropped


def configure(
    level: str, stream: TextIO | None = None, *, clock: Callable[[], float] = time.time
) -> LogSink:
    """Start the sink of this process and lead Python's own logging into it.

    Args:
        level: A key of ``LEVELS``.
        stream: Standard error when None.

    Returns:
        The sink; whoever configured closes it.
    """
    sink = LogSink(level, sys.stderr if stream is None else stream, clock=clock)
    _Process.sink = sink
    root = logging.getLogger()
    root.handlers[:] = [_Bridge(sink)]
    root.setLevel(max(sink.level, logging.INFO))  # asyncio and friends are chatty at debug
    logging.captureWarnings(capture=True)
    return sink


def _emit(level: int, event: str, fields: dict[str, Any]) -> None:
    sink = _Process.sink
    if sink is not None:
        sink.emit(level, event, fields)


class _Bridge(logging.Handler):
    """Lines of libraries that use Python's logging."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info))
        self._sink.emit(record.levelno, record.getMessage(), fields)


def _writer(stream: TextIO) -> Callable[[bytes], object]:
    try:
        fd = stream.fileno()
    except (OSError, ValueError, io.UnsupportedOperation):
        return lambda data: stream.write(data.decode())

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    return write


def _console() -> Render:
    from structlog.dev import ConsoleRenderer  # noqa: PLC0415 - only a terminal pays for it

    renderer = ConsoleRenderer(colors=not os.environ.get("NO_COLOR"), pad_event_to=28)

    def render(line: dict[str, Any]) -> bytes:
        shown = {"timestamp": line.pop("ts"), **line}
        return renderer(None, "", shown).encode()

    return render
