"""What streamed and plain answers of the Messages dialect have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.events import Finished, FinishReason
from helexa.core.usage import Usage
from helexa.wire.bodies import UNREADABLE

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def message_id(request_id: str) -> str:
    """The id of an answer."""
    return f"msg_{request_id}"


def signature(request_id: str) -> str:
    """What stands under a thought. Clients send it back and only its presence counts: thoughts
    are not encrypted here, so there is nothing to prove."""
    return f"helexa-{request_id}"


def empty_message(request_id: str, model: str, usage: dict[str, Any]) -> dict[str, Any]:
    """A message before its first block."""
    return {
        "id": message_id(request_id),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def start_usage(prompt: int, cached: int) -> dict[str, Any]:
    """Counts as they stand before the first token."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": 0,
        "service_tier": "standard",
    }


def end_usage(usage: Usage) -> dict[str, Any]:
    """The exact counts. ``input_tokens`` leaves out what came from the cache, as Anthropic does:
    a client adds the three up."""
    return {
        "input_tokens": usage.prompt - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
        "output_tokens_details": {"thinking_tokens": usage.reasoning},
    }


def stop_of(end: Finished) -> dict[str, Any]:
    """``stop_reason`` and ``stop_sequence``."""
    if end.reason == "stop" and end.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stop}
    return {"stop_reason": _STOP_REASONS[end.reason], "stop_sequence": None}


def tool_input(arguments: str) -> msgspec.Raw:
    """Arguments as the object that ``input`` must be, byte by byte the model's.

    What a cut left incomplete is shown as a string in it: an empty object would be a lie.
    """
    text = arguments.strip()
    if not text:
        return msgspec.Raw(b"{}")
    try:
        if isinstance(msgspec.json.decode(text), dict):
            return msgspec.Raw(arguments.encode())
    except UNREADABLE:
        pass
    return msgspec.Raw(msgspec.json.encode({"unparsed": arguments}))
