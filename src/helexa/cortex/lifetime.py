"""What the gateway does beside requests: follow its files, and come to an orderly end."""

from __future__ import annotations

import asyncio
import signal
import ssl
from contextlib import suppress

from helexa.core.logging import Logger
from helexa.core.settings import SettingsError
from helexa.cortex.app import GatewayApp
from helexa.cortex.fleet.roster import NodesFile
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.profiles import ProfileFile
from helexa.relay.listener import Listener, Tls

FOLLOW_S = 2.0


def stop_signal(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def follow_files(
    profiles: ProfileFile, nodes: NodesFile, tls: Tls | None, metrics: CortexMetrics, log: Logger
) -> None:
    """Take in what changed in catalogue, nodes or certificate, until cancelled.

    Looked at every two seconds, and at once on SIGHUP; what cannot be used changes nothing.
    """
    failures = 0
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                await asked.wait()
        if profiles.refresh():
            log.info("catalogue reloaded", models=len(profiles.current.models))
        if profiles.failures > failures:
            metrics.catalogue_failures.inc(profiles.failures - failures)
            failures = profiles.failures
        await _follow_nodes(nodes, log, asked=asked.is_set())
        asked.clear()
        if tls is not None:
            _renew(tls, log)


async def _follow_nodes(nodes: NodesFile, log: Logger, *, asked: bool) -> None:
    try:
        changes = await nodes.refresh(asked=asked)
    except SettingsError as error:
        log.warning("changed nodes refused; they stay as they are", reason=str(error))
    else:
        if changes:
            log.info("nodes reloaded", changes=changes)


def _renew(tls: Tls, log: Logger) -> None:
    try:
        if tls.reload_if_changed():
            log.info("certificate reloaded")
    except (OSError, ssl.SSLError) as error:
        log.warning("certificate refused; the previous one stays", reason=str(error))


async def drain(listener: Listener, app: GatewayApp, secs: float) -> None:
    """Stop accepting, let answers finish for ``secs``, then end the rest in their own dialect."""
    closing = asyncio.create_task(listener.drain(secs + 2.0))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + secs
    while app.running and loop.time() < deadline:  # noqa: ASYNC110  # the deadline bounds it
        await asyncio.sleep(0.02)
    await app.cut()
    await closing
    app.flush()
