"""The nodes: who is out there, the ways to them, and the list that the operator changes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from helexa.core.fleet import RequestRecord
from helexa.core.logging import Logger
from helexa.cortex.build.parts import Parts
from helexa.cortex.fleet.client import HttpNode, tls_of
from helexa.cortex.fleet.events import GrantLow
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.news import NodeNews
from helexa.cortex.fleet.roster import FleetDoor, Roster
from helexa.cortex.fleet.shortcut import Shortcut
from helexa.cortex.links import Links
from helexa.cortex.settings import NeuronSettings


def make_fleet(
    log: Logger,
    on_grant_low: Callable[[str, GrantLow], object],
    on_request_end: Callable[[str, RequestRecord], object],
) -> Fleet:
    """Watches the nodes; there are none yet.

    Args:
        on_grant_low, on_request_end: Told of what nodes say of requests.
    """
    return Fleet(
        now=time.time,
        rng=random.Random(),  # jitter, not secrets
        on_grant_low=on_grant_low,
        on_request_end=on_request_end,
        on_node=NodeNews(log).heard,
    )


def make_links(parts: Parts) -> Links:
    """The ways to the nodes."""
    return Links(
        parts.wheel,
        parts.loop,
        gateway=parts.trust.gateway,
        secret=parts.trust.secret,
        connect_secs=parts.settings.timeouts.connect,
        outbox=parts.outbox,
    )


def make_roster(parts: Parts, fleet: Fleet, links: Links, changed: Callable[[], object]) -> Roster:
    """The list of nodes; empty until it is started.

    Args:
        changed: Told when the list is not what it was.
    """

    def opened(node: NeuronSettings) -> None:
        def way(what: str) -> None:
            parts.log.info("node", what=what, node=node.name)

        context, trust = tls_of(node), parts.trust
        link = links.add(node.name, node.endpoint, context, way)
        shortcut = Shortcut(link.pool, node.endpoint, trust.headers(), way)
        client = links.client(node.name)
        api = HttpNode(node.endpoint, trust, context, client, shortcut, link)
        fleet.add(node.name, node.endpoint, api)

    def said(what: str, node: str) -> None:
        parts.log.info("node", what=what, node=node)
        changed()

    return Roster(FleetDoor(fleet, opened, links.remove), said)
