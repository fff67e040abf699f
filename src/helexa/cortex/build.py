"""Wires the gateway: the only place that names concrete classes.

::

    settings ─▶ parts ─▶ listen ─▶ ready line ─▶ serve ─▶ SIGTERM ─▶ drain ─▶ nothing left
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass

from helexa.core.fleet import RequestRecord
from helexa.core.ids import id_source
from helexa.core.logging import Logger, get_logger
from helexa.cortex.app import AsgiErrors, GatewayApp
from helexa.cortex.auth import key_table
from helexa.cortex.exchange.desk import Desk
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.fleet.client import HttpNode, Trust
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.ledger.base import Settled
from helexa.cortex.ledger.memory import MemoryLedger
from helexa.cortex.links import Links
from helexa.cortex.metrics import CortexMetrics, watch_lag
from helexa.cortex.metrics_server import serve_metrics
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.residency.loader import Loader
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer
from helexa.cortex.seats import KeySeats
from helexa.cortex.settings import (
    DEFAULT_MODELS_PATH,
    CortexSettings,
    NeuronSettings,
    split_listen,
)
from helexa.relay.asgi import AsgiBridge
from helexa.relay.attempt import Deadlines
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener, Tls
from helexa.relay.process import freeze_heap, raise_descriptor_limit
from helexa.relay.wheel import Wheel

Announce = Callable[[dict[str, object]], None]


@dataclass(slots=True)
class Parts:
    """The gateway's rooms, joined."""

    settings: CortexSettings
    fleet: Fleet
    profiles: ProfileFile
    loader: Loader
    placer: FleetPlacer
    settler: Settler
    metrics: CortexMetrics
    desk: Desk
    app: GatewayApp
    listener: Listener
    links: Links
    log: Logger


async def run(settings: CortexSettings, *, announce: Announce) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        announce: Called once with the members of the ready line.

    Raises:
        OSError: An address is taken or not ours.
        SettingsError: The configuration contradicts itself.
    """
    raise_descriptor_limit()
    parts = assemble(settings, asyncio.get_running_loop())
    host, port = split_listen(settings.gateway.listen)
    await parts.listener.start(host, port)
    metrics_host, metrics_port = split_listen(settings.gateway.metrics_listen)
    exporter = await serve_metrics(parts.metrics.registry, metrics_host, metrics_port)
    shown = "127.0.0.1" if metrics_host in ("0.0.0.0", "::") else metrics_host
    stop = _stop_signal(asyncio.get_running_loop())
    async with asyncio.TaskGroup() as group:
        housekeeping = (
            parts.fleet.run(),
            parts.settler.run(),
            _follow_files(parts),
            watch_lag(parts.metrics.lag.observe),
        )
        tasks = [group.create_task(chore) for chore in housekeeping]
        freeze_heap()
        announce(
            {"url": parts.listener.url, "metrics_url": f"http://{shown}:{exporter.port}/metrics"}
        )
        await stop.wait()
        await _drain(parts)
        for task in tasks:
            task.cancel()
    await parts.loader.aclose()
    await exporter.close()
    parts.links.close()


def assemble(settings: CortexSettings, loop: asyncio.AbstractEventLoop) -> Parts:
    """Make every room; nothing listens or connects yet."""
    log = get_logger()
    epoch = time.time_ns() // 1_000_000
    name = f"{socket.gethostname()}-{settings.gateway.listen.rpartition(':')[2]}"
    secret = settings.fleet.resolve(os.environ)
    revealed = secret.reveal() if secret is not None else None
    wheel = Wheel(loop)
    metrics = CortexMetrics()
    ledger = MemoryLedger(
        time.time,
        lease_s=settings.ledger.lease_secs,
        hold_wait_s=settings.ledger.grant_wait_ms / 1000,
    )
    links = Links(
        wheel,
        loop,
        gateway=f"{name}/{epoch}",
        secret=revealed,
        connect_secs=settings.timeouts.connect,
    )
    settler = Settler(
        ledger,
        lambda node: fleet.api(node),
        booked=lambda settled: _booked(metrics, settled),
        slice_tokens=settings.ledger.slice_tokens,
        lease_s=settings.ledger.lease_secs,
        gateway=name,
        epoch=epoch,
    )
    fleet = Fleet(
        now=time.time,
        rng=random.Random(),
        on_grant_low=settler.on_grant_low,
        on_request_end=lambda node, record: _request_end(settler, metrics, node, record),
    )
    for node in settings.neurons:
        context = _tls_context(node)
        links.add(node.name, node.endpoint, context)
        trust = Trust(f"{name}/{epoch}", revealed)
        fleet.add(node.name, node.endpoint, HttpNode(node.endpoint, trust, context))
    profiles = _profiles(settings, log)
    loader = Loader(fleet, loop.time)
    placer = FleetPlacer(
        profiles, fleet, loader, LeaseTable(), max_wait_s=settings.residency.max_wait_secs
    )
    keys = key_table(settings.entitlements, os.environ, time.time)
    desk = Desk(
        keys=keys,
        seats=KeySeats(loop.time),
        ledger=ledger,
        placer=placer,
        links=links,
        settler=settler,
        metrics=metrics,
        observers=Nobody(),
        wheel=wheel,
        loop=loop,
        deadlines=Deadlines(
            first_byte=settings.timeouts.first_byte, between_bytes=settings.timeouts.between_bytes
        ),
        ids=id_source(),
        log=log,
        now=time.monotonic,
        commit_s=settings.gateway.commit_ms / 1000,
        retries=settings.routing.retries,
        slice_tokens=settings.ledger.slice_tokens,
    )
    app = GatewayApp(desk, AsgiBridge(interim_management(fleet, profiles), AsgiErrors(log)))
    limits = Limits(body_bytes=settings.gateway.max_body_mb * 1024 * 1024)
    listener = Listener(app, wheel, loop, limits, _tls(settings))
    return Parts(
        settings,
        fleet,
        profiles,
        loader,
        placer,
        settler,
        metrics,
        desk,
        app,
        listener,
        links,
        log,
    )


def interim_management(fleet, profiles):
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route
    import msgspec
    from helexa.cortex.catalogue import health, listing
    async def models(request):
        data = listing(profiles.current, fleet.snapshot(), 0)
        return Response(msgspec.json.encode({"object": "list", "data": data}), media_type="application/json")
    async def healthy(request):
        return Response(msgspec.json.encode(health(fleet.snapshot())), media_type="application/json")
    return Starlette(routes=[Route("/health", healthy), Route("/v1/models", models)])


class Nobody:
    def finished(self, exchange): pass
    def watch(self, principal, model, request_id): return None


def _profiles(settings: CortexSettings, log: Logger) -> ProfileFile:
    def refused(why: str) -> None:
        log.warning("catalogue refused; the previous one stays", reason=why)

    path = settings.models_config
    if path is not None:
        return ProfileFile.open(path, refused)
    if DEFAULT_MODELS_PATH.exists():
        return ProfileFile.open(DEFAULT_MODELS_PATH, refused)
    log.warning("no catalogue; only what nodes have loaded is served", path=str(DEFAULT_MODELS_PATH))
    return ProfileFile(DEFAULT_MODELS_PATH, Profiles(), refused)


def _tls(settings: CortexSettings) -> Tls | None:
    gateway = settings.gateway
    if gateway.tls_cert is None or gateway.tls_key is None:
        return None
    return Tls(gateway.tls_cert, gateway.tls_key)


def _tls_context(node: NeuronSettings) -> ssl.SSLContext | None:
    if not node.endpoint.startswith("https://"):
        return None
    return ssl.create_default_context(cafile=node.ca)


def _booked(metrics: CortexMetrics, settled: Settled) -> None:
    """Count what was settled on a node's word alone."""
    key = metrics.key(settled.account_id, settled.key_id)
    key.spend.inc(settled.total)
    key.spend_prompt.inc(settled.prompt)
    key.spend_completion.inc(settled.completion)


def _request_end(
    settler: Settler, metrics: CortexMetrics, node: str, record: RequestRecord
) -> None:
    if record.discarded:
        metrics.discarded.inc(record.discarded)
    settler.on_request_end(node, record)


def _stop_signal(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _follow_files(parts: Parts) -> None:
    """Take in a changed catalogue or certificate; a bad one changes nothing."""
    tls = parts.listener.tls
    seen_failures = 0
    while True:
        await asyncio.sleep(2.0)
        if parts.profiles.refresh():
            parts.log.info("catalogue reloaded", models=len(parts.profiles.current.models))
        if parts.profiles.failures > seen_failures:
            parts.metrics.catalogue_failures.inc(parts.profiles.failures - seen_failures)
            seen_failures = parts.profiles.failures
        if tls is not None:
            try:
                if tls.reload_if_changed():
                    parts.log.info("certificate reloaded")
            except (OSError, ssl.SSLError) as error:
                parts.log.warning("certificate refused; the previous one stays", reason=str(error))


async def _drain(parts: Parts) -> None:
    """Stop accepting, let answers finish, then end the rest in their own dialect."""
    secs = parts.settings.gateway.drain_secs
    draining = asyncio.create_task(parts.listener.drain(secs))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + secs
    while parts.app.running and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    await parts.app.cut()
    await draining
