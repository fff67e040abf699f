"""An answer in no dialect: the one event stream that Responses and Messages are renderings of.

::

    Started (TextDelta | ReasoningDelta | call)* (Finished | Failed)
    call := ToolCallBegun ToolCallArguments* ToolCallEnded

Whoever makes events keeps this order: one ``Started``, calls one after the other and never inside
each other, nothing behind the end. A failure may come at any place, also first; an open call is
then left open. Deltas are never empty. Renderers rely on it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.usage import Timings, Usage

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]
Cut = Literal["budget", "kv_exhausted", "node_lost", "drain"]
"""Why we ended an answer before its model did."""


class Started(msgspec.Struct, frozen=True, gc=False):
    """The engine has begun.

    Args:
        id: The answer's id at the node.
        model: The served id.
        created: Unix seconds.
        prompt: Prompt tokens, ``cached`` included; None when the engine has not told yet.
        cached: Prompt tokens whose prefill was skipped.
    """

    id: str
    model: str
    created: int
    prompt: int | None = None
    cached: int = 0


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Visible text.

    Args:
        logprobs: The chat dialect's list of token log probabilities, as JSON, where asked for.
    """

    text: str
    logprobs: msgspec.Raw | None = None


class ReasoningDelta(msgspec.Struct, frozen=True, gc=False):
    """What the model thinks before it answers."""

    text: str


class ToolCallBegun(msgspec.Struct, frozen=True, gc=False):
    """The model calls a tool; ``call`` counts the answer's calls from 0."""

    call: int
    id: str
    name: str


class ToolCallArguments(msgspec.Struct, frozen=True, gc=False):
    """A piece of the JSON text of a call's arguments, byte by byte the model's."""

    call: int
    fragment: str


class ToolCallEnded(msgspec.Struct, frozen=True, gc=False):
    """The arguments of a call are complete, or as complete as they will get."""

    call: int


class Finished(msgspec.Struct, frozen=True):
    """The answer is complete, or was cut where ``reason`` says so.

    Args:
        usage: Exact counts.
        timings: Where the engine tells.
        cut: Why it was us who ended it; None when the model or the client's limit did.
        stop: The stop sequence that ended it, where the engine tells.
    """

    reason: FinishReason
    usage: Usage = Usage()
    timings: Timings | None = None
    cut: Cut | None = None
    stop: str | None = None


class Failed(msgspec.Struct, frozen=True):
    """No answer, or no more of it."""

    error: HelexaError


Event = (
    Started
    | TextDelta
    | ReasoningDelta
    | ToolCallBegun
    | ToolCallArguments
    | ToolCallEnded
    | Finished
    | Failed
)
