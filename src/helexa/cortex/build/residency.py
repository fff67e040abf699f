"""What is loaded where: the catalogue, the one who loads, who is asked for a place."""

from __future__ import annotations

from collections.abc import Callable

from helexa.cortex.build.ledger import ledger_url
from helexa.cortex.build.parts import Parts
from helexa.cortex.fleet.fleet import Fleet
from helexa.cortex.fleet.foresight import Foresight
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.remembered import Memory, Remembered, place, read
from helexa.cortex.residency.acts import Hooks
from helexa.cortex.residency.effects import load_request
from helexa.cortex.residency.owner import Residency
from helexa.cortex.residency.world import Rules
from helexa.cortex.routing.leases import LeaseTable
from helexa.cortex.routing.placer import FleetPlacer
from helexa.cortex.settings import DEFAULT_MODELS_PATH, CortexSettings, NeuronSettings


def open_catalogue(parts: Parts) -> ProfileFile:
    """The catalogue that the settings name, else the one at the default path, else an empty one.

    Raises:
        SettingsError: It cannot be used.
    """
    log = parts.log

    def refused(why: str) -> None:
        log.warning("catalogue refused; the previous one stays", reason=why)

    if parts.settings.models_config is not None:
        return ProfileFile.open(parts.settings.models_config, refused)
    if DEFAULT_MODELS_PATH.exists():
        return ProfileFile.open(DEFAULT_MODELS_PATH, refused)
    log.warning("no catalogue; what nodes have loaded is served", path=str(DEFAULT_MODELS_PATH))
    return ProfileFile(DEFAULT_MODELS_PATH, Profiles(), refused)


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


def make_residency(
    parts: Parts, fleet: Fleet, profiles: ProfileFile, leases: LeaseTable
) -> Residency:
    """Makes cold models warm."""
    metrics = parts.metrics
    return Residency(
        fleet,
        profiles,
        leases,
        rules(parts.settings),
        parts.loop.time,
        hooks=Hooks(evicted=lambda model, node: metrics.placement(model, node).evictions.inc()),
        log=parts.log,
    )


def make_placer(
    parts: Parts, fleet: Fleet, residency: Residency, profiles: ProfileFile, leases: LeaseTable
) -> FleetPlacer:
    """Finds the node for a request."""
    wait_s = parts.settings.residency.max_wait_secs
    return FleetPlacer(profiles, fleet, residency, leases, max_wait_s=wait_s)


def recall(
    parts: Parts, residency: Residency, nodes: Callable[[], tuple[NeuronSettings, ...]]
) -> tuple[Remembered, Memory]:
    """What an earlier life knew, of which the loads are taken in, and who keeps what changes.

    Args:
        nodes: Those that the administration has added.
    """
    path = place(ledger_url(parts), parts.port, parts.environ)
    memory = read(path, parts.log)
    residency.learned.recall(memory.loads)
    remembered = Remembered(path, nodes, residency.learned.lessons, parts.log)
    residency.learned.changed = remembered.changed
    return remembered, memory


def make_foresight(parts: Parts, fleet: Fleet, profiles: ProfileFile) -> Foresight:
    """What asks the nodes about cold models."""
    return Foresight(
        fleet,
        lambda: {profile.id: load_request(profile) for profile in profiles.current.models},
        parts.loop.time,
    )
