"""The engine process's side of the pipe to its neuron.

The neuron writes one line of JSON to stdin and never closes it; the process writes one line of
JSON to stdout: ``{"port": 40123}``, ``{"uds": "/run/…"}`` or ``{"error": "why"}``. When stdin
ends the neuron is gone, however it went, and the whole group ends: the kernel is asked to send
the SIGKILL itself, because an engine that loads holds the interpreter for minutes, and one that
was stopped runs no code at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import threading
from typing import Any

_STDIN, _STDOUT, _STDERR = 0, 1, 2


def receive() -> dict[str, Any]:
    """Read the configuration from the neuron (blocking, up to the first newline)."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(_STDIN, 65536)
        if not piece:
            sys.exit("the neuron closed the pipe before it sent a configuration")
        line += piece
    config: dict[str, Any] = json.loads(line)
    return config


def watch() -> None:
    """From now on the process group ends with the pipe."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(_STDIN, fcntl.F_SETSIG, signal.SIGKILL)  # fcntl(2): instead of SIGIO,
        fcntl.fcntl(_STDIN, fcntl.F_SETOWN, -os.getpgid(0))  # to the whole group,
        flags = fcntl.fcntl(_STDIN, fcntl.F_GETFL)
        fcntl.fcntl(_STDIN, fcntl.F_SETFL, flags | os.O_ASYNC)  # when the pipe changes state
    # If the neuron went before that, or the kernel has no such thing, a thread notices.
    threading.Thread(target=_wait_for_the_end, name="lifeline", daemon=True).start()


def _wait_for_the_end() -> None:
    with contextlib.suppress(OSError):
        while os.read(_STDIN, 4096):
            pass
    os.killpg(0, signal.SIGKILL)


class Report:
    """The one line that goes back. Taken first thing, because stdout then becomes the log:
    whatever a library prints cannot be mistaken for the report."""

    def __init__(self) -> None:
        self._fd = os.dup(_STDOUT)
        os.set_inheritable(self._fd, False)
        os.dup2(_STDERR, _STDOUT)

    def send(self, message: dict[str, object]) -> None:
        """Send the line and close."""
        os.write(self._fd, json.dumps(message).encode() + b"\n")
        os.close(self._fd)
