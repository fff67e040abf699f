"""What the gateway does beside requests: follow its files, and come to an orderly end."""

from __future__ import annotations

import asyncio
import signal
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from helexa.core.logging import Logger
from helexa.core.settings import SettingsError
from helexa.cortex.app import GatewayApp
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.profiles import ProfileFile
from helexa.relay.listener import Listener, Tls

FOLLOW_S = 2.0
PATIENCE_S = 1.0
"""How long a kept connection must have been silent before a gateway that ends closes it."""


def stop_signal(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


class Followed(Protocol):
    """A part of cortex.toml that is followed while we run."""

    async def refresh(self, *, asked: bool = False) -> list[str]:
        """Take over what changed; what that was, in words.

        Raises:
            SettingsError: The file cannot be used; nothing is changed.
        """


async def follow_files(
    profiles: ProfileFile,
    parts: Mapping[str, Followed],
    tls: Tls | None,
    metrics: CortexMetrics,
    log: Logger,
) -> None:
    """Take in what changed in catalogue, cortex.toml or certificate, until cancelled.

    Args:
        parts: Of cortex.toml, by what the log calls them.

    Looked at every two seconds, and at once on SIGHUP; what cannot be used changes nothing.
    """
    failures, refused = 0, ""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(FOLLOW_S):
                await asked.wait()
        _look_at_catalogue(profiles, log)
        if profiles.failures > failures:
            metrics.catalogue_failures.inc(profiles.failures - failures)
            failures = profiles.failures
        now = asked.is_set()
        asked.clear()
        for name, part in parts.items():
            await _follow(name, part, log, asked=now)
        if tls is not None:
            refused = _renew(tls, log, refused)


def _look_at_catalogue(profiles: ProfileFile, log: Logger) -> None:
    try:
        if profiles.refresh():
            log.info("catalogue reloaded", models=len(profiles.current.models))
    except Exception as error:  # no file may end what is being served
        log.exception("bug", what="catalogue", error=repr(error))


async def _follow(name: str, part: Followed, log: Logger, *, asked: bool) -> None:
    try:
        changes = await part.refresh(asked=asked)
    except SettingsError as error:
        what = f"changed {name} refused; they stay as they are"
        log.warning(what, reason=str(error))
    except Exception as error:  # no file may end what is being served
        log.exception("bug", what=name, error=repr(error))
    else:
        if changes:
            what = f"{name} reloaded"
            log.info(what, changes=changes)


def _renew(tls: Tls, log: Logger, refused: str) -> str:
    """Take a renewed certificate; returns why it was refused, which is said once."""
    try:
        if tls.reload_if_changed():
            log.info("certificate reloaded")
    except (OSError, ssl.SSLError) as error:
        if str(error) != refused:
            log.warning("certificate refused; the previous one stays", reason=str(error))
        return str(error)
    return ""


async def told_to_stop(stop: asyncio.Event, listener: Listener, app: GatewayApp) -> None:
    """Wait for ``stop`` among the chores of a task group.

    When one of them fails the group cancels us, and the process is about to end; what runs is
    ended in its own dialect first, so that no stream breaks off without a word.
    """
    try:
        await stop.wait()
    except asyncio.CancelledError:
        await drain(listener, app, 0.0)
        raise


async def drain(listener: Listener, app: GatewayApp, secs: float) -> None:
    """Stop accepting, let answers finish for ``secs``, then end the rest in their own dialect.

    What comes on connections that proxies and clients have kept is still answered, for a moment.
    """
    closing = asyncio.create_task(listener.drain(secs + 2.0, min(PATIENCE_S, secs)))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + secs
    while loop.time() < deadline:
        await asyncio.sleep(0.02)
        if not app.running and not listener.connections.idle:
            break
    await app.cut()
    await closing
    app.flush()
