"""What is looked after once in a while: stuck engines, idle models, changed figures, the disk.

Requests only mark what they changed; here it is told, each model at most once per look, so that
the event stream does not grow with the traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from helexa.core.fleet import DeviceReading
from helexa.core.logging import Logger
from helexa.neuron.events import Bus
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.service import Node

TEND_SECS = 0.25
SYNC_SECS = 1.0
DEVICE_SECS = 1.0
FORGET_SECS = 60.0
AGAIN_SECS = 5.0
"""After a chore has failed."""
MOVED_MB = 64
MOVED_PCT = 15.0


@dataclass(slots=True)
class Changes:
    """Ids of models that have changed since they were last told.

    Args:
        figures: What ``/health`` says of them.
        listings: What ``/models`` says of them.
    """

    figures: set[str] = field(default_factory=set)
    listings: set[str] = field(default_factory=set)


async def go_on(
    chore: Callable[[], Awaitable[None]], what: str, log: Logger, again_s: float = AGAIN_SECS
) -> None:
    """Do a chore that has no end, and begin anew when it raises; until cancelled.

    A disk that fails, or a bug in one of them, must not be the end of the watchdog.
    """
    while True:
        try:
            await chore()
        except OSError as error:
            log.warning("cannot be done just now", what=what, reason=str(error))
        except Exception:
            log.exception("bug", what=what)
        else:
            return
        await asyncio.sleep(again_s)


async def tend(node: Node[ServedModel], changes: Changes, idle_ttl_s: float) -> None:
    """Kill stuck engines, unload idle models, tell what has changed; until cancelled."""
    wanted = frozenset(spec.model_id for spec in node.defaults)
    while True:
        await asyncio.sleep(TEND_SECS)
        for model in node.registry.residents():
            if model.watchdog.expired():
                model.process.kill("it made no progress and was killed by the watchdog")
        node.registry.sweep(idle_ttl_s, wanted)
        tell_changes(node, changes)


def tell_changes(node: Node[ServedModel], changes: Changes) -> None:
    """Publish what has changed since the last look."""
    figures = [figures for figures in node.registry.figures() if figures.id in changes.figures]
    changes.figures.clear()
    if figures:
        node.bus.publish("admission", {"models": figures})
    for entry in node.registry.listings():
        if entry.id in changes.listings:
            node.bus.publish("model", {"model": entry})
    changes.listings.clear()


async def keep(sync: Callable[[], None]) -> None:
    """Bound what a power cut may lose; until cancelled."""
    while True:
        await asyncio.sleep(SYNC_SECS)
        await asyncio.to_thread(sync)


async def forget(expire: Callable[[], int], log: Logger) -> None:
    """Give up records that nobody comes for, and say how many; until cancelled."""
    while True:
        lost = expire()
        if lost:
            log.warning("gave up request records that no gateway came for", records=lost)
        await asyncio.sleep(FORGET_SECS)


async def tell_devices(bus: Bus, readings: Callable[[], list[DeviceReading]]) -> None:
    """Publish the readings when they have moved; until cancelled."""
    told: list[DeviceReading] = []
    while True:
        await asyncio.sleep(DEVICE_SECS)
        now = readings()
        if moved(told, now):
            told = now
            bus.publish("device", {"devices": now})


async def tell_faults(
    reason: Callable[[], str | None], log: Logger, every_s: float = DEVICE_SECS
) -> None:
    """Log that a driver has stopped answering, and that it answers again; until cancelled."""
    told = reason()  # what was so at the start has been said
    while True:
        await asyncio.sleep(every_s)
        now = reason()
        if now != told:
            told = now
            log.warning(now or "the GPUs of this node can be used again")


def moved(before: list[DeviceReading], now: list[DeviceReading]) -> bool:
    """Whether readings differ by something a gateway would decide on; pure."""
    if [reading.index for reading in before] != [reading.index for reading in now]:
        return True
    return any(
        abs(a.vram_free_mb - b.vram_free_mb) > MOVED_MB
        or abs((a.utilization_pct or 0) - (b.utilization_pct or 0)) > MOVED_PCT
        for a, b in zip(before, now, strict=True)
    )
