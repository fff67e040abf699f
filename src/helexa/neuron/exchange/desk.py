"""What every exchange of a node shares, and the small types of one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from helexa.core.fleet import RecordState, RequestRecord
from helexa.core.ids import IdSource
from helexa.core.logging import Logger
from helexa.neuron.exchange import closing
from helexa.neuron.metrics import NeuronMetrics
from helexa.neuron.registry.served import ServedModel
from helexa.neuron.service import Node
from helexa.neuron.settings import GrantSettings
from helexa.relay.attempt import Deadlines
from helexa.relay.books import Books
from helexa.relay.wheel import Wheel

if TYPE_CHECKING:
    from helexa.neuron.exchange.exchange import Exchange

Outcome = Literal["complete", "cut", "cancelled", "failed", "refused"]
"""``refused`` never reached the engine and has no record."""

_UNBOUNDED = 1e9
DEADLINES = Deadlines(send=30.0, first_byte=_UNBOUNDED, between_bytes=_UNBOUNDED)
"""Towards an engine only the watchdog decides that nothing comes any more."""

THREAD_BYTES = 256 * 1024
"""Bodies above this are parsed off the loop."""


class Row(Protocol):
    """The record of one request; it survives the node."""

    def write(self, record: RequestRecord) -> None:
        """Replace the counts and the state."""

    def update(
        self,
        state: RecordState,
        granted: int,
        counts: tuple[int, int, int, int, int],
    ) -> None:
        """The same at every event, for a state that is not final; ``counts`` as in ``Billed``."""

    def said(self, output: int, reasoning: int) -> None:
        """More of an answer whose other counts stand; done at every token."""

    def forget(self) -> None:
        """Nobody will ask for it."""


class Records(Protocol):
    """Where records are opened."""

    def open(self, record: RequestRecord) -> Row:
        """A fresh record."""


@dataclass(slots=True)
class Desk:
    """Everything an exchange needs that is not its own."""

    node: Node[ServedModel]
    records: Records
    metrics: NeuronMetrics
    wheel: Wheel
    loop: asyncio.AbstractEventLoop
    grants: GrantSettings
    commit_s: float
    ids: IdSource
    log: Logger
    books: Books[Exchange] = field(init=False)

    def __post_init__(self) -> None:
        self.books = Books(closing.close_all, self.loop)


@dataclass(slots=True)
class Times:
    """Loop times of one request (seconds); 0 is not yet."""

    received: float
    seated: float = 0.0
    began: float = 0.0
    first: float = 0.0
    ended: float = 0.0

    def ms(self, start: float, stop: float) -> float | None:
        """Milliseconds between two of them; None unless both happened."""
        return round((stop - start) * 1000, 2) if start and stop else None
