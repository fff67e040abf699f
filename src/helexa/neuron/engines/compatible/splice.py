"""The event that nearly all of an answer consists of, taken in one step.

::

    fc␍␊data: {…"choices":[{"index":0,"delta":{"content":" a"},…"token_ids":[220]}]}␊␊␍␊
    one HTTP chunk      = one event = one piece of text of the only choice, and its tokens

What is not exactly this is left alone, untouched and uncounted, for ``StreamCleaner.feed``, which
makes the same of it by the long way, with the same decoder and the same tally.
"""

from __future__ import annotations

from helexa.neuron.engines.compatible.chat import text_chunk
from helexa.neuron.engines.compatible.chunks import Choice, Chunk, decode_chunk
from helexa.neuron.engines.compatible.stream import StreamCleaner
from helexa.neuron.engines.compatible.tally import Tally

_HEAD = b"%x\r\ndata: {"
_FRAME = 4  # bytes of a chunk around its payload, without the digits of its size
_JSON_AT = 8
_TWO_DIGITS = 0xFF + _FRAME + 2  # bytes of the longest chunk whose size has two digits


class Splicer:
    """Takes the usual events of one streamed chat answer with one choice; see ``base.Splice``."""

    __slots__ = ("_cleaner", "_tally")

    def __init__(self, cleaner: StreamCleaner, tally: Tally) -> None:
        self._cleaner = cleaner
        self._tally = tally

    def __call__(self, chunk: bytes, most: int) -> bytes:
        """The clean event, counted; nothing if this is not the usual case."""
        size = len(chunk)
        digits = 2 if size <= _TWO_DIGITS else 3
        at = digits + _JSON_AT
        if not (
            chunk.startswith(_HEAD % (size - digits - _FRAME))
            and chunk.find(b"\n", at) == size - 4
            and chunk.endswith(b"\n\n\r\n")
        ):
            return b""
        try:
            choice = _only_choice(decode_chunk(chunk[at:]))
            if not chunk.isascii():
                chunk.decode()
        except ValueError:
            return b""
        state = self._cleaner.only
        if choice is None or state is None:
            return b""
        fresh = 1 if choice.token_ids is None else len(choice.token_ids)
        kind, text = _only_text(choice)
        if not text or not 0 < fresh <= most:
            return b""
        state.kind = kind
        self._tally.take(state, fresh)
        self._tally.own_reasoning(state, fresh)
        return text_chunk(state, text)


def _only_choice(chunk: Chunk) -> Choice | None:
    """The first choice of a chunk that holds nothing else and does not end it."""
    choices = chunk.choices
    if choices is None or len(choices) != 1 or chunk.usage is not None:
        return None
    if chunk.error or chunk.prompt_token_ids or chunk.metrics is not None:
        return None
    choice = choices[0]
    if choice.index or choice.finish_reason is not None or choice.said_logprobs():
        return None
    return choice


def _only_text(choice: Choice) -> tuple[str, str]:
    """Its kind and the text, if it is the one thing in the delta."""
    delta = choice.delta
    if delta is None or delta.tool_calls or delta.refusal:
        return "", ""
    thought = delta.reasoning_content or delta.reasoning
    if not thought:
        return "content", delta.content or ""
    return "reasoning", "" if delta.content else thought
