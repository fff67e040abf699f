"""The event that nearly all of an answer consists of, taken in one step.

::

    1f3␍␊data: {"choices":[{…"delta":{"content":" a"}}],…"timings":{…"predicted_n":7,…}}␊␊␍␊
    one HTTP chunk        = one event = one piece of text of the only choice, and its count

What is not exactly this is left alone, untouched and uncounted, for ``StreamCleaner.feed``, which
makes the same of it by the long way; both decode with the same decoder.
"""

from __future__ import annotations

from helexa.neuron.engines.llamacpp.chat import DELTA_END, EMPTY, REASONING, TEXT
from helexa.neuron.engines.llamacpp.stream import StreamCleaner, decode_chunk

_HEAD = b"%x\r\ndata: {"
_FRAME = 7  # bytes of a chunk around its payload, with a size of three digits
_JSON_AT = 11


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
        if not (
            chunk.startswith(_HEAD % (size - _FRAME))
            and chunk.find(b"\n", _JSON_AT) == size - 4
            and chunk.endswith(b"\n\n\r\n")
            and state.opened
            and not self._cleaner.done
        ):
            return b""
        try:
            said = decode_chunk(chunk[_JSON_AT:])
            if not chunk.isascii():
                chunk.decode()
        except ValueError:
            return b""
        timings, choices = said.timings, said.choices
        if timings is None or len(choices) != 1 or said.usage or said.error or said.prompt_progress:
            return b""
        choice = choices[0]
        fresh = timings.predicted_n - state.taken
        if choice.index or choice.finish_reason is not None or choice.logprobs:
            return b""
        delta = bytes(choice.delta)
        if not 0 < fresh <= most or delta in EMPTY:
            return b""
        if delta.startswith(REASONING):
            self._meter.reasoning += fresh + state.pending
        elif not delta.startswith(TEXT):
            return b""
        state.taken += fresh
        state.pending = 0
        self._meter.output += fresh
        self._meter.predicted_ms = timings.predicted_ms
        return state.prefix + delta + DELTA_END
