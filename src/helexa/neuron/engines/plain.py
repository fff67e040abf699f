"""The request that is asked most: texts in turns, and nothing that has to be looked into.

What such a request may be is said by types, so that the decoder checks it while it reads, in less
time than one member takes that is looked at from outside. Everything else (tools, parts, images,
nulls, numbers out of range) is left to ``request``, which refuses and repairs with paths; of what
is plain both make the same.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

MOST_BYTES = 16_384
"""Of longer ones the texts count, and most have members that are not plain."""

_Text = Annotated[str, msgspec.Meta(min_length=1)]
_Cap = Annotated[int, msgspec.Meta(ge=1)]


class _Said(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["user", "assistant", "system"]
    content: str


class _StreamOptions(msgspec.Struct, frozen=True, gc=False):
    include_usage: bool = False


_NO_OPTIONS = _StreamOptions()


class PlainChat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A chat request that needs neither a check nor a repair; made by ``plain_chat`` alone."""

    model: _Text
    messages: Annotated[list[_Said], msgspec.Meta(min_length=1)]
    stream: bool = False
    stream_options: _StreamOptions = _NO_OPTIONS
    max_tokens: _Cap = 1
    max_completion_tokens: _Cap = 1
    temperature: float = 0.0
    top_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int = 0
    user: str = ""

    @property
    def usage_wanted(self) -> bool:
        """As of ``Peek``."""
        return self.stream_options.include_usage


_decode = msgspec.json.Decoder(PlainChat).decode


def plain_chat(body: bytes) -> PlainChat | None:
    """What ``body`` asks for, if it is plain and short."""
    if len(body) > MOST_BYTES:
        return None
    try:
        return _decode(body)
    except (ValueError, RecursionError):  # msgspec's errors are among the former
        return None
