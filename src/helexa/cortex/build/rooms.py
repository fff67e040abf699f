"""Joins the rooms behind what clients meet; nothing runs or connects yet."""

from __future__ import annotations

from dataclasses import dataclass

from helexa.cortex.build.exchange import make_desk, make_observers
from helexa.cortex.build.ledger import make_keyring, make_settler, open_ledger
from helexa.cortex.build.nodes import make_fleet, make_links, make_roster
from helexa.cortex.build.parts import Parts
from helexa.cortex.build.residency import make_placer, make_residency, open_catalogue, recall
from helexa.cortex.exchange.desk import Desk
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.roster import Roster
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.book import Book
from helexa.cortex.ledger.opening import OpenLedger
from helexa.cortex.links import Links
from helexa.cortex.observers import RequestObservers
from helexa.cortex.profiles import ProfileFile
from helexa.cortex.remembered import Remembered
from helexa.cortex.residency.owner import Residency
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer


@dataclass(frozen=True, slots=True)
class Rooms:
    """The rooms; each has a task or a table of its own."""

    kept: OpenLedger
    keyring: Keyring
    links: Links
    settler: Settler
    fleet: Fleet
    roster: Roster
    profiles: ProfileFile
    residency: Residency
    remembered: Remembered
    placer: FleetPlacer
    observers: RequestObservers
    desk: Desk

    @property
    def ledger(self) -> Book:
        """What requests are granted from."""
        return self.kept.book


def make_rooms(parts: Parts) -> Rooms:
    """Make every room.

    Rooms that tell each other things are joined by functions that look the later one up, hence
    lambdas that merely call.

    Raises:
        SettingsError: The settings name something that cannot be used.
        LedgerUnavailable: The ledger cannot be opened, or another gateway uses it.
    """
    kept = open_ledger(parts)
    keyring = make_keyring(parts, kept)
    fleet = make_fleet(
        parts.log,
        lambda node, event: settler.on_grant_low(node, event),  # noqa: PLW0108
        lambda node, record: settler.on_request_end(node, record),  # noqa: PLW0108
    )
    links, observers = make_links(parts), make_observers(fleet)
    settler = make_settler(parts, kept, fleet, observers)
    profiles, leases = open_catalogue(parts), LeaseTable()
    residency = make_residency(parts, fleet, profiles, leases)
    remembered, memory = recall(parts, residency, lambda: roster.added())  # noqa: PLW0108
    roster = make_roster(parts, fleet, links, remembered.changed)
    roster.start(parts.settings.neurons, memory.nodes)
    placer = make_placer(parts, fleet, residency, profiles, leases)
    desk = make_desk(
        parts,
        keys=keyring.table,
        ledger=kept.book,
        links=links,
        settler=settler,
        profiles=profiles,
        placer=placer,
        observers=observers,
    )
    return Rooms(
        kept,
        keyring,
        links,
        settler,
        fleet,
        roster,
        profiles,
        residency,
        remembered,
        placer,
        observers,
        desk,
    )
