"""llama.cpp's event stream, decoded just enough: what an event holds and what it has cost.

One event is one JSON object; ``delta`` and ``logprobs`` stay bytes. With ``timings_per_token``
every event that carries tokens says how many its choice has taken so far (``predicted_n``), held
back bytes included, so the meter is exact after each event. Usage chunks come once per choice,
right behind that choice's finish chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from helexa.core.errors import HelexaError, InvalidRequestBody
from helexa.neuron.engines.base import Meter, Served
from helexa.neuron.engines.cleaner import EndingCleaner, Endings
from helexa.neuron.engines.llamacpp.errors import EngineError, map_engine_error
from helexa.neuron.engines.render import Envelope

_NOTHING = msgspec.Raw(b"")
_JSON = b"data: {"
_FINISHES = frozenset(("stop", "length", "tool_calls"))


class Choice(msgspec.Struct, gc=False):
    """One element of ``choices``."""

    index: int = 0
    finish_reason: str | None = None
    delta: msgspec.Raw = _NOTHING
    logprobs: msgspec.Raw = _NOTHING
    text: str = ""


class ChunkTimings(msgspec.Struct, gc=False):
    """Counts so far of one choice; milliseconds."""

    cache_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int = 0


class ChunkUsage(msgspec.Struct, gc=False):
    """The usage of one choice."""

    completion_tokens: int = 0
    prompt_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class Progress(msgspec.Struct, gc=False):
    """How far the prompt is; ``processed`` includes what was cached."""

    total: int = 0
    cache: int = 0
    processed: int = 0
    time_ms: float = 0.0


class Verbose(msgspec.Struct, gc=False):
    """What llama.cpp tells of the end in its own dialect only."""

    stopping_word: str = ""


class Chunk(msgspec.Struct, gc=False):
    """One event."""

    choices: list[Choice] = []
    timings: ChunkTimings | None = None
    usage: ChunkUsage | None = None
    prompt_progress: Progress | None = None
    error: EngineError | None = None
    verbose: Verbose | None = msgspec.field(name="__verbose", default=None)


decode_chunk = msgspec.json.Decoder(Chunk).decode


@dataclass(slots=True, eq=False)
class ChoiceState:
    """One answer on its way: ``taken`` counts its tokens, ``pending`` those whose text the
    engine still holds back, ``stop`` is the client's text that ended it."""

    index: int
    prefix: bytes
    taken: int = 0
    pending: int = 0
    finish: str | None = None
    stop: str | None = None
    opened: bool = False
    called: bool = False
    deltas: list[msgspec.Raw] = field(default_factory=list)
    logprobs: list[msgspec.Raw] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Dialect(Endings[ChoiceState], Protocol):
    """How a choice's events look in the answer (chat or legacy text)."""

    @property
    def prefix(self) -> Callable[[int], bytes]:
        """Bytes before a delta of a choice."""

    def event(self, choice: Choice, state: ChoiceState, fresh: int, meter: Meter) -> bytes:
        """Clean bytes of one choice of one event that brought ``fresh`` tokens."""


class StreamCleaner(EndingCleaner[ChoiceState]):
    """Cleans and counts one request's stream; see ``base.Cleaner``."""

    def __init__(self, envelope: Envelope, dialect: Dialect, served: Served) -> None:
        super().__init__(envelope, dialect, served, Meter())
        self._dialect = dialect
        self.first = ChoiceState(0, dialect.prefix(0))
        self._choices[0] = self.first
        self._ending = self.first

    def feed(self, events: bytes) -> bytes:
        """Clean events for the whole engine events ``events``."""
        if events.find(b"\n") == len(events) - 2:  # the usual case: one
            if events.startswith(_JSON) and not self.done:
                return self._json(events)
            return self._event(events[:-2])
        return b"".join(map(self._event, filter(None, events.split(b"\n\n"))))

    def _event(self, event: bytes) -> bytes:
        if self.done:
            return b""
        if not event.startswith(b"data: "):
            return self._other(event)
        if event == b"data: [DONE]":
            return self._engine_done()
        return self._json(event)

    def _json(self, event: bytes) -> bytes:
        try:
            if not event.isascii():
                event.decode()  # what stays undecoded below has to be text all the same
            chunk = decode_chunk(event[6:])
            if chunk.timings is not None and chunk.prompt_progress is None:
                choices = chunk.choices
                if len(choices) == 1 and chunk.usage is None and chunk.error is None:
                    # nearly every event
                    return self._choice(choices[0], chunk.timings, chunk.verbose)
            return self._chunk(chunk)
        except ValueError:  # msgspec's errors are among them
            return self._fail(self._garbage())

    def _other(self, event: bytes) -> bytes:
        """Comments keep a connection alive; an older form of errors has a field of its own."""
        event = event.lstrip(b"\r\n")
        if event.startswith(b":") or not event:
            return b""
        if event.startswith(b"data:"):
            return self._event(b"data: " + event[5:].lstrip())
        if event.startswith(b"error:"):
            try:
                found = msgspec.json.decode(event[6:], type=EngineError, strict=False)
                return self._fail(map_engine_error(found, found.code, self._served))
            except msgspec.MsgspecError:
                pass
        return self._fail(self._garbage())

    def _chunk(self, chunk: Chunk) -> bytes:
        if chunk.error is not None:
            return self._fail(map_engine_error(chunk.error, chunk.error.code, self._served))
        if chunk.prompt_progress is not None:
            self._progress(chunk.prompt_progress)
            return b""
        choices = chunk.choices
        if len(choices) == 1:
            out = self._choice(choices[0], chunk.timings, chunk.verbose)
        else:
            told = chunk.timings, chunk.verbose
            out = b"".join([self._choice(choice, *told) for choice in choices])
        if chunk.usage is not None:
            if not chunk.usage.prompt_tokens:
                return self._fail(_empty())
            self._usage(chunk.usage, chunk.timings)
        return out

    def _progress(self, progress: Progress) -> None:
        meter = self.meter
        meter.prompt = progress.total
        meter.cached = progress.cache
        meter.prompt_processed = max(meter.prompt_processed, progress.processed)
        meter.prompt_ms = progress.time_ms
        meter.prompt_known = True

    def _choice(
        self, choice: Choice, timings: ChunkTimings | None, stopped: Verbose | None
    ) -> bytes:
        index = choice.index
        state = self.first if index == 0 else self._choices.get(index)
        if state is None:
            state = self._choices[index] = ChoiceState(index, self._dialect.prefix(index))
        fresh = 0
        if timings is not None:
            fresh = timings.predicted_n - state.taken
            state.taken += fresh
            meter = self.meter
            meter.output += fresh
            meter.predicted_ms = timings.predicted_ms
        if choice.finish_reason is not None:
            self._ending = state
            if stopped is not None:
                state.stop = stopped.stopping_word or None
        return self._dialect.event(choice, state, fresh, self.meter)

    def _usage(self, usage: ChunkUsage, timings: ChunkTimings | None) -> None:
        """The engine's last word on one choice."""
        meter = self.meter
        state = self._ending
        meter.output += usage.completion_tokens - state.taken
        state.taken = usage.completion_tokens
        meter.prompt = meter.prompt_processed = usage.prompt_tokens
        meter.prompt_known = True
        if usage.prompt_tokens_details is not None:
            meter.cached = usage.prompt_tokens_details.cached_tokens
        if timings is not None:
            meter.prompt_ms = timings.prompt_ms
            meter.predicted_ms = max(meter.predicted_ms, timings.predicted_ms)


def _empty() -> HelexaError:
    return InvalidRequestBody(
        "`prompt` is empty, and this model begins with no token of its own.", param="prompt"
    )


def known_finish(reason: str, state: ChoiceState) -> str:
    """The engine's reason in the dialect's words; calls always end as ``tool_calls``."""
    if state.called and reason == "stop":
        return "tool_calls"
    return reason if reason in _FINISHES else "stop"
