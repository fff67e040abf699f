"""One process group: started, watched through a pidfd, ended whole.

The leader is reaped only after its group was killed: while it is a zombie its id, and with it
the group's, cannot be reused, so the kill can never meet a stranger. Linux only (pidfd).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from pathlib import Path

from helexa.neuron.engines.base import Launch
from helexa.neuron.engines.orphans import group_of

KILLED_S = 30.0
"""A killed process that is not gone by then is held by the kernel: a driver or a disk hangs."""
_MAX_REPORT = 65_536


class EngineChild:
    """A started engine process, leader of its own session and group.

    Attributes:
        stuck: It was killed and did not end; it is collected when it does.
    """

    def __init__(self, launch: Launch, log_fd: int, loop: asyncio.AbstractEventLoop) -> None:
        """Start it (fork and exec, about a millisecond) and hand it its secret.

        Raises:
            OSError: It could not be started.
        """
        self._loop = loop
        self._popen = subprocess.Popen(
            launch.argv,
            env=launch.env,
            cwd=launch.cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_fd,
            bufsize=0,
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self.api_key = launch.api_key
        self._pidfd = os.pidfd_open(self.pid)
        self._exit: asyncio.Future[None] = loop.create_future()
        self._gone_by: float | None = None
        self.stuck = False
        loop.add_reader(self._pidfd, self._on_exit)
        if launch.memory_limit_mb is not None:
            limit = launch.memory_limit_mb << 20
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(self.pid, resource.RLIMIT_AS, (limit, limit))
        if self._popen.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._popen.stdin.write(launch.secret + b"\n")

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self._exit.done():
            self._exit.set_result(None)

    @property
    def exited(self) -> bool:
        """Whether the leader has ended (it may not have been reaped yet)."""
        return self._exit.done()

    async def wait(self) -> None:
        """Return when the leader has ended; safe to cancel."""
        await asyncio.shield(self._exit)

    async def report(self) -> bytes:
        """The first line the process writes to stdout; without newline if it ended before."""
        if self._popen.stdout is None:
            return b""
        fd = self._popen.stdout.fileno()
        os.set_blocking(fd, False)
        line: asyncio.Future[bytes] = self._loop.create_future()
        buffer = bytearray()

        def on_readable() -> None:
            with contextlib.suppress(BlockingIOError):
                piece = os.read(fd, 4096)
                buffer.extend(piece)
                if not piece or b"\n" in piece or len(buffer) > _MAX_REPORT:
                    self._loop.remove_reader(fd)
                    if not line.done():
                        line.set_result(bytes(buffer))

        self._loop.add_reader(fd, on_readable)
        try:
            return await line
        finally:
            self._loop.remove_reader(fd)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal every process of the group; nothing happens once it was reaped."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def end(self, grace_s: float = 0.0) -> int:
        """SIGTERM, SIGKILL after ``grace_s``, then collect; idempotent.

        Returns the exit status as ``subprocess`` writes it (negative for a signal). One that is
        not gone ``KILLED_S`` after its kill is left to the kernel: nobody waits for it any more.
        """
        if not self.exited and grace_s > 0:
            self.signal_group(signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.wait()
        self.signal_group(signal.SIGKILL)
        if not self.exited:
            self._gone_by = self._gone_by or self._loop.time() + KILLED_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._gone_by):
                    await self.wait()
        if not self.exited:
            if not self.stuck:
                self._exit.add_done_callback(lambda _: self._reap())
            self.stuck = True
            return -signal.SIGKILL
        return self._reap()

    def _reap(self) -> int:
        """Kill what is left of the group, collect the leader and close every descriptor."""
        self.signal_group(signal.SIGKILL)
        status = self._popen.wait()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
        return status


def exit_words(status: int) -> str:
    """An exit status in words, for example ``was killed by SIGSEGV``."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def resident_mb(leader: int) -> int:
    """Resident memory in MiB of an engine's processes, what they share counted once; 0 when they
    are gone."""
    members = group_of(leader)
    if len(members) > 1:
        return sum(_proportional_kb(pid) for pid in members) >> 10
    return _resident_mb(leader)


def _proportional_kb(pid: int) -> int:
    """One process's share of the memory it maps (``Pss`` of proc(5)), in KiB."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1])
    return 0


def _resident_mb(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize() >> 20
