"""What of a streamed chat the probe reads."""

from __future__ import annotations

from typing import Any

import msgspec


class ToolDelta(msgspec.Struct, frozen=True):
    """A piece of a tool call."""

    function: dict[str, Any] | None = None


class Delta(msgspec.Struct, frozen=True):
    """A piece of an answer; servers name reasoning in two ways."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolDelta] | None = None

    @property
    def empty(self) -> bool:
        """Nothing that a reader would see."""
        if self.content or self.reasoning_content or self.reasoning:
            return False
        calls = self.tool_calls or ()
        return not any(c.function and (c.function.get("name") or c.function.get("arguments"))
                       for c in calls)  # fmt: skip


class Choice(msgspec.Struct, frozen=True):
    """One answer's delta."""

    delta: Delta = Delta()
    finish_reason: str | None = None


class Details(msgspec.Struct, frozen=True):
    """``prompt_tokens_details``."""

    cached_tokens: int | None = None


class UsageCounts(msgspec.Struct, frozen=True):
    """``usage``."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None


class ServerTimings(msgspec.Struct, frozen=True):
    """``timings`` of servers that tell (llama.cpp's names)."""

    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class Chunk(msgspec.Struct, frozen=True):
    """One event's data."""

    choices: list[Choice] = []
    usage: UsageCounts | None = None
    timings: ServerTimings | None = None
    error: Any = None


decode = msgspec.json.Decoder(Chunk).decode
