"""The event that nearly all of an answer consists of, taken in one step.

::

    1f3␍␊data: {"choices":[{…"delta":{"content":" a"}}],…"timings":{…"predicted_n":7,…}}␊␊␍␊
    one HTTP chunk        = one event = one piece of text of the only choice, and its count

What is not exactly this is left alone, untouched and uncounted, for ``StreamCleaner.feed``, which
makes the same of it by the long way. Several such chunks that were read at once are taken at once,
all or none of them: a node that has more to do than one answer finds two or three in every tenth
read. What is decoded here is what is looked at: half of an event's
JSON is figures that only the last one needs, and they take longer to read than the rest. What must
not be there has a type that nothing fits: the decoder looks for it faster than we would.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from helexa.neuron.engines.llamacpp.chat import DELTA_END, REASONING, TEXT
from helexa.neuron.engines.llamacpp.stream import StreamCleaner

_HEAD = b"%x\r\ndata: {"
_END = b"\n\n\r\n"
_FRAME = 7  # bytes of a chunk around its payload, with a size of three digits
_JSON_AT = 11
_HEADS = tuple(_HEAD % max(0, size - _FRAME) for size in range(1024))
"""By the size of a whole chunk, how it begins; longer ones are rare."""
_NO_TEXT, _NO_THOUGHT = TEXT + b'"}', REASONING + b'"}'


class _Timings(msgspec.Struct, gc=False):
    """Of ``ChunkTimings``, what changes with a token."""

    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Choice(msgspec.Struct, gc=False):
    """As ``Choice``, in the middle of the only answer."""

    delta: msgspec.Raw
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None


class _Event(msgspec.Struct, gc=False):
    """As ``Chunk``, with a token and nothing else."""

    choices: tuple[_Choice]
    timings: _Timings
    usage: None = None
    prompt_progress: None = None
    error: None = None


_decode = msgspec.json.Decoder(_Event).decode


class Splicer:
    """Takes the usual events of one streamed chat answer with one choice; see ``base.Splice``."""

    __slots__ = ("_cleaner", "_meter", "_state")

    def __init__(self, cleaner: StreamCleaner) -> None:
        self._cleaner = cleaner
        self._meter = cleaner.meter
        self._state = cleaner.first

    def __call__(self, chunk: bytes, most: int) -> bytes:
        """The clean event, counted; nothing if this is not the usual case."""
        size, state = len(chunk), self._state
        if not (chunk.endswith(_END) and state.opened and not self._cleaner.done):
            return b""
        if chunk.find(b"\n", _JSON_AT) != size - 4:
            return self._several(chunk.split(_END)[:-1], most)
        if not chunk.startswith(_HEADS[size] if size < len(_HEADS) else _HEAD % (size - _FRAME)):
            return b""
        try:
            said = _decode(chunk[_JSON_AT:])
            if not chunk.isascii():
                chunk.decode()
        except ValueError:
            return b""
        timings, meter = said.timings, self._meter
        fresh = timings.predicted_n - state.taken
        delta = bytes(said.choices[0].delta)
        if not 0 < fresh <= most or delta == _NO_TEXT:
            return b""
        if not delta.startswith(TEXT):
            if delta == _NO_THOUGHT or not delta.startswith(REASONING):
                return b""
            meter.reasoning += fresh + state.pending
        state.taken += fresh
        state.pending = 0
        meter.output += fresh
        meter.predicted_ms = timings.predicted_ms
        return state.prefix + delta + DELTA_END

    def _several(self, chunks: list[bytes], most: int) -> bytes:
        """The clean events of chunks, given without their ends; where one of them is not the usual
        case, everything is as if none had been taken."""
        if len(chunks) < 2:
            return b""
        meter, state = self._meter, self._state
        counts = meter.output, meter.reasoning, meter.predicted_ms, state.taken, state.pending
        clean = []
        for chunk in chunks:
            before = meter.output
            out = self(chunk + _END, most)
            if not out:
                meter.output, meter.reasoning, meter.predicted_ms, *kept = counts
                state.taken, state.pending = kept
                return b""
            most -= meter.output - before
            clean.append(out)
        return b"".join(clean)
