"""Processes: start, pin, ask what they cost, end.

CPU time is read from the kernel's per-process clock (nanoseconds, all threads, also those that
have ended), not from the ticks in ``/proc``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
LOAD_CORE, PROXY_CORE = 0, 1


class Failed(Exception):
    """A process did not start or did not do what it was started for."""


def end_cleanly() -> None:
    """Make SIGTERM unwind the stack, so that what was started is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def raise_descriptor_limit() -> None:
    """As many descriptors as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def tree(pids: Iterable[int]) -> list[int]:
    """These processes and all their descendants; a negative id is a process without them."""
    found: list[int] = []
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        found.append(abs(pid))
        if pid < 0:
            continue
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting.extend(int(child) for child in (task / "children").read_text().split())
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of these process trees so far."""
    total = 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            total += time.clock_gettime_ns((~pid << 3) | 2)  # CPUCLOCK_SCHED of another process
    return total / 1e9


def rss_bytes(pids: Iterable[int]) -> int:
    """Resident memory of these process trees."""
    total = 0
    for pid in tree(pids):
        with contextlib.suppress(OSError):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            total += pages * os.sysconf("SC_PAGESIZE")
    return total


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """This process, one of ours, does not run inside of this."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def free_port() -> int:
    """A port that was free a moment ago, for programs that cannot choose one themselves."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """``command`` on one core, where there are several."""
    if (os.cpu_count() or 1) < 2:
        return list(command)
    return ["taskset", "-c", str(core), *command]


class Process:
    """A started program in its own process group, with its log in a file.

    Args:
        log: Gets stderr; also stdout unless a ready line is expected.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        core: int | None = None,
        environ: Mapping[str, str] | None = None,
        ready_line: bool = False,
    ) -> None:
        self._log = log
        self.started = time.perf_counter()
        with log.open("ab") as sink:
            self._popen = subprocess.Popen(
                command if core is None else pinned(core, command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if ready_line else sink,
                stderr=sink,
                env=os.environ | (environ or {}),
                process_group=0,  # of its own, but in our session: niceness is per session
            )
        self.pid = self._popen.pid

    def ready(self, timeout: float = 30.0) -> dict[str, Any]:
        """The JSON line that the program prints once it serves.

        Raises:
            Failed: It ended or stayed silent; with the end of its log.
        """
        assert self._popen.stdout is not None
        readable, _, _ = select.select([self._popen.stdout], [], [], timeout)
        line = self._popen.stdout.readline() if readable else b""
        if not line:
            raise Failed(f"not ready after {timeout:.0f} s: {self.last_words()}")
        value: dict[str, Any] = json.loads(line)
        return value

    def last_words(self) -> str:
        """The end of the log."""
        return self._log.read_text(errors="replace")[-1500:]

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._popen.poll() is None

    def stop(self, patience: float = 5.0) -> None:
        """End the whole group."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(patience)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what the leader may have left behind
        if self._popen.stdout is not None:
            self._popen.stdout.close()
