"""Wires the bench: the only place that names concrete classes.

::

    run     API and sweeps, until SIGTERM          serve   API only
    once    one sweep, then its outcome            report  the store in words
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from helexa.bench.api.app import Questions, bench_app
from helexa.bench.report import answers
from helexa.bench.report.text import Report
from helexa.bench.scenarios.build import scenarios
from helexa.bench.settings import BenchSettings
from helexa.bench.store.reader import Reader
from helexa.bench.store.schema import StoreError
from helexa.bench.store.store import Store
from helexa.bench.sweep.alone import SweepUnderWay, alone
from helexa.bench.sweep.runner import Outcome, Progress, Sweep
from helexa.bench.targets.base import Target
from helexa.bench.targets.neuron import NeuronTarget
from helexa.bench.targets.openai import OpenaiTarget
from helexa.core.logging import get_logger
from helexa.core.settings import SettingsError
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import BadRequest, Limits
from helexa.relay.listener import Listener
from helexa.relay.reply import Reply
from helexa.relay.request import Request
from helexa.relay.wheel import Wheel

Announce = Callable[[dict[str, object]], None]
_BODY_LIMIT = 64 * 1024
_DRAIN_S = 2.0
_KINDS: dict[str, type[NeuronTarget | OpenaiTarget]] = {
    "neuron": NeuronTarget,
    "openai": OpenaiTarget,
}


def targets(
    settings: BenchSettings, environ: Mapping[str, str], bench_version: str
) -> list[Target]:
    """Every target of the settings.

    Raises:
        SettingsError: There is none, or one cannot be asked.
    """
    if not settings.targets:
        raise SettingsError(
            "there are no [[targets]]; name one in a settings file (--config), for example\n"
            '[[targets]]\nname = "here"\nkind = "neuron"\nendpoint = "http://127.0.0.1:13131"'
        )
    found: list[Target] = []
    for one in settings.targets:
        try:
            found.append(
                _KINDS[one.kind](
                    one, one.key(environ), settings.bench.request_timeout_secs, bench_version
                )
            )
        except ValueError as error:
            raise SettingsError(f"targets: {one.name!r}: {error}") from error
    return found


async def sweep_once(
    settings: BenchSettings,
    environ: Mapping[str, str],
    progress: Progress,
    bench_version: str,
) -> Outcome:
    """One sweep over everything that is due.

    Raises:
        SettingsError: Targets, scenarios or the store cannot be used.
        SweepUnderWay: Another process measures into the store.
    """
    found, wanted = targets(settings, environ, bench_version), scenarios(settings.scenarios)
    path = settings.database(environ)
    store = Store(path)
    try:
        with alone(path):
            return await Sweep(settings, found, wanted, store, progress, time.time).run()
    finally:
        store.close()


async def once(
    settings: BenchSettings,
    environ: Mapping[str, str],
    progress: Progress,
    bench_version: str,
) -> Outcome | None:
    """``sweep_once``, which a SIGTERM ends as a Ctrl-C would: None then, and nothing half taken."""
    sweeping = asyncio.create_task(sweep_once(settings, environ, progress, bench_version))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, sweeping.cancel)
    await asyncio.wait([sweeping])
    return None if sweeping.cancelled() else sweeping.result()


async def run(
    settings: BenchSettings,
    environ: Mapping[str, str],
    *,
    announce: Announce,
    version: str,
    progress: Progress | None,
) -> None:
    """Serve the API until SIGTERM or SIGINT; with ``progress``, sweep all the while.

    Raises:
        OSError: The address is taken.
        SettingsError: Something in the settings cannot be used.
    """
    path = settings.database(environ)
    with contextlib.ExitStack() as kept:
        if progress is not None:
            targets(settings, environ, version)  # what cannot be measured stops the start
            scenarios(settings.scenarios)
            # While one has it open, reading it makes no files, for which a full disk has no room.
            kept.enter_context(contextlib.closing(Store(path)))
        await _serve(settings, environ, announce, version, progress)


async def _serve(
    settings: BenchSettings,
    environ: Mapping[str, str],
    announce: Announce,
    version: str,
    progress: Progress | None,
) -> None:
    path = settings.database(environ)
    listener = await _listen(settings, path, version) if settings.api.enabled else None
    announce({"url": listener.url if listener is not None else None})
    stop = _stop_signal()
    sweeping = asyncio.create_task(_sweep_on(settings, environ, progress, version))
    await asyncio.wait([asyncio.create_task(stop.wait()), sweeping], return_when="FIRST_COMPLETED")
    sweeping.cancel()
    if listener is not None:
        await listener.drain(_DRAIN_S)
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping


async def _sweep_on(
    settings: BenchSettings,
    environ: Mapping[str, str],
    progress: Progress | None,
    version: str,
) -> None:
    if progress is None:
        await asyncio.Event().wait()
        return
    pause_s = settings.bench.sweep_interval_secs
    while True:
        try:
            await sweep_once(settings, environ, progress, version)
        except SweepUnderWay as error:
            progress.note(str(error))
        except (StoreError, OSError) as error:
            # What is stored is still worth its pages, and a disk does not stay full.
            progress.note(f"{error}; what is stored stays, and the next try is in {pause_s:g} s")
        await asyncio.sleep(pause_s)


async def _listen(settings: BenchSettings, path: Path, version: str) -> Listener:
    loop = asyncio.get_running_loop()
    bridge = AsgiBridge(bench_app(Questions(path, settings, version)), _bug)
    listener = Listener(_App(bridge), Wheel(loop), loop, Limits(body_bytes=_BODY_LIMIT))
    host, _, port = settings.api.listen.rpartition(":")
    await listener.start(host.strip("[]"), int(port))
    return listener


class _App:
    """The bench as a server application: everything goes to Starlette."""

    def __init__(self, bridge: AsgiBridge) -> None:
        self._bridge = bridge

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request."""
        self._bridge.handle(request, reply)

    def refuse(self, error: BadRequest) -> tuple[bytes, bytes]:
        """A request that is no acceptable HTTP."""
        return b"content-type: text/plain\r\n", error.message.encode()


def _bug(request: Request, error: Exception) -> tuple[bytes, bytes]:
    get_logger().error("bug", path=request.decoded_path, error=repr(error))
    return (
        b"content-type: application/json\r\n",
        b'{"error":{"code":"internal_error","message":"a bug; its trace is in the log"}}',
    )


def _stop_signal() -> asyncio.Event:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    return stop


def report(path: Path, *, show_host: bool = False) -> Report:
    """Everything that a report shows.

    Raises:
        StoreError: The store cannot be read.
    """
    found = answers.judged(Reader(path).newest_cells())
    return Report(
        time.time(),
        answers.summary(found, show_host=show_host),
        found.worse,
        answers.concurrency(found.cells, show_host=show_host),
        answers.scaling(found.cells, show_host=show_host),
    )
