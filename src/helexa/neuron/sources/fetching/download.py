"""The node's side of a download: a process, its reports, its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable

import msgspec

from helexa.core.errors import InternalError
from helexa.neuron.engines.environ import engine_environ
from helexa.neuron.sources.fetching.job import DownloadError, Event, Failed, Finished, Job, Told

WINDOW_S = 5.0
_WORKER = "helexa.neuron.sources.fetching.worker"
_TAIL = 2000


async def download(job: Job, model: str, told: Callable[[Told], None]) -> None:
    """Bring the files of ``job``; return when they are all here and checked.

    Cancelling it ends the process; what has arrived stays for the next attempt.

    Args:
        model: Shown in the process's command line.
        told: Called with every report.

    Raises:
        DownloadError: Why they cannot be had.
        InternalError: The process died.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _WORKER, "--model", model,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=engine_environ(os.environ),
        start_new_session=True,
    )  # fmt: skip
    try:
        ended = await _follow(process, job, told)
    finally:
        await _ended(process)
    if isinstance(ended, Failed):
        raise DownloadError(ended)
    if ended is None:
        said = await process.stderr.read() if process.stderr is not None else b""
        tail = said[-_TAIL:].decode(errors="replace").strip()
        raise InternalError(f"The download of {model} ended unexpectedly: {tail or 'no word'}")


async def _follow(
    process: asyncio.subprocess.Process, job: Job, told: Callable[[Told], None]
) -> Finished | Failed | None:
    """Hand the job over and pass reports on; the last event, None if there was none."""
    reads, writes = process.stdout, process.stdin
    if reads is None or writes is None:
        return None
    with contextlib.suppress(ConnectionError):
        writes.write(msgspec.json.encode(job) + b"\n")
        await writes.drain()
    decoder: msgspec.json.Decoder[Told | Finished | Failed] = msgspec.json.Decoder(Event)
    async for line in reads:
        event = decoder.decode(line)
        if not isinstance(event, Told):
            return event
        told(event)
    return None


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End the process's group and collect it, even if we are being cancelled."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    waiting = asyncio.ensure_future(process.wait())
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(waiting)


class Speed:
    """Bytes per second over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done: int) -> float:
        """The rate now that ``done`` bytes are here; 0 while that cannot be told."""
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # begun anew
        self._seen.append((now, done))
        while now - self._seen[0][0] > WINDOW_S and len(self._seen) > 2:
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now > since else 0.0
