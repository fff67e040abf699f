"""What the management routes read and act through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from helexa.core.build_info import BuildInfo
from helexa.core.ids import IdSource
from helexa.core.logging import Logger
from helexa.cortex.auth import KeyTable
from helexa.cortex.capture import Captures
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.roster import Roster
from helexa.cortex.keys.keyring import Keyring
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.ledger.condition import Condition
from helexa.cortex.profiles import ProfileFile
from helexa.cortex.residency.owner import Residency
from helexa.cortex.responses.keeper import Keeper
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.seats import KeySeats
from helexa.cortex.timelines import Timelines
from helexa.cortex.usage import UsageBook


async def _nothing() -> None:
    """There is nowhere to keep it."""


@dataclass(frozen=True, slots=True)
class ManagementDeps:
    """The rooms that the routes look into.

    Args:
        condition: How the ledger does.
        started: Epoch seconds of the gateway's start; ``created`` of listed models.
        post_paths: The data plane's routes, so that another method on them is a 405.
        now: Epoch seconds.
        keeper: Of responses; None where nothing is kept.
        usage: Reports; None where the ledger keeps nothing.
        keep: Makes a change of the fleet outlive this process.
    """

    keys: KeyTable
    keyring: Keyring
    seats: KeySeats
    profiles: ProfileFile
    fleet: Fleet
    roster: Roster
    residency: Residency
    leases: LeaseTable
    ledger: Ledger
    condition: Callable[[], Condition]
    usage: UsageBook | None
    timelines: Timelines
    captures: Captures
    build: BuildInfo
    ids: IdSource
    log: Logger
    started: int
    now: Callable[[], float]
    post_paths: frozenset[str] = frozenset()
    keeper: Keeper | None = None
    keep: Callable[[], Awaitable[object]] = _nothing
