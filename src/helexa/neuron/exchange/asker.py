"""Whose answer a delivery is: an exchange, or one prompt of several (``batch``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from helexa.core.fleet import RecordState
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.desk import Desk, Outcome, Times
from helexa.neuron.grants import Grant
from helexa.neuron.registry.served import ServedModel

if TYPE_CHECKING:
    from helexa.neuron.exchange.delivery import Delivery


class Reader(Protocol):
    """Who takes bytes, and may have taken the last."""

    @property
    def ended(self) -> bool:
        """The answer is complete."""

    def write(self, data: bytes) -> None:
        """Some more."""


class Outlet(Protocol):
    """Where a streamed answer goes; see ``relay.Answer``."""

    last: float

    @property
    def reply(self) -> Reader:
        """For whoever writes past this, and sets ``last``."""

    @property
    def committed(self) -> bool:
        """The 200 has been sent."""

    def write(self, events: bytes) -> None:
        """Whole events."""

    def end(self, last: bytes = b"") -> None:
        """The last of them."""


class Account(Protocol):
    """Where the costs of an answer are noted; see ``desk.Row``."""

    def update(
        self, state: RecordState, granted: int, counts: tuple[int, int, int, int, int]
    ) -> None:
        """All counts."""

    def said(self, output: int, reasoning: int) -> None:
        """Those that change with every token."""


class Asker(Protocol):
    """What a delivery knows of its request, and tells it."""

    # fmt: off
    @property
    def desk(self) -> Desk: ...
    @property
    def caller(self) -> Caller: ...
    @property
    def grant(self) -> Grant: ...
    @property
    def times(self) -> Times: ...
    @property
    def reply(self) -> Reader: ...
    @property
    def answer(self) -> Outlet | None: ...
    @property
    def row(self) -> Account | None: ...
    @property
    def as_is(self) -> bool: ...
    @property
    def show_usage(self) -> bool: ...
    # fmt: on

    def cells_to_begin(self, model: ServedModel, prompt: int, choices: int) -> int:
        """KV cells for a prompt and the beginning of its answers."""

    def spoken(self, out: bytes) -> bytes:
        """Clean events as the caller reads them."""

    def say_low(self, needed: int) -> None:
        """The grant is nearly used up; ``needed`` tokens are missing."""

    async def room_for(self, tokens: int) -> bool:
        """Whether the grant grows by so much in time."""

    def conclude(self, outcome: Outcome) -> None:
        """The answer is complete, or cut: note it before the reader can have seen it."""

    def send(self, body: bytes) -> None:
        """The whole answer, not streamed."""

    def answered(self, delivery: Delivery) -> None:
        """The engine's answer has ended, well or not."""

    def broken(self, error: BaseException) -> None:
        """A bug of ours."""
