"""What the gateway knows about its nodes, frozen.

Different facts, of which none implies another: *reachable* (the node answered within its last
three tries) and *draining* (it takes nothing new) are a node's; *servable* (a minimal request
would be accepted now), *busy* (it is serving), *loading* and *recovering* are a model's there.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from helexa.core.fleet import (
    Activation,
    DeviceReading,
    Discovery,
    ModelEntry,
    ModelLoad,
    NodeVersion,
)
from helexa.core.outlook import Outlook

STRIKES = 3
"""Missed polls in a row after which a node is dead."""

NodeState = Literal["unknown", "reachable", "unreachable"]


class ModelState(msgspec.Struct, frozen=True):
    """One model on one node: its entry, and its live figures."""

    entry: ModelEntry
    load: ModelLoad

    @property
    def ready(self) -> bool:
        """Loaded, and a minimal request would be accepted."""
        return self.entry.status == "loaded" and self.entry.servable.ok

    @property
    def servable(self) -> bool:
        """A minimal request would be accepted, as the node says; whether it is busy or not."""
        return self.entry.servable.ok

    @property
    def busy(self) -> bool:
        """Requests run or queue there, by the node's report; it may be servable all the same."""
        return bool(self.load.in_flight or self.load.queue_depth)

    @property
    def loading(self) -> bool:
        """On its way in: a request may wait for it."""
        return self.entry.status in ("loading", "reloading")

    @property
    def recovering(self) -> bool:
        """Its engine died and is being restarted by its node."""
        return self.entry.status == "recovering"


class NodeSnapshot(msgspec.Struct, frozen=True):
    """One node as it was last heard of.

    Args:
        name: From the configuration.
        endpoint: Base URL without a trailing slash.
        answered: It has answered at least once in this gateway's life.
        strikes: Polls missed in a row.
        error: Why the last poll failed.
        events: Its event stream is connected.
        epoch: Its life, when it tells.
        last_seen: Epoch seconds of its last answer.
        models: By id; kept while the node is silent, so that nothing flickers.
        outlooks: What would become of the catalogue's models here, as far as it has been asked.
    """

    name: str
    endpoint: str
    answered: bool = False
    strikes: int = 0
    error: str | None = None
    draining: bool = False
    events: bool = False
    epoch: int | None = None
    last_seen: float | None = None
    uptime_secs: float = 0.0
    version: NodeVersion | None = None
    discovery: Discovery | None = None
    activation: Activation = Activation()
    devices: tuple[DeviceReading, ...] = ()
    models: dict[str, ModelState] = {}
    outlooks: dict[str, Outlook] = {}

    @property
    def reachable(self) -> bool:
        """It has answered, and not missed three polls in a row since."""
        return self.answered and self.strikes < STRIKES

    @property
    def settled(self) -> bool:
        """What we say about it rests on something: an answer, or three strikes."""
        return self.answered or self.strikes >= STRIKES

    @property
    def state(self) -> NodeState:
        """In one word."""
        if self.reachable:
            return "reachable"
        return "unreachable" if self.strikes >= STRIKES else "unknown"


class FleetSnapshot(msgspec.Struct, frozen=True):
    """Every configured node; ``generation`` grows with every change of any of them."""

    nodes: tuple[NodeSnapshot, ...] = ()
    generation: int = 0

    @property
    def settled(self) -> bool:
        """Every configured node has answered or failed three times: absence means absence."""
        return all(node.settled for node in self.nodes)

    @property
    def reachable(self) -> tuple[NodeSnapshot, ...]:
        """The nodes that are not dead."""
        return tuple(node for node in self.nodes if node.reachable)

    def node(self, name: str) -> NodeSnapshot | None:
        """One node by name."""
        return next((node for node in self.nodes if node.name == name), None)
