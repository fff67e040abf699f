"""The supervisor: one engine process kept alive by one owning task.

::

            start()                    died / kill()
    ┌─────────┐  ready  ┌───────┐ ───────────────▶ ┌────────────┐
    │ starting├────────▶│ ready │                  │ recovering │──┐ backoff, endless
    └────┬────┘         └───┬───┘ ◀─────────────── └─────┬──────┘◀─┘
         │ first load       │ stop()      ready          │ stop()
         ▼ fails            ▼                            ▼
      failed             stopping ─────▶ stopped ◀───────┘

The first load's failure is final, with the reason; every later death is recovered from. Only
the owning task changes the state; others ask through ``stop`` and ``kill``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Any, Literal, NoReturn, TypeVar

import msgspec

from helexa.core.errors import HelexaError, ServiceUnavailable
from helexa.neuron.engines.base import Address, Launch
from helexa.neuron.engines.logs import EngineLog, trouble
from helexa.neuron.engines.orphans import file_stem, group_of, record_path, write_record
from helexa.neuron.engines.process import EngineChild, exit_words, resident_mb

EngineState = Literal["starting", "ready", "recovering", "stopping", "stopped", "failed"]
T = TypeVar("T")


class EngineChange(msgspec.Struct, frozen=True):
    """A change of state: ``life`` counts processes started; ``reason`` is in words."""

    state: EngineState
    life: int
    reason: str | None = None
    address: Address | None = None
    retry_in_s: float | None = None


class SupervisorSettings(msgspec.Struct, frozen=True):
    """Bounds of one engine's life, in seconds.

    A process that was ready for ``steady_s`` before it died is restarted after
    ``backoff_min_s`` again.
    """

    start_deadline_s: float = 600.0
    backoff_min_s: float = 0.25
    backoff_max_s: float = 30.0
    steady_s: float = 60.0
    stop_grace_s: float = 5.0
    log_check_s: float = 10.0


def backoff(failures: int, settings: SupervisorSettings) -> float:
    """Seconds before the next start after ``failures`` (≥ 1) deaths in a row; doubles."""
    exponent = min(failures - 1, 30)
    return float(min(settings.backoff_max_s, settings.backoff_min_s * 2**exponent))


@dataclass(slots=True, frozen=True)
class EngineSpec:
    """What the supervisor is to keep alive.

    Args:
        engine: Its name, for records and logs.
        launch: Makes a fresh ``Launch`` (and key) for every start.
        probe: ``Engine.ready``, bound to the model: returns when it answers sanely.
    """

    engine: str
    model_id: str
    launch: Callable[[], Launch]
    probe: Callable[[Address], Awaitable[None]]


_LAST_WORDS_S = 2.0


class _Report(msgspec.Struct, frozen=True):
    """What an engine process says once (see ``lifeline``)."""

    port: int = 0
    uds: str | None = None
    error: str | None = None


class _Stop(Exception):
    """Somebody asked for the end."""


class _Died(Exception):
    """The process ended, or has to be ended; the message says why."""


class EngineProcess:
    """A supervised engine. ``start`` once, then read ``state`` and ``address``."""

    def __init__(
        self,
        spec: EngineSpec,
        state_dir: Path,
        *,
        settings: SupervisorSettings | None = None,
        on_change: Callable[[EngineChange], None] | None = None,
    ) -> None:
        self.spec = spec
        self.state: EngineState = "starting"
        self.reason: str | None = None
        self.address: Address | None = None
        self.life = 0
        self._settings = settings or SupervisorSettings()
        self._on_change = on_change
        stem = file_stem(spec.model_id)
        self.log = EngineLog(state_dir / "logs" / f"{stem}.log")
        self._record = record_path(state_dir, stem)
        self._child: EngineChild | None = None
        self._owner: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()
        self._killed_for: str | None = None
        self._failures = 0
        self._grace_s = self._settings.stop_grace_s

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._child.pid if self._child else None

    def pids(self) -> list[int]:
        """The ids of the running process and of those it has started."""
        return group_of(self._child.pid) if self._child else []

    def resident_mb(self) -> int:
        """Resident memory of its processes in MiB; 0 when none runs."""
        return resident_mb(self._child.pid) if self._child else 0

    async def start(self) -> Address:
        """Start the engine and return its address once it is ready.

        Cancelling this does not stop the engine; call ``stop``.

        Raises:
            HelexaError: The load failed (the message says why) or was stopped; it is final.
        """
        if self._owner is None:
            self._owner = asyncio.create_task(self._own(), name=f"engine {self.spec.model_id}")
        await self._settled.wait()
        if self.address is not None:
            return self.address
        raise ServiceUnavailable(self.reason or f"{self.spec.model_id} was stopped while loading")

    def kill(self, reason: str) -> None:
        """End the process at once, for the watchdog; it is restarted like after a crash."""
        self._killed_for = reason
        if self._child is not None:
            self._child.signal_group(SIGKILL)

    async def stop(self, grace_s: float | None = None) -> None:
        """End the engine and return when nothing of it is left; bounded, idempotent.

        Args:
            grace_s: Time between SIGTERM and SIGKILL.
        """
        if grace_s is not None:
            self._grace_s = grace_s
        self._stopping.set()
        if self._owner is None:
            self._change("stopped")
            return
        await asyncio.shield(self._owner)

    def _change(
        self, state: EngineState, reason: str | None = None, retry_in_s: float | None = None
    ) -> None:
        self.state, self.reason = state, reason
        if state != "ready":
            self.address = None
        if state in ("ready", "failed", "stopped"):
            self._settled.set()
        if self._on_change is not None:
            self._on_change(EngineChange(state, self.life, reason, self.address, retry_in_s))

    async def _own(self) -> None:
        """Life after life until somebody stops it, or the first one fails to begin."""
        self._change("starting")
        ever_ready = False
        with contextlib.suppress(_Stop):
            while True:
                reason = await self._live()
                ever_ready = ever_ready or self.state == "ready"
                if not ever_ready:
                    self._change("failed", reason)
                    return
                await self._pause(reason)
        self._change("stopped")

    async def _pause(self, reason: str) -> None:
        """Wait before the next life, doubling with every death in a row."""
        self._failures += 1
        delay = backoff(self._failures, self._settings)
        self._change("recovering", reason, delay)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stopping.wait()
                raise _Stop

    async def _live(self) -> str:
        """One process from start to end; returns why it died.

        Raises:
            _Stop: Somebody asked for the end, and the process is gone.
        """
        self.life += 1
        self._killed_for = None
        try:
            child = self._spawn()
        except HelexaError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - settings, names, a limit: a load must end
            return f"the engine process could not be started: {error}"
        grace_s = 0.0
        try:
            await self._serve(child)
        except _Died as death:
            status = await child.end()
            return _held(child) if child.stuck else self._describe(status, str(death))
        except _Stop:
            grace_s = self._grace_s
            self._change("stopping")
            raise
        finally:
            self._child = None
            await child.end(grace_s)
            with contextlib.suppress(OSError):  # it names a process that is gone
                self._record.unlink(missing_ok=True)

    def _spawn(self) -> EngineChild:
        log_fd = self.log.open()
        try:
            child = EngineChild(self.spec.launch(), log_fd, asyncio.get_running_loop())
        finally:
            os.close(log_fd)
        self._child = child
        write_record(self._record, child.pid, self.spec.engine, self.spec.model_id)
        return child

    async def _serve(self, child: EngineChild) -> NoReturn:
        """Wait for the address and the probe, then watch the process until it ends."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.start_deadline_s
        report = _parse_report(await self._race(child, child.report(), deadline))
        if report.error:
            with contextlib.suppress(TimeoutError):  # its log explains more, once it is written
                async with asyncio.timeout(_LAST_WORDS_S):
                    await child.wait()
            raise _Died(report.error)
        address = Address(port=report.port, uds=report.uds, api_key=child.api_key)
        await self._race(child, self._probe(address), deadline)
        self.address = address
        self._change("ready")
        ready_at = loop.time()
        while True:
            await self._race(child, child.wait(), loop.time() + self._settings.log_check_s, True)
            if child.exited or self._killed_for:  # a killed one may be held by the kernel
                raise _Died("")
            self.log.bound()
            if loop.time() - ready_at > self._settings.steady_s:
                self._failures = 0

    async def _probe(self, address: Address) -> None:
        try:
            await self.spec.probe(address)
        except HelexaError as error:
            raise _Died(error.message) from error
        except Exception as error:  # a server says what it likes, and a load waits for an outcome
            raise _Died(f"its first answer cannot be read: {error!r}") from error

    async def _race(
        self,
        child: EngineChild,
        work: Coroutine[None, None, T],
        until: float,
        patient: bool = False,
    ) -> T | None:
        """The result of ``work``, unless the process ends or a stop is asked for; what the process
        prints meanwhile is kept within bounds.

        Args:
            until: Loop time when it is late; ``patient`` then returns None instead of giving up.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        gone = loop.create_task(child.wait())
        stop = loop.create_task(self._stopping.wait())
        try:
            while True:
                left = max(0.0, until - loop.time())
                look = min(left, self._settings.log_check_s)
                done, _ = await asyncio.wait(
                    (task, gone, stop), timeout=look, return_when="FIRST_COMPLETED"
                )
                if done or look == left:
                    break
                self.log.bound()
            if gone.done() and not task.done():
                # Its last words may still be in the pipe.
                await asyncio.wait((task,), timeout=_LAST_WORDS_S)
            if stop.done():
                raise _Stop
            if task.done() and not (gone.done() and task.exception()):
                return task.result()
            if gone.done():
                raise _Died("")
            if patient:
                return None
            patience_s = self._settings.start_deadline_s
            raise _Died(f"its engine was not ready after {patience_s:g} s ([life] load_secs)")
        finally:
            await _cancel(task, gone, stop)

    def _describe(self, status: int, said: str) -> str:
        """Why a process ended: the watchdog's words, its own, or its status; and its log."""
        if self._killed_for:
            return f"the engine was ended: {self._killed_for}"
        words = said or f"the engine {exit_words(status)}"
        if status == -SIGKILL and not said:
            words += " (out of memory?)"
        log = trouble(self.log.tail())
        return f"{words}: {log}" if log and log not in words else words


def _held(child: EngineChild) -> str:
    """Why a process that was killed is still there."""
    return (
        f"the engine's process {child.pid} was killed and does not end: the kernel holds it, as a "
        "driver or a disk that hangs does. Look at dmesg; only a reboot may free its memory"
    )


def _parse_report(line: bytes | None) -> _Report:
    try:
        return msgspec.json.decode(line or b"", type=_Report)
    except msgspec.MsgspecError:
        raise _Died("") from None


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and wait, so that no task outlives its owner."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen
