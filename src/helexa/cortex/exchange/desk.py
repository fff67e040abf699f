"""What every exchange shares, and the small types of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec

from helexa.core.fleet import RequestRecord
from helexa.core.ids import IdSource
from helexa.core.logging import Logger
from helexa.core.principal import Principal
from helexa.core.usage import Timings, Usage
from helexa.cortex.auth import KeyTable
from helexa.cortex.exchange import closing
from helexa.cortex.exchange.settling import Settler
from helexa.cortex.habits import Habits
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.links import Links
from helexa.cortex.metrics import CortexMetrics
from helexa.cortex.residency.waiting import Waiter
from helexa.cortex.routing import explain
from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.breaker import Kind
from helexa.cortex.routing.choice import Choice
from helexa.cortex.routing.work import Work
from helexa.cortex.seats import KeySeats
from helexa.relay.attempt import Deadlines
from helexa.relay.books import Books
from helexa.relay.wheel import Wheel
from helexa.wire.peek import Peek

if TYPE_CHECKING:
    from helexa.cortex.exchange.exchange import Exchange

Outcome = Literal["complete", "cancelled", "broken", "failed", "refused"]
"""``refused`` never reached a node; ``failed`` got no answer from one; ``broken`` lost one
midway; ``cancelled`` was given up by the client."""

THREAD_BYTES = 256 * 1024
"""Bodies above this are parsed off the loop: a millisecond is the longest it may stand still."""


class Placed(msgspec.Struct, gc=False):
    """Where a request goes; kept with its timeline, so the collector is spared it.

    Args:
        work: The place's own counters, for its lease.
        ask: The prompt as routing saw it, where there was a choice.
        choice: The candidates and how they stood, where there was one.
        cold: It had to be loaded first.
    """

    node: str
    work: Work | None = None
    ask: Ask | None = None
    choice: Choice | None = None
    cold: bool = False

    @property
    def why(self) -> str:
        """The choice in a few words, for whoever asks later."""
        words = "the only one that has it" if self.choice is None else explain.why(self.choice)
        return f"{words}, after its load" if self.cold else words


class Lease(Protocol):
    """A request's share of a node's work, while it is there."""

    def started(self) -> None:
        """Its first token has come."""

    def release(self) -> None:
        """It has ended; idempotent."""


class Placer(Protocol):
    """Finds the node for a request."""

    def find(
        self,
        name: str,
        principal: Principal,
        seen: Peek,
        hint: bytes | None,
        ask: Ask | None = None,
        need: str = "text",
    ) -> tuple[str, Placed | None]:
        """The concrete id behind a name, and the best node that can take it at once.

        Args:
            seen: The request; its prompt says who may have computed some of it before.
            hint: What the client's headers call the conversation.
            ask: What ``seen`` asks for, if it was read in a thread.
            need: What the model must be able to do; see ``routing.able``.

        Raises:
            ModelNotFound, Forbidden, ServiceUnavailable, UnsupportedOperation, VisionUnsupported:
                What needs no waiting to be refused.
        """

    def now(
        self, model: str, avoid: AbstractSet[str], ask: Ask | None, need: str = "text"
    ) -> Placed | None:
        """The best node that can take the request at once."""

    async def later(
        self,
        model: str,
        principal: Principal,
        avoid: AbstractSet[str],
        deadline: float | None,
        told: Callable[[Waiter], object],
        need: str = "text",
    ) -> Placed:
        """Wait for a node that can, loading the model if need be.

        Args:
            told: Called with the place in line.

        Raises:
            TryLater: With what is known about when.
        """

    def lease(self, placed: Placed, model: str) -> Lease:
        """Count the request as that node's work."""

    def learn(
        self, model: str, placed: Placed, usage: Usage | None, timings: Timings | None
    ) -> None:
        """A request that went to a place has ended; what it told, if it was answered."""

    def failed(self, placed: Placed, kind: Kind) -> None:
        """A request failed at a place; refusals are no failures."""


class Watcher(Protocol):
    """Somebody who records what passes (capture)."""

    def request(self, body: bytes, chat: bytes | None = None) -> None:
        """The client's body, and what nodes get of it."""

    def response(self, data: bytes) -> None:
        """Bytes as they leave for the client."""

    def close(self, status: int, outcome: str) -> None:
        """It has ended."""


class Observers(Protocol):
    """What is kept about requests beyond their metrics."""

    def finished(self, ended: Sequence[Exchange]) -> None:
        """Keep the timelines of exchanges that have ended."""

    def heard(self, record: RequestRecord) -> None:
        """A node's last word about a request: what it has cost."""

    def watch(self, principal: Principal, model: str, request_id: str) -> Watcher | None:
        """A watcher if this request is being captured."""


@dataclass(slots=True)
class Desk:
    """Everything an exchange needs that is not its own."""

    keys: KeyTable
    seats: KeySeats
    ledger: Ledger
    placer: Placer
    links: Links
    settler: Settler
    metrics: CortexMetrics
    observers: Observers
    wheel: Wheel
    loop: asyncio.AbstractEventLoop
    deadlines: Deadlines
    ids: IdSource
    log: Logger
    now: Callable[[], float]
    """Monotonic seconds on the loop's clock; finer than the loop's own, which ticks in ms."""
    habits: Habits | None = None
    commit_s: float = 0.8
    retries: int = 2
    slice_tokens: int = 512
    books: Books[Exchange] = field(init=False)

    def __post_init__(self) -> None:
        self.books = Books(closing.close_all, self.loop)
        self.ledger.before_short = self.books.flush


class Tried(NamedTuple):
    """A candidate that did not answer: where, the code of why, and how long it took (ms)."""

    node: str
    code: str | None
    ms: float


class Times:
    """Times of one request by ``Desk.now`` (seconds); 0 is not yet.

    No ``msgspec.Struct``: to set a member of one takes many times as long.

    Args:
        granted: When room was first asked for.
        queued: Not a time but a duration: what the node says it kept the request waiting.
        retried: A duration, too: spent on candidates that did not answer.
    """

    __slots__ = (
        "connected",
        "ended",
        "first",
        "first_byte",
        "granted",
        "last",
        "placed",
        "queued",
        "received",
        "retried",
    )

    def __init__(
        self,
        received: float,
        granted: float = 0.0,
        placed: float = 0.0,
        connected: float = 0.0,
        first_byte: float = 0.0,
        first: float = 0.0,
        last: float = 0.0,
        ended: float = 0.0,
        queued: float = 0.0,
        retried: float = 0.0,
    ) -> None:
        self.received = received
        self.granted = granted
        self.placed = placed
        self.connected = connected
        self.first_byte = first_byte
        self.first = first
        self.last = last
        self.ended = ended
        self.queued = queued
        self.retried = retried

    def ms(self, start: float, stop: float) -> float | None:
        """Milliseconds between two of them; None unless both happened."""
        return round((stop - start) * 1000, 2) if start and stop else None
