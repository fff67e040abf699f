"""What can be done for a model, given what the fleet says.

::

    loaded and servable somewhere ──▶ Serve
    loading, reloading somewhere  ──▶ Wait
    feasible where it is not      ──▶ Wake
    maybe where nobody has asked  ──▶ Wait: a node that has not answered, nor failed to three times
    otherwise                     ──▶ Refuse: recovering, unservable, draining, unreachable,
                                              or not known at all
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import TypeAlias

import msgspec

from helexa.core.errors import (
    HelexaError,
    InsufficientVram,
    ModelNotFound,
    ModelRecovering,
    ServiceUnavailable,
)
from helexa.core.fleet import Download, ModelEntry
from helexa.cortex.catalogue import feasible_nodes, hopeless, obstacle, profile_of
from helexa.cortex.fleet.snapshot import FleetSnapshot, NodeSnapshot
from helexa.cortex.profiles import Profile, Profiles
from helexa.cortex.standing import declined, unless_away

SOON_S = 2.0
RECOVERY_S = 5.0
DECLINED_S = 30.0
"""Until whatever a node has said of a model may have been mended."""
NOBODY: frozenset[str] = frozenset()


class Serve(msgspec.Struct, frozen=True):
    """These nodes can take it now."""

    nodes: tuple[NodeSnapshot, ...]


class Wait(msgspec.Struct, frozen=True):
    """It is being loaded there; ``progress`` (0 to 1), ``eta_s`` and files of the furthest."""

    nodes: tuple[str, ...]
    progress: float | None = None
    eta_s: float | None = None
    download: Download | None = None


class Wake(msgspec.Struct, frozen=True):
    """It is asleep and may be loaded on these nodes, best first."""

    profile: Profile
    nodes: tuple[str, ...]


class Refuse(msgspec.Struct, frozen=True):
    """Nothing that a request could wait for."""

    error: HelexaError


Decision: TypeAlias = Serve | Wait | Wake | Refuse


def decide(
    model: str, profiles: Profiles, fleet: FleetSnapshot, avoid: AbstractSet[str] = NOBODY
) -> Decision:
    """What can be done for a concrete model id.

    Args:
        avoid: Nodes that have just failed this request.
    """
    usable = [n for n in fleet.reachable if n.name not in avoid and not n.draining]
    serving = tuple(n for n in usable if (m := n.models.get(model)) and m.ready)
    if serving:
        return Serve(serving)
    loading = [n for n in usable if _status(n, model) in ("loading", "reloading")]
    if loading:
        return _wait(model, loading)
    pending = [n.name for n in usable if _is_pending(n, model)]
    if pending:
        return Wait(tuple(pending))
    profile = profile_of(profiles, model)
    sleeping = () if profile is None else _sleeping(profile, fleet, usable)
    if profile is not None and sleeping and not _present_anywhere(model, usable):
        return Wake(profile, sleeping)
    unheard = () if profile is None else _unheard(profile, fleet, avoid)
    if unheard and not any(model in n.models for n in usable):
        return Wait(unheard)
    return Refuse(_why_not(model, profile, fleet, usable))


def _wait(model: str, nodes: list[NodeSnapshot]) -> Wait:
    entries = [node.models[model].entry for node in nodes]
    furthest = max(entries, key=lambda entry: entry.progress or 0.0)
    names = tuple(node.name for node in nodes)
    return Wait(names, furthest.progress, furthest.eta_s, furthest.download)


def _sleeping(
    profile: Profile, fleet: FleetSnapshot, usable: list[NodeSnapshot]
) -> tuple[str, ...]:
    """Where it could be loaded: a failed load last, then most free memory over its devices."""
    names = {node.name for node in usable}
    nodes = [n for n in feasible_nodes(profile, fleet) if n.name in names]
    nodes.sort(key=lambda n: (_status(n, profile.id) == "failed", -_free(n, profile), n.name))
    return tuple(node.name for node in nodes)


def _free(node: NodeSnapshot, profile: Profile) -> int:
    """Free memory (MiB) on the devices that the model would use."""
    free = sorted((reading.vram_free_mb for reading in node.devices), reverse=True)
    return sum(free[: max(1, profile.min_devices)])


def _unheard(profile: Profile, fleet: FleetSnapshot, avoid: AbstractSet[str]) -> tuple[str, ...]:
    """Nodes that may have it or load it, for all that is known: they have just been begun with, as
    at the start or after a change of cortex.toml, and are settled within seconds."""
    begun = (n.name for n in fleet.nodes if not n.settled and n.name not in avoid)
    return tuple(name for name in begun if not profile.pinned_on or name in profile.pinned_on)


def _present_anywhere(model: str, nodes: list[NodeSnapshot]) -> bool:
    """Loaded but not servable, or recovering: it comes back there, a second copy is no help."""
    return any(_status(node, model) in ("loaded", "recovering") for node in nodes)


def _is_pending(node: NodeSnapshot, model: str) -> bool:
    return model in node.activation.pending or model == node.activation.in_progress


def _status(node: NodeSnapshot, model: str) -> str | None:
    state = node.models.get(model)
    return None if state is None else state.entry.status


def _why_not(
    model: str, profile: Profile | None, fleet: FleetSnapshot, usable: list[NodeSnapshot]
) -> HelexaError:
    here = [node.models[model].entry for node in usable if model in node.models]
    said = [(n.name, n.outlooks[model]) for n in usable if profile and _declined(n, model)]
    if said and here and all(entry.status == "failed" for entry in here):
        return unless_away(declined(model, said), fleet, usable, DECLINED_S)
    if here or any(model in node.models for node in fleet.nodes):
        return _not_now(model, here)
    if said:
        return unless_away(declined(model, said), fleet, usable, DECLINED_S)
    if profile is not None:
        lacking = obstacle(profile, fleet)
        words = f"No node that could run {model!r} is available. See GET /health for the nodes."
        if lacking is not None:
            words = f"No node here can run {model!r}: {lacking}."
        return ServiceUnavailable(words, retry_after_s=RECOVERY_S)
    if not fleet.settled:
        return ServiceUnavailable(
            f"Not every node has answered yet, so it is not known who has {model!r}.",
            retry_after_s=SOON_S,
        )
    return ModelNotFound(
        f"The model {model!r} does not exist here. GET /v1/models lists those that do.",
        param="model",
    )


def _not_now(model: str, here: list[ModelEntry]) -> HelexaError:
    """Why nodes that list a model do not serve it.

    Args:
        here: Its entries on the nodes that could.
    """
    if any(entry.status == "recovering" for entry in here):
        return ModelRecovering(
            f"The model {model!r} is being restarted after a failure.", retry_after_s=RECOVERY_S
        )
    for entry in here:
        if entry.status == "loaded" and not entry.servable.ok:
            return _unservable(model, entry.servable.reason, entry.servable.detail)
    for entry in here:
        if entry.status == "failed":
            detail = entry.servable.detail or "the node gives no reason"
            return ServiceUnavailable(
                f"The model {model!r} could not be loaded: {detail}.", retry_after_s=RECOVERY_S
            )
    return ServiceUnavailable(
        f"No node can serve {model!r} at the moment; the ones that have it do not answer, "
        "are draining, or are unloading it.",
        retry_after_s=SOON_S,
    )


def _declined(node: NodeSnapshot, model: str) -> bool:
    outlook = node.outlooks.get(model)
    return outlook is not None and bool(outlook.detail) and hopeless(outlook)


def _unservable(model: str, reason: str | None, detail: str | None) -> HelexaError:
    kind = InsufficientVram if reason == "insufficient_vram" else ServiceUnavailable
    words = detail or reason or "its node gives no reason"
    return kind(
        f"The model {model!r} is loaded but cannot serve: {words}.",
        retry_after_s=RECOVERY_S,
        reason=reason,
    )
