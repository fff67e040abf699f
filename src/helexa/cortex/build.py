"""Wires the gateway: the only place that names concrete classes.

::

    settings ─▶ parts ─▶ listen ─▶ ready line ─▶ serve ─▶ SIGTERM ─▶ drain ─▶ nothing left
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from helexa.core import build_info
from helexa.core.fleet import RequestRecord
from helexa.core.ids import id_source
from helexa.core.logging import Logger, get_logger
from helexa.core.settings import SettingsError
from helexa.cortex.app import AsgiErrors, GatewayApp
from helexa.cortex.auth import KeyTable, settings_keys
from helexa.cortex.capture import Captures
from helexa.cortex.exchange.desk import Desk
from helexa.cortex.exchange.reconcile import Reconciler
from helexa.cortex.exchange.recovering import Recovery
from helexa.cortex.exchange.route import CHAT, Route, inference_routes
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.fleet.client import HttpNode, Trust, tls_context
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.foresight import Foresight
from helexa.cortex.fleet.roster import FleetDoor, NodesFile, Roster
from helexa.cortex.fleet_metrics import derived_gauges, waiting_gauge
from helexa.cortex.habits import Habits
from helexa.cortex.keys.file import KeysFile
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.base import Settled
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.keys import MemoryKeys
from helexa.cortex.ledger.keys_sql import SqlKeys
from helexa.cortex.ledger.opening import OpenLedger, default_url
from helexa.cortex.lifetime import Followed, drain, follow_files, stop_signal
from helexa.cortex.links import Links
from helexa.cortex.metrics import CortexMetrics, watch_lag
from helexa.cortex.metrics_server import serve_metrics
from helexa.cortex.observers import RequestObservers
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.prompts import prompt_of
from helexa.cortex.remembered import Remembered, place, read
from helexa.cortex.residency.acts import Hooks
from helexa.cortex.residency.effects import load_request
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.world import Rules
from helexa.cortex.responses.build import make_keeper
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.responses.route import ResponsesRoute
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.management import management_app
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer
from helexa.cortex.seats import KeySeats
from helexa.cortex.settings import (
    DEFAULT_MODELS_PATH,
    CortexSettings,
    NeuronSettings,
    split_listen,
)
from helexa.cortex.timelines import Timelines
from helexa.cortex.usage import UsageBook, keep_for
from helexa.relay.asgi import AsgiBridge
from helexa.relay.attempt import Deadlines
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener, Tls
from helexa.relay.outbox import Outbox
from helexa.relay.process import collect_when_quiet, freeze_heap, raise_descriptor_limit
from helexa.relay.wheel import Wheel

_WASTED = frozenset(("cancelled", "failed", "node_lost"))
"""Ends of a request after which nobody had the use of what was computed."""

Announce = Callable[[dict[str, object]], None]


@dataclass(slots=True)
class Gateway:
    """The gateway's rooms, joined."""

    settings: CortexSettings
    name: str
    epoch: int
    wheel: Wheel
    loop: asyncio.AbstractEventLoop
    metrics: CortexMetrics
    ledger: Book
    kept: OpenLedger
    keyring: Keyring
    links: Links
    settler: Settler
    fleet: Fleet
    roster: Roster
    profiles: ProfileFile
    residency: Residency
    placer: FleetPlacer
    remembered: Remembered
    app: GatewayApp
    keeper: Keeper | None
    listener: Listener
    log: Logger


async def run(
    settings: CortexSettings,
    *,
    announce: Announce,
    path: Path | None = None,
    again: Callable[[], CortexSettings] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return.

    Args:
        announce: Called once with the members of the ready line.
        path: Where the settings came from; its nodes and keys are followed while we run.
        again: Reads them anew; blocking.

    Raises:
        OSError: An address is taken or not ours.
        SettingsError: The configuration contradicts itself.
    """
    raise_descriptor_limit()
    loop = asyncio.get_running_loop()
    gateway = assemble(settings, loop)
    await gateway.keyring.refresh()
    await gateway.listener.start(*split_listen(settings.gateway.listen))
    host, port = split_listen(settings.gateway.metrics_listen)
    exporter = await serve_metrics(gateway.metrics.registry, host, port)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    stop = stop_signal(loop)
    read = again or (lambda: settings)
    followed: dict[str, Followed] = {
        "nodes": NodesFile(path, lambda: read().neurons, gateway.roster),
        "keys": KeysFile(path, lambda: read().entitlements, gateway.keyring, os.environ),
    }
    chores = (
        gateway.fleet.run(),
        gateway.residency.run(),
        foresight(gateway).run(),
        gateway.settler.run(),
        gateway.remembered.run(),
        recover(gateway),
        gateway.kept.run(),
        gateway.keyring.follow(),
        _put_away(settings, gateway.kept, gateway.log),
        Reconciler(gateway.app.exchanges, gateway.fleet.api, time.monotonic, gateway.log).run(),
        follow_files(
            gateway.profiles, followed, gateway.listener.tls, gateway.metrics, gateway.log
        ),
        watch_lag(gateway.metrics.lag.observe),
        collect_when_quiet(lambda: gateway.app.running),
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chore) for chore in chores]
        freeze_heap()
        announce(
            {"url": gateway.listener.url, "metrics_url": f"http://{shown}:{exporter.port}/metrics"}
        )
        await stop.wait()
        await drain(gateway.listener, gateway.app, settings.gateway.drain_secs)
        for task in tasks:
            task.cancel()
    await gateway.remembered.keep()
    if gateway.keeper is not None:
        await gateway.keeper.aclose()
    await exporter.close()
    await gateway.kept.close(clean=not gateway.settler.waiting)
    gateway.links.close()


async def recover(gateway: Gateway) -> None:
    """Settle for gateways that have died, until cancelled."""
    book, fleet, estate = gateway.ledger, gateway.fleet, gateway.kept.estate
    if estate is None:
        return

    def estimated(tokens: int) -> None:
        book.estimated += tokens

    recovery = Recovery(
        estate,
        lambda: (node.name for node in fleet.snapshot().nodes),
        fleet.api,
        booked=lambda settled: _booked(gateway.metrics, settled),
        freed=book.refresh,
        estimated=estimated,
        log=gateway.log,
    )
    await book.learn(gateway.keyring.table.principals)  # so that a key's first grant asks but once
    await recovery.run()


def foresight(gateway: Gateway) -> Foresight:
    """What asks the nodes about cold models."""
    profiles = gateway.profiles
    return Foresight(
        gateway.fleet,
        lambda: {profile.id: load_request(profile) for profile in profiles.current.models},
        gateway.loop.time,
    )


def assemble(settings: CortexSettings, loop: asyncio.AbstractEventLoop) -> Gateway:
    """Make every room; nothing listens or connects yet."""
    log = get_logger()
    epoch = time.time_ns() // 1_000_000
    # With a port of the system's choice nothing tells us from our neighbours but our process.
    port = split_listen(settings.gateway.listen)[1] or f"process-{os.getpid()}"
    name = f"{socket.gethostname()}-{port}"
    found = settings.fleet.resolve(os.environ)
    trust = Trust(f"{name}/{epoch}", found.reveal() if found is not None else None)
    wheel, outbox = Wheel(loop), Outbox(loop)
    metrics = CortexMetrics()
    ledger_url = settings.ledger.url or default_url(os.environ)
    opened = OpenLedger(
        ledger_url,
        gateway=name,
        epoch=epoch,
        lease_s=settings.ledger.lease_secs,
        hold_wait_s=settings.ledger.grant_wait_ms / 1000,
        log=log,
    )
    ledger = opened.book
    links = Links(
        wheel,
        loop,
        gateway=trust.gateway,
        secret=trust.secret,
        connect_secs=settings.timeouts.connect,
        outbox=outbox,
    )
    settler = Settler(
        ledger,
        lambda node: fleet.api(node),  # noqa: PLW0108  # the fleet is made below
        booked=lambda settled: _booked(metrics, settled),
        heard=lambda record: desk.observers.heard(record),  # noqa: PLW0108  # so is the desk
        slice_tokens=settings.ledger.slice_tokens,
        lease_s=settings.ledger.lease_secs,
        gateway=name,
        epoch=epoch,
    )
    fleet = Fleet(
        now=time.time,
        rng=random.Random(),  # jitter, not secrets
        on_grant_low=settler.on_grant_low,
        on_request_end=lambda node, record: _request_end(desk, node, record),
    )
    door = FleetDoor(fleet, lambda node: _add_node(node, links, fleet, trust), links.remove)

    def said(what: str, node: str) -> None:
        log.info("node", what=what, node=node)
        remembered.changed()

    roster = Roster(door, said)
    memory_path = place(ledger_url, split_listen(settings.gateway.listen)[1], os.environ)
    memory = read(memory_path, log)
    profiles = _profiles(settings, log)
    leases = LeaseTable()
    residency = Residency(
        fleet,
        profiles,
        leases,
        rules(settings),
        loop.time,
        hooks=Hooks(evicted=lambda model, node: metrics.placement(model, node).evictions.inc()),
        log=log,
    )
    remembered = Remembered(memory_path, roster.added, residency.learned.lessons, log)
    roster.start(settings.neurons, memory.nodes)
    residency.learned.recall(memory.loads)
    residency.learned.changed = remembered.changed
    placer = FleetPlacer(
        profiles, fleet, residency, leases, max_wait_s=settings.residency.max_wait_secs
    )
    timelines, captures = Timelines(time.time), Captures(time.time, prompt_of(fleet))
    metrics.registry.before_collect(derived_gauges(metrics, fleet, ledger))
    metrics.registry.before_collect(waiting_gauge(metrics, residency.waiting))
    keyring = _keyring(settings, opened, log)
    desk = Desk(
        keys=keyring.table,
        seats=KeySeats(loop.time),
        ledger=ledger,
        placer=placer,
        links=links,
        settler=settler,
        metrics=metrics,
        observers=RequestObservers(timelines, captures),
        wheel=wheel,
        loop=loop,
        deadlines=Deadlines(
            first_byte=settings.timeouts.first_byte, between_bytes=settings.timeouts.between_bytes
        ),
        ids=id_source(),
        log=log,
        now=time.monotonic,
        habits=Habits(profiles),
        commit_s=settings.gateway.commit_ms / 1000,
        retries=settings.routing.retries,
        slice_tokens=settings.ledger.slice_tokens,
    )
    keeper = make_keeper(settings.responses, ledger_url, log, metrics.responses_lost.inc)
    responses = Route("responses", CHAT, translate=ResponsesRoute(keeper, time.time).translate)
    routes = inference_routes({b"/v1/responses": responses})
    management = management_app(
        ManagementDeps(
            keys=keyring.table,
            keyring=keyring,
            seats=desk.seats,
            profiles=profiles,
            fleet=fleet,
            roster=roster,
            residency=residency,
            leases=leases,
            ledger=ledger,
            usage=None
            if opened.store is None
            else UsageBook(opened.store, lambda: profiles.current),
            timelines=timelines,
            captures=captures,
            build=build_info.load(os.environ),
            ids=desk.ids,
            log=log,
            started=int(time.time()),
            now=time.time,
            post_paths=frozenset(path.decode() for path in routes),
            keeper=keeper,
            keep=remembered.keep,
        )
    )
    metrics.registry.before_collect(desk.books.flush)
    metrics.registry.before_collect(lambda: metrics.drift.set(settler.drift))
    app = GatewayApp(desk, AsgiBridge(management, AsgiErrors(log)), routes)
    metrics.registry.before_collect(lambda: metrics.open_streams.set(app.streaming))
    limits = Limits(body_bytes=settings.gateway.max_body_mb * 1024 * 1024)
    return Gateway(
        settings=settings,
        name=name,
        epoch=epoch,
        wheel=wheel,
        loop=loop,
        metrics=metrics,
        ledger=ledger,
        kept=opened,
        keyring=keyring,
        links=links,
        settler=settler,
        fleet=fleet,
        roster=roster,
        profiles=profiles,
        residency=residency,
        placer=placer,
        remembered=remembered,
        app=app,
        keeper=keeper,
        listener=Listener(app, wheel, loop, limits, _tls(settings), outbox),
        log=log,
    )


def _add_node(node: NeuronSettings, links: Links, fleet: Fleet, trust: Trust) -> None:
    context = None
    if node.endpoint.startswith("https://"):
        context = tls_context(node.ca)
    links.add(node.name, node.endpoint, context)
    fleet.add(
        node.name, node.endpoint, HttpNode(node.endpoint, trust, context, links.client(node.name))
    )


def _keyring(settings: CortexSettings, opened: OpenLedger, log: Logger) -> Keyring:
    given = settings.entitlements
    fixed = settings_keys(given, os.environ)
    accounts = {account.account_id: account.all_caps for account in given.accounts}
    table = KeyTable(fixed.items(), required=given.require_auth, now=time.time)
    store = MemoryKeys() if opened.store is None else SqlKeys(opened.store)
    return Keyring(fixed, accounts, store, table, now=time.time, log=log, changed=opened.book.bind)


async def _put_away(settings: CortexSettings, opened: OpenLedger, log: Logger) -> None:
    if opened.store is not None:
        days = settings.ledger.usage_retention_days
        await keep_for(opened.store, days, opened.now, log)


def rules(settings: CortexSettings) -> Rules:
    """What the operator decides about residency."""
    residency = settings.residency
    return Rules(
        settings.eviction.strategy,
        residency.min_residency_secs,
        residency.max_wait_secs,
        residency.idle_ttl_secs,
        residency.abandoned_loads,
        residency.max_copies,
    )


def _profiles(settings: CortexSettings, log: Logger) -> ProfileFile:
    def refused(why: str) -> None:
        log.warning("catalogue refused; the previous one stays", reason=why)

    if settings.models_config is not None:
        return ProfileFile.open(settings.models_config, refused)
    if DEFAULT_MODELS_PATH.exists():
        return ProfileFile.open(DEFAULT_MODELS_PATH, refused)
    log.warning("no catalogue; what nodes have loaded is served", path=str(DEFAULT_MODELS_PATH))
    return ProfileFile(DEFAULT_MODELS_PATH, Profiles(), refused)


def _tls(settings: CortexSettings) -> Tls | None:
    cert, key = settings.gateway.tls_cert, settings.gateway.tls_key
    if cert is None or key is None:
        return None
    try:
        return Tls(cert, key)
    except OSError as error:  # also what ssl raises for a file that holds neither
        raise SettingsError(
            f"gateway.tls_cert and gateway.tls_key: {cert} with {key} cannot be used: {error}"
        ) from error


def _booked(metrics: CortexMetrics, settled: Settled) -> None:
    """Count what was settled on a node's word alone."""
    key = metrics.key(settled.account_id, settled.key_id)
    key.spend.inc(settled.total)
    key.spend_prompt.inc(settled.prompt)
    key.spend_completion.inc(settled.completion)


def _request_end(desk: Desk, node: str, record: RequestRecord) -> None:
    """A node's last word about a request, which may have ended here this very moment."""
    metrics = desk.metrics
    desk.books.flush()
    if record.discarded:
        metrics.discarded.inc(record.discarded)
    if record.state in _WASTED:
        # What was reused cost nothing to compute.
        metrics.wasted.labels(record.state).inc(record.prompt - record.cached + record.output)
    desk.settler.on_request_end(node, record)
