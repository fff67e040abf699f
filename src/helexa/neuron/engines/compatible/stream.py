"""The stream of an OpenAI-compatible engine: decoded, counted, handed to its dialect.

How it is counted is the ``tally``'s business.
"""

from __future__ import annotations

from typing import Protocol

from helexa.core.errors import UpstreamConnectionError
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.cleaner import EndingCleaner, Endings
from helexa.neuron.engines.compatible.chunks import (
    FINISHES,
    Choice,
    ChoiceState,
    Chunk,
    ChunkUsage,
    decode_chunk,
    well_formed,
)
from helexa.neuron.engines.compatible.errors import EngineError, map_engine_error, read_error
from helexa.neuron.engines.compatible.tally import Tally
from helexa.neuron.engines.render import Envelope
from helexa.wire.images import images
from helexa.wire.parsers.stops import StopText

IMAGE_TOKENS = 64
"""Of one image, in a guess."""
_DATA = b"data:"


class Dialect(Endings[ChoiceState], Protocol):
    """How a choice's chunks look in the answer (chat or legacy text)."""

    def prefix(self, index: int) -> bytes:
        """Bytes before a delta of choice ``index``."""

    def carries(self, choice: Choice) -> bool:
        """Whether a chunk holds any of the answer."""

    def event(self, choice: Choice, state: ChoiceState, meter: Meter) -> bytes:
        """Clean bytes of one choice of one chunk; sets ``state.kind``."""


class StreamCleaner(EndingCleaner[ChoiceState]):
    """Cleans and counts one request's stream; see ``base.Cleaner``.

    Args:
        tally: Counts it.
        ends_with_done: ``[DONE]`` is the end; otherwise the last usage may be.
        stops: Texts that end the answer, where the engine does not look for them.
    """

    def __init__(
        self,
        envelope: Envelope,
        dialect: Dialect,
        served: Served,
        tally: Tally,
        *,
        ends_with_done: bool = True,
        stops: tuple[str, ...] = (),
    ) -> None:
        super().__init__(envelope, dialect, served, tally.meter)
        self._dialect = dialect
        self._tally = tally
        self._ends_with_done = ends_with_done
        self._stops = stops
        self._stopped = False  # at a stop string, by us

    @property
    def only(self) -> ChoiceState | None:
        """The first choice once it has begun, while the answer goes on."""
        state = self._choices.get(0)
        return state if state is not None and state.opened and not self.done else None

    def feed(self, events: bytes) -> bytes:
        """Clean events for the whole engine events ``events``."""
        if events.find(b"\n") == len(events) - 2 and events.startswith(_DATA):  # the usual case
            return b"" if self.done else self._data(events[5:-2])
        return b"".join([self._event(event) for event in events.split(b"\n\n") if event])

    def _states(self) -> list[ChoiceState]:
        """What there is of every choice, in order; of the first at least."""
        if not self._choices:
            self._state(0)
        return super()._states()

    def _state(self, index: int) -> ChoiceState:
        state = self._choices.get(index)
        if state is None:
            cut = StopText(self._stops) if self._stops else None
            state = ChoiceState(index, self._dialect.prefix(index), cut=cut)
            self._choices[index] = state
        return state

    def _terminate(self) -> bytes:
        self.meter.estimated = not self._tally.told
        return super()._terminate()

    # ── events ──────────────────────────────────────────────────────────────────────────────

    def _event(self, event: bytes) -> bytes:
        """One event; of its lines only data counts (an ``event: error`` says so in its data)."""
        if self.done:
            return b""
        lines = event.replace(b"\r", b"").split(b"\n")
        data = [line[len(_DATA) :].strip() for line in lines if line.startswith(_DATA)]
        if data:
            return self._data(b"\n".join(data))
        names = (b":", b"event:", b"id:", b"retry:")
        if all(not line or line.startswith(names) for line in lines):
            return b""
        return self._fail(self._garbage())

    def _data(self, data: bytes) -> bytes:
        if data.strip() == b"[DONE]":
            return self._engine_done()
        try:
            if not data.isascii():
                data.decode()  # what stays undecoded below has to be text all the same
            chunk = decode_chunk(data)
        except ValueError:  # msgspec's errors are among them
            return self._fail(self._garbage())
        if chunk.error and bytes(chunk.error) != b"null":
            return self._error(read_error(chunk.error))
        return self._chunk(chunk)

    def _error(self, found: EngineError) -> bytes:
        return self._fail(map_engine_error(found, found.status or 500, self._served))

    def _chunk(self, chunk: Chunk) -> bytes:
        usage, choices = chunk.usage, chunk.choices or []
        self._tally.begin(chunk, choices)
        out = b"".join([self._choice(choice, usage) for choice in choices])
        self._tally.end(chunk, choices)
        last = self._stopped or (usage is not None and not self._ends_with_done)
        if last and self._finished() and not self.done:
            out += self._engine_done()
        return out

    def _choice(self, choice: Choice, usage: ChunkUsage | None) -> bytes:
        if choice.finish_reason is not None and choice.finish_reason not in FINISHES:
            return self._fail(UpstreamConnectionError(
                f"The engine of {self._served.model_id} gave the answer up.")
            )  # fmt: skip
        if not well_formed(choice):
            return self._fail(self._garbage())
        state = self._state(choice.index)
        carries = self._dialect.carries(choice)
        fresh = self._tally.fresh(choice, state, usage, carries=carries)
        if choice.finish_reason is not None and isinstance(choice.stop_reason, str):
            state.stop = choice.stop_reason
        if state.cut is not None:
            self._cut(state.cut, choice, state)
        out = self._dialect.event(choice, state, self.meter)
        if usage is None or usage.completion_tokens_details is None:
            self._tally.own_reasoning(state, fresh)
        return out

    def _cut(self, cut: StopText, choice: Choice, state: ChoiceState) -> None:
        """Take the text from a stop string on out of a chunk; an engine that goes on writing
        behind one is not waited for."""
        if cut.hit is not None and choice.finish_reason is None and self._dialect.carries(choice):
            choice.finish_reason, self._stopped = "stop", True
        rest = cut.end if choice.finish_reason is not None else str
        if choice.text is not None:
            choice.text = cut.feed(choice.text) + rest()
        elif choice.delta is not None:
            choice.delta.content = cut.feed(choice.delta.content or "") + rest()
        if cut.hit is not None:
            state.stop = cut.hit
            if choice.finish_reason == "length":
                choice.finish_reason = "stop"


def guess_tokens(body: bytes) -> int:
    """Prompt tokens of a request nobody has counted, rather too few: a quarter of its bytes, and
    a little for every image, whose bytes say nothing."""
    carried = images(body)
    return max(1, (len(body) - carried.size) // 4 + carried.number * IMAGE_TOKENS)


__all__ = ["StreamCleaner", "guess_tokens"]
