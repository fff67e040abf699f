"""The gateway's life: it listens, says so, serves until it is told to stop, and drains."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path

from helexa.cortex.build.gateway import Gateway, assemble
from helexa.cortex.build.ledger import forget_usage, recover
from helexa.cortex.build.residency import make_foresight
from helexa.cortex.exchange.reconcile import Reconciler
from helexa.cortex.fleet.roster import NodesFile
from helexa.cortex.keys.file import KeysFile
from helexa.cortex.lifetime import (
    Followed,
    drain,
    follow_files,
    stop_signal,
    told_to_stop,
)
from helexa.cortex.metrics_server import MetricsServer, serve_metrics
from helexa.cortex.settings import CortexSettings, split_listen
from helexa.cortex.unfollowed import UnfollowedFile
from helexa.relay.listener import local_url
from helexa.relay.process import (
    collect_when_quiet,
    freeze_heap,
    raise_descriptor_limit,
    watch_lag,
)

Announce = Callable[[dict[str, object]], None]


async def run(
    settings: CortexSettings,
    *,
    announce: Announce,
    path: Path | None = None,
    again: Callable[[], CortexSettings] | None = None,
    ending: Callable[[float], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        announce: Called once with the members of the ready line.
        path: Where the settings came from; its nodes and keys are followed while we run.
        again: Reads them anew; blocking.
        ending: Told when the drain begins, with the most that it takes (seconds).

    Raises:
        OSError: An address is taken or not ours.
        SettingsError: The configuration contradicts itself.
    """
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    gateway = assemble(settings, loop)
    await gateway.rooms.keyring.refresh()
    await gateway.front.listener.start(*split_listen(settings.gateway.listen))
    host, port = split_listen(settings.gateway.metrics_listen)
    exporter = await serve_metrics(gateway.parts.metrics.registry, host, port)
    stop = stop_signal(loop)
    followed = _followed(gateway, path, again or (lambda: settings))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chore) for chore in _chores(gateway, followed)]
        freeze_heap()
        metrics_url = f"{local_url(host, exporter.port)}/metrics"
        announce({"url": gateway.front.listener.url, "metrics_url": metrics_url})
        await told_to_stop(stop, gateway.front.listener, gateway.front.app)
        ending(settings.gateway.drain_secs)
        await drain(gateway.front.listener, gateway.front.app, settings.gateway.drain_secs)
        for task in tasks:
            task.cancel()
    await _close(gateway, exporter)


def _followed(
    gateway: Gateway, path: Path | None, again: Callable[[], CortexSettings]
) -> dict[str, Followed]:
    """The parts of cortex.toml that are followed, by what the log calls them."""
    rooms, environ = gateway.rooms, gateway.parts.environ
    return {
        "nodes": NodesFile(path, lambda: again().neurons, rooms.roster),
        "keys": KeysFile(path, lambda: again().entitlements, rooms.keyring, environ),
        "settings": UnfollowedFile(path, again, gateway.parts.settings, gateway.parts.log),
    }


def _chores(
    gateway: Gateway, followed: Mapping[str, Followed]
) -> tuple[Coroutine[None, None, None], ...]:
    """Everything that goes on beside the requests, until cancelled."""
    parts, rooms, front = gateway.parts, gateway.rooms, gateway.front
    reconciler = Reconciler(
        front.app.exchanges, rooms.fleet.api, rooms.fleet.snapshot, time.monotonic, parts.log
    )
    return (
        rooms.fleet.run(),
        rooms.residency.run(),
        make_foresight(parts, rooms.fleet, rooms.profiles).run(),
        rooms.settler.run(),
        rooms.remembered.run(),
        recover(parts, rooms.kept, rooms.keyring, rooms.fleet),
        rooms.kept.run(),
        rooms.keyring.follow(),
        forget_usage(parts, rooms.kept),
        reconciler.run(),
        follow_files(rooms.profiles, followed, front.listener.tls, parts.metrics, parts.log),
        watch_lag(parts.metrics.lag.observe),
        collect_when_quiet(lambda: front.app.running),
    )


async def _close(gateway: Gateway, exporter: MetricsServer) -> None:
    """Keep what is to be kept, and close what is open, once nothing runs any more."""
    rooms, keeper = gateway.rooms, gateway.front.keeper
    await rooms.remembered.keep()
    if keeper is not None:
        await keeper.aclose()
    await exporter.close()
    await rooms.kept.close(clean=not rooms.settler.waiting)
    rooms.links.close()
