"""Chunks of an OpenAI-compatible stream, as loosely as engines write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from helexa.wire.parsers.stops import StopText

Count = Annotated[int, msgspec.Meta(ge=0, le=2**48)]
"""What can be a number of tokens, and has room in a record."""
NOTHING = msgspec.Raw(b"")
_NONE = (b"", b"null")


class Delta(msgspec.Struct, gc=False):
    """What a chunk adds to a choice; engines call reasoning by either name."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None


class Choice(msgspec.Struct, gc=False):
    """One element of ``choices``, of chat and of text completions.

    Args:
        token_ids: The tokens that it brings, of engines that say so; ``prompt_token_ids`` those
            of the prompt, with a text completion's first chunk.
    """

    index: Count = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: msgspec.Raw = NOTHING
    token_ids: list[int] | None = None
    prompt_token_ids: msgspec.Raw = NOTHING

    def said_logprobs(self) -> bool:
        """Whether there are log probabilities; many engines write null."""
        return bytes(self.logprobs) not in _NONE


class PromptDetails(msgspec.Struct, gc=False):
    """Of the prompt's tokens."""

    cached_tokens: Count | None = None


class CompletionDetails(msgspec.Struct, gc=False):
    """Of the answer's tokens."""

    reasoning_tokens: Count | None = None


class ChunkUsage(msgspec.Struct, gc=False):
    """Tokens, so far or in all."""

    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Metrics(msgspec.Struct, gc=False):
    """Milliseconds, as vLLM gives them with the last usage."""

    time_to_first_token_ms: float | None = None
    generation_time_ms: float | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event; a chat's first one may hold the tokens of the prompt."""

    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    metrics: Metrics | None = None
    error: msgspec.Raw = NOTHING
    prompt_token_ids: msgspec.Raw = NOTHING


decode_chunk = msgspec.json.Decoder(Chunk).decode


class _Function(msgspec.Struct, gc=False):
    name: str | None = None


class _Call(msgspec.Struct, gc=False):
    function: _Function | None = None


class _Logprobs(msgspec.Struct, gc=False):
    """The members of a chat's, and the columns of a text completion's."""

    content: list[Any] | None = None
    tokens: list[Any] | None = None
    token_logprobs: list[Any] | None = None
    top_logprobs: list[Any] | None = None
    text_offset: list[Any] | None = None


_decode_logprobs = msgspec.json.Decoder(_Logprobs).decode


def well_formed(choice: Choice) -> bool:
    """Whether what a chunk's own decoder leaves alone has the shape that clients know."""
    calls = choice.delta.tool_calls if choice.delta is not None else None
    try:
        if calls:
            msgspec.convert(calls, list[_Call])
        if choice.said_logprobs():
            _decode_logprobs(choice.logprobs)
    except msgspec.ValidationError:
        return False
    return True


@dataclass(slots=True, eq=False)
class ChoiceState:
    """One answer on its way.

    Args:
        taken: Its tokens so far; ``thought`` those of them the engine calls reasoning.
        pending: Tokens whose text is still held back, by the engine or by a reader.
        kind: What the last clean deltas were: ``content``, ``reasoning``, ``calls`` or nothing.
        stop: The client's text that ended it.
        calls: Tool calls that have been opened, by index.
        cut: Looks for the client's stop strings, where the engine does not.
    """

    index: int
    prefix: bytes
    taken: int = 0
    thought: int = 0
    pending: int = 0
    kind: str = ""
    finish: str | None = None
    stop: str | None = None
    opened: bool = False
    calls: set[int] = field(default_factory=set)
    cut: StopText | None = None
    deltas: list[msgspec.Raw] = field(default_factory=list)
    logprobs: list[msgspec.Raw] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


FINISHES = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "repetition": "stop",
    "model_length": "length",
    "max_tokens": "length",
}
"""Reasons as engines give them; what is not here (``abort``, ``error``) is no end but a failure."""


def known_finish(reason: str, state: ChoiceState) -> str:
    """The engine's reason in the dialect's words; calls always end as ``tool_calls``."""
    known = FINISHES[reason]
    return "tool_calls" if state.calls and known == "stop" else known
