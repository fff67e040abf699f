"""The gateway, whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass

from helexa.cortex.build.front import Front, make_front
from helexa.cortex.build.parts import Parts, gather
from helexa.cortex.build.rooms import Rooms, make_rooms
from helexa.cortex.settings import CortexSettings


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the rooms are made with, the rooms, and what clients meet before them."""

    parts: Parts
    rooms: Rooms
    front: Front


def assemble(
    settings: CortexSettings,
    loop: asyncio.AbstractEventLoop,
    environ: Mapping[str, str] = os.environ,
) -> Gateway:
    """Make a gateway; nothing listens or connects yet.

    Raises:
        SettingsError: The settings name something that cannot be used.
        LedgerUnavailable: The ledger cannot be opened, or another gateway uses it.
    """
    parts = gather(settings, loop, environ)
    rooms = make_rooms(parts)
    return Gateway(parts, rooms, make_front(parts, rooms))
