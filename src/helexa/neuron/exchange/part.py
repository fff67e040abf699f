"""One prompt of several, as its delivery sees it: the request's grant and reader, and an end of its
own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helexa.core.fleet import RecordState
from helexa.neuron.exchange.asker import Reader
from helexa.neuron.exchange.caller import Caller
from helexa.neuron.exchange.desk import Desk, Outcome, Times
from helexa.neuron.grants import Grant
from helexa.neuron.registry.served import ServedModel
from helexa.relay.answer import Answer

if TYPE_CHECKING:
    from helexa.neuron.exchange.batch import Batch
    from helexa.neuron.exchange.delivery import Delivery
    from helexa.neuron.exchange.exchange import Exchange


class Part:
    """What a delivery asks of its request (``asker.Asker``).

    Args:
        number: Of the prompt, from 0.

    Attributes:
        times: Of this prompt alone.
    """

    as_is = True  # text completions are not translated
    show_usage = False  # told once, of all

    def __init__(self, exchange: Exchange, batch: Batch, number: int) -> None:
        self.number = number
        self.times = Times(exchange.times.received)
        self.answer = None if exchange.answer is None else _Stream(exchange.answer, self)
        self._exchange = exchange
        self._batch = batch

    # fmt: off
    @property
    def desk(self) -> Desk: return self._exchange.desk
    @property
    def caller(self) -> Caller: return self._exchange.caller
    @property
    def grant(self) -> Grant: return self._exchange.grant
    @property
    def reply(self) -> Reader: return self._exchange.reply
    @property
    def row(self) -> Part: return self
    # fmt: on

    def update(
        self,
        state: RecordState,  # noqa: ARG002
        granted: int,  # noqa: ARG002
        counts: tuple[int, int, int, int, int],  # noqa: ARG002
    ) -> None:
        """Something has changed; the record is of all prompts together."""
        self._batch.account()

    def said(self, output: int, reasoning: int) -> None:  # noqa: ARG002
        """As ``update``."""
        self._batch.account()

    def cells_to_begin(self, model: ServedModel, prompt: int, choices: int) -> int:
        """As of any request."""
        return self._exchange.cells_to_begin(model, prompt, choices)

    def spoken(self, out: bytes) -> bytes:
        """As it is."""
        return out

    def say_low(self, needed: int) -> None:
        """The grant is that of all prompts."""
        self._exchange.say_low(needed)

    async def room_for(self, tokens: int) -> bool:
        """As ``say_low``."""
        return await self._exchange.room_for(tokens)

    def conclude(self, outcome: Outcome) -> None:
        """The answer to this prompt is complete, or cut; once."""
        if not self.times.ended:
            self.times.ended = self.desk.loop.time()
            self._batch.concluded(self, outcome)

    def send(self, body: bytes) -> None:
        """This answer, to be put together with the others."""
        self._batch.plain(self, body)

    def streamed(self, last: bytes) -> None:
        """The end of this answer's stream."""
        self._batch.streamed(last)

    def answered(self, delivery: Delivery) -> None:
        """The engine has ended this answer."""
        self._batch.answered(self, delivery)

    def broken(self, error: BaseException) -> None:
        """A bug of ours."""
        self._exchange.broken(error)


class _Stream:
    """The reader of all answers, as one of them sees it."""

    def __init__(self, answer: Answer, part: Part) -> None:
        self._answer = answer
        self._part = part
        self.reply = answer.reply
        self.last = answer.last

    @property
    def committed(self) -> bool:
        """With the first event of any of them."""
        return self._answer.committed

    def write(self, events: bytes) -> None:
        """Whole events, among those of other prompts."""
        self._answer.write(events)

    def end(self, last: bytes = b"") -> None:
        """The others may not have ended."""
        self._part.streamed(last)
