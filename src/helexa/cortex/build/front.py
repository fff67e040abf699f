"""What clients meet: the listener, the routes behind it, and what a scrape reads."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from helexa.core import build_info
from helexa.cortex.app import AsgiErrors, GatewayApp
from helexa.cortex.build.ledger import ledger_url
from helexa.cortex.build.parts import Parts
from helexa.cortex.build.rooms import Rooms
from helexa.cortex.build.tls import server_tls
from helexa.cortex.exchange.route import CHAT, CHAT_COUNT, Route, inference_routes
from helexa.cortex.fleet_metrics import derived_gauges, waiting_gauge
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.responses.build import make_keeper
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.responses.route import ResponsesRoute
from helexa.cortex.routes.deps import ManagementDeps
from helexa.cortex.routes.management import management_app
from helexa.cortex.usage import UsageBook
from helexa.relay.asgi import AsgiBridge
from helexa.relay.http1 import Limits
from helexa.relay.listener import Listener


@dataclass(frozen=True, slots=True)
class Front:
    """The front.

    Args:
        keeper: Of responses; None where the settings keep none.
    """

    app: GatewayApp
    keeper: Keeper | None
    listener: Listener


def make_front(parts: Parts, rooms: Rooms) -> Front:
    """Put the routes in front of the rooms; nothing listens yet.

    Raises:
        SettingsError: The certificate cannot be used.
    """
    settings = parts.settings
    keeper = make_keeper(
        settings.responses, ledger_url(parts), parts.log, parts.metrics.responses_lost.inc
    )
    most_bytes = settings.gateway.max_body_mb << 20
    routes = inference_routes(_responses(ResponsesRoute(keeper, time.time, most_bytes)))
    management = management_app(_looks_into(parts, rooms, keeper, routes))
    app = GatewayApp(rooms.desk, AsgiBridge(management, AsgiErrors(parts.log)), routes)
    _collect(parts.metrics, rooms, app)
    limits = Limits(body_bytes=most_bytes)
    tls, outbox = server_tls(settings), parts.outbox
    listener = Listener(app, parts.wheel, parts.loop, limits, tls, outbox, foresee=app.foresee)
    return Front(app, keeper, listener)


def _responses(route: ResponsesRoute) -> dict[bytes, Route]:
    return {
        b"/v1/responses": Route("responses", CHAT, translate=route.translate),
        b"/v1/responses/input_tokens": Route(
            "count", CHAT_COUNT, streams=False, free=True, translate=route.count
        ),
    }


def _looks_into(
    parts: Parts, rooms: Rooms, keeper: Keeper | None, posts: Iterable[bytes]
) -> ManagementDeps:
    store, profiles = rooms.kept.store, rooms.profiles
    return ManagementDeps(
        keys=rooms.keyring.table,
        keyring=rooms.keyring,
        seats=rooms.desk.seats,
        profiles=profiles,
        fleet=rooms.fleet,
        roster=rooms.roster,
        residency=rooms.residency,
        leases=rooms.placer.leases,
        ledger=rooms.ledger,
        condition=rooms.kept.condition,
        usage=None if store is None else UsageBook(store, lambda: profiles.current),
        timelines=rooms.observers.timelines,
        captures=rooms.observers.captures,
        build=build_info.load(parts.environ),
        ids=rooms.desk.ids,
        log=parts.log,
        started=int(time.time()),
        now=time.time,
        post_paths=frozenset(path.decode() for path in posts),
        keeper=keeper,
        keep=rooms.remembered.keep,
    )


def _collect(metrics: CortexMetrics, rooms: Rooms, app: GatewayApp) -> None:
    """Bring what a scrape reads up to date before each."""

    def of_ledger() -> None:
        metrics.drift.set(rooms.settler.drift)
        metrics.ledger_failures.value = rooms.kept.failures
        condition = rooms.kept.condition()
        metrics.ledger_writable.set(float(condition.ok))
        metrics.ledger_unwritten.set(condition.unwritten)

    for update in (
        rooms.desk.books.flush,
        derived_gauges(metrics, rooms.fleet, rooms.ledger),
        waiting_gauge(metrics, rooms.residency.waiting),
        of_ledger,
        lambda: metrics.open_streams.set(app.streaming),
    ):
        metrics.registry.before_collect(update)
