"""What requests are served with: the desk that every exchange shares, and what is kept of them."""

from __future__ import annotations

import time

from helexa.core.ids import id_source
from helexa.cortex.auth import KeyTable
from helexa.cortex.build.parts import Parts
from helexa.cortex.capture import Captures
from helexa.cortex.exchange.desk import Desk
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.habits import Habits
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.links import Links
from helexa.cortex.observers import RequestObservers
from helexa.cortex.profiles import ProfileFile
from helexa.cortex.prompts import prompt_of
from helexa.cortex.routing.placer import FleetPlacer
from helexa.cortex.seats import KeySeats
from helexa.cortex.timelines import Timelines
from helexa.relay.attempt import Deadlines


def make_observers(fleet: Fleet) -> RequestObservers:
    """Keeps timelines, and captures when armed."""
    captures = Captures(time.time, prompt_of(fleet), time.monotonic)
    return RequestObservers(Timelines(time.time), captures)


def make_desk(
    parts: Parts,
    *,
    keys: KeyTable,
    ledger: Ledger,
    links: Links,
    settler: Settler,
    profiles: ProfileFile,
    placer: FleetPlacer,
    observers: RequestObservers,
) -> Desk:
    """What exchanges share."""
    settings = parts.settings
    return Desk(
        keys=keys,
        seats=KeySeats(parts.loop.time),
        ledger=ledger,
        placer=placer,
        links=links,
        settler=settler,
        metrics=parts.metrics,
        observers=observers,
        wheel=parts.wheel,
        loop=parts.loop,
        deadlines=Deadlines(
            first_byte=settings.timeouts.first_byte, between_bytes=settings.timeouts.between_bytes
        ),
        ids=id_source(),
        log=parts.log,
        now=time.monotonic,
        habits=Habits(profiles),
        commit_s=settings.gateway.commit_ms / 1000,
        retries=settings.routing.retries,
        slice_tokens=settings.ledger.slice_tokens,
    )
