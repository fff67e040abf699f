"""The node as a whole: what its routes read, and the few things they may change.

Holds no decisions of its own. Requests register here while they run, so that a gateway's grants
and a drain find them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol

import msgspec

from helexa.core.build_info import BuildInfo
from helexa.core.fleet import (
    Ack,
    DeviceReading,
    Discovery,
    GrantUpdate,
    Health,
    LoadRequest,
    LocalSocket,
    ModelEntry,
    NodeVersion,
    RequestRecord,
)
from helexa.neuron.activation import Activator
from helexa.neuron.events import Bus
from helexa.neuron.grants import Grant
from helexa.neuron.outlook import Foreteller
from helexa.neuron.registry.entry import R
from helexa.neuron.registry.table import Registry


def on_the_wire(value: object) -> object:
    """``value`` as JSON-able builtins in which what is not known is left out, not null."""
    return _without_none(msgspec.to_builtins(value))


def _without_none(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_none(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


class Records(Protocol):
    """The table of request records."""

    def snapshot(self) -> list[RequestRecord]:
        """Running and unacknowledged records."""

    def acknowledge(self, request_id: str, attempt: int) -> bool:
        """Forget a final record; False when there is none."""


class Hardware(Protocol):
    """Cached facts and readings of the host."""

    def discovery(self) -> Discovery:
        """What the host is."""

    def devices(self) -> list[DeviceReading]:
        """The latest readings."""

    def refresh(self) -> object:
        """Read anew (blocking)."""


class RunningRequests:
    """The grants of every request on the node, by its id; several attempts may run at once."""

    def __init__(self) -> None:
        self._grants: dict[str, tuple[Grant, ...]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._grants.values()))

    def add(self, request_id: str, grant: Grant) -> None:
        """A request begins."""
        others = self._grants.get(request_id)
        self._grants[request_id] = (grant,) if others is None else (*others, grant)

    def remove(self, request_id: str, grant: Grant) -> None:
        """A request has ended."""
        all_of_it = self._grants.pop(request_id)
        if len(all_of_it) > 1:
            self._grants[request_id] = tuple(each for each in all_of_it if each is not grant)

    def raise_grants(self, updates: list[GrantUpdate]) -> int:
        """Adopt higher grants; returns how many requests were found."""
        found = 0
        for update in updates:
            for grant in self._grants.get(update.request_id, ()):
                grant.raise_to(update.granted)
                found += 1
        return found


@dataclass(slots=True)
class Node(Generic[R]):
    """Everything the management routes read.

    Args:
        normalise: Takes the scheme off a load's model id and makes it its source.
        foreteller: Says what would become of models that are not loaded.
        defaults: Boot-time models as they are to be loaded.
        socket: Where callers on this machine may come instead of to the port.
        multiplex: As of ``Discovery``.
    """

    name: str
    url: str
    build: BuildInfo
    engines: dict[str, str]
    registry: Registry[R]
    activator: Activator
    bus: Bus
    records: Records
    hardware: Hardware
    clock: Callable[[], float]
    started: float
    normalise: Callable[[LoadRequest], LoadRequest]
    foreteller: Foreteller
    defaults: tuple[LoadRequest, ...] = ()
    socket: LocalSocket | None = None
    multiplex: int = 0
    requests: RunningRequests = field(default_factory=RunningRequests)

    def discovery(self, *, local: bool) -> Discovery:
        """``GET /discovery``, for a caller on this machine or elsewhere."""
        found = self.hardware.discovery()
        socket = self.socket if local else None
        return msgspec.structs.replace(found, socket=socket, multiplex=self.multiplex)

    def version(self) -> NodeVersion:
        """``GET /version``."""
        return NodeVersion(**msgspec.structs.asdict(self.build), engines=self.engines)

    def health(self) -> Health:
        """``GET /health``; cached values only."""
        return Health(
            uptime_secs=round(self.clock() - self.started, 3),
            devices=self.hardware.devices(),
            activation=self.activator.snapshot(),
            models=self.registry.figures(),
            draining=self.registry.draining,
        )

    def models(self) -> list[ModelEntry]:
        """``GET /models``; cached values only."""
        return self.registry.listings()

    def spec_of(self, model_id: str, quant: str | None, source: str | None) -> LoadRequest:
        """How a model would be loaded when no more than this is said: as it is or was here, else
        as the settings have it."""
        named = self.normalise(LoadRequest(model_id, quant=quant, source=source))
        known = [e.spec for e in self.registry.entries() if e.model_id == named.model_id]
        known += [spec for spec in self.defaults if spec.model_id == named.model_id]
        if not known or quant is not None or named.source is not None:
            return named
        return known[0]

    async def check_reload(self, spec: LoadRequest) -> None:
        """A load with other settings ends what is loaded: not for one that cannot work.

        Raises:
            HelexaError: As the load would.
        """
        reload = self.registry.reload_of(spec)
        if reload is not None:
            await self.foreteller.check(reload)

    def snapshot(self) -> dict[str, object]:
        """The first event of ``/events``."""
        return {
            "health": self.health(),
            "models": self.models(),
            "draining": self.registry.draining,
        }

    def acknowledge(self, acks: list[Ack]) -> int:
        """Forget settled records; returns how many there were."""
        return sum(self.records.acknowledge(ack.request_id, ack.attempt) for ack in acks)

    def drain(self, on: bool = True) -> None:
        """Refuse new work (or accept it again) while what runs goes on."""
        if self.registry.draining != on:
            self.registry.draining = on
            self.bus.publish("drain", {"draining": on, "in_flight": len(self.requests)})
