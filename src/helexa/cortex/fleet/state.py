"""How a node's snapshot changes with what is heard of it: pure steps from frozen to frozen."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from helexa.core.fleet import DeviceReading, Health, ModelEntry, ModelLoad
from helexa.cortex.fleet.events import LoadProgressEvent, SnapshotEvent
from helexa.cortex.fleet.snapshot import ModelState, NodeSnapshot


def missed(node: NodeSnapshot, error: str) -> NodeSnapshot:
    """A poll failed."""
    return replace(node, strikes=node.strikes + 1, error=error)


def alive(node: NodeSnapshot, now: float) -> NodeSnapshot:
    """It answered."""
    return replace(node, answered=True, strikes=0, error=None, last_seen=now)


def heard(
    node: NodeSnapshot, now: float, models: Iterable[ModelEntry], health: Health | None
) -> NodeSnapshot:
    """A poll was answered; without ``health`` the figures stay what they were."""
    known = {m.id: m for m in health.models} if health is not None else None
    fresh = {entry.id: _state(node, entry, known) for entry in models}
    node = replace(alive(node, now), models=fresh)
    if health is None:
        return node
    return replace(
        node,
        uptime_secs=health.uptime_secs,
        activation=health.activation,
        devices=tuple(health.devices),
        draining=node.draining if health.draining is None else health.draining,
    )


def snapshot_event(node: NodeSnapshot, now: float, event: SnapshotEvent) -> NodeSnapshot:
    """The event stream began, or began anew after a gap."""
    node = heard(node, now, event.models, event.health)
    return node if event.draining is None else replace(node, draining=event.draining)


def model_changed(node: NodeSnapshot, entry: ModelEntry) -> NodeSnapshot:
    """One entry is new or different, or (``unloaded``) gone."""
    if entry.status == "unloaded":
        left = {name: known for name, known in node.models.items() if name != entry.id}
        return replace(node, models=left)
    return replace(node, models={**node.models, entry.id: _state(node, entry, None)})


def load_progressed(node: NodeSnapshot, event: LoadProgressEvent) -> NodeSnapshot:
    """A load of a listed model moved on."""
    state = node.models.get(event.id or event.model_id)
    if state is None:
        return node
    entry = replace(
        state.entry, progress=event.progress, eta_s=event.eta_s, download=event.download
    )
    return replace(node, models={**node.models, entry.id: replace(state, entry=entry)})


def loads_changed(node: NodeSnapshot, loads: Iterable[ModelLoad]) -> NodeSnapshot:
    """New figures for listed models."""
    fresh = {
        load.id: replace(node.models[load.id], load=load)
        for load in loads
        if load.id in node.models
    }
    return replace(node, models={**node.models, **fresh})


def devices_changed(node: NodeSnapshot, readings: Iterable[DeviceReading]) -> NodeSnapshot:
    """New readings of some devices."""
    by_index = {reading.index: reading for reading in node.devices}
    by_index.update((reading.index, reading) for reading in readings)
    return replace(node, devices=tuple(by_index[index] for index in sorted(by_index)))


def _state(node: NodeSnapshot, entry: ModelEntry, loads: dict[str, ModelLoad] | None) -> ModelState:
    if loads is not None:
        return ModelState(entry, loads.get(entry.id) or ModelLoad(entry.id))
    before = node.models.get(entry.id)
    return ModelState(entry, before.load if before is not None else ModelLoad(entry.id))
