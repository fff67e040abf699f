"""What of a chat completion is read: typed, tolerant of what is missing and of what is more."""

from __future__ import annotations

import msgspec

from helexa.core.usage import Timings

_NOTHING = (msgspec.Raw(), msgspec.Raw(b"null"))


class Function(msgspec.Struct, gc=False):
    """Of a tool call."""

    name: str | None = None
    arguments: str | None = None


class Fragment(msgspec.Struct, gc=False):
    """A piece of a tool call, or the whole of one."""

    index: int = 0
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, frozen=True, gc=False):
    """What a chunk adds; a plain answer's message has the same members."""

    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[Fragment] | None = None


class Logprobs(msgspec.Struct, gc=False):
    """Log probabilities of the text beside them; kept as JSON."""

    content: msgspec.Raw = msgspec.Raw()

    @property
    def tokens(self) -> msgspec.Raw | None:
        """The list of tokens, if there is one."""
        return self.content if self.content not in _NOTHING else None


class Choice(msgspec.Struct, gc=False):
    """One answer of a request."""

    index: int = 0
    delta: Delta | None = None
    message: Delta = Delta()
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Reasoned(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None


class WireUsage(msgspec.Struct, gc=False):
    """The ``usage`` member."""

    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoned | None = None


class Ours(msgspec.Struct, gc=False):
    """The ``helexa`` member: why we cut an answer."""

    finish: str | None = None


class Chunk(msgspec.Struct, gc=False):
    """One event of a stream."""

    id: str = ""
    model: str = ""
    created: int = 0
    choices: list[Choice] = []
    usage: WireUsage | None = None
    timings: Timings | None = None
    helexa: Ours | None = None


class Answer(Chunk, gc=False):
    """A plain answer."""
