"""Events as one whole body of the Messages dialect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from helexa.core.errors import HelexaError, UpstreamConnectionError
from helexa.core.events import (
    Event,
    Failed,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
)
from helexa.wire.messages import answer


def plain_message(
    events: Iterable[Event], request_id: str, model: str, *, hide_thinking: bool = False
) -> bytes | HelexaError:
    """The body of an answer that is not streamed, or why there is none.

    Args:
        events: All of an answer's.
        request_id, model, hide_thinking: As for ``MessagesStream``.
    """
    blocks: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, Failed):
            return event.error
        if isinstance(event, Finished):
            return _whole(blocks, event, request_id, model)
        _add(blocks, event, request_id, hide_thinking)
    return UpstreamConnectionError("The answer broke off before it was complete.")


def _add(blocks: list[dict[str, Any]], event: Event, request_id: str, hide: bool) -> None:
    last: dict[str, Any] = blocks[-1] if blocks else {"type": None}
    if isinstance(event, TextDelta):
        if last["type"] != "text":
            last = {"type": "text", "text": ""}
            blocks.append(last)
        last["text"] += event.text
    elif isinstance(event, ReasoningDelta):
        if last["type"] != "thinking":
            signed = answer.signature(request_id)
            last = {"type": "thinking", "thinking": "", "signature": signed}
            blocks.append(last)
        last["thinking"] += "" if hide else event.text
    elif isinstance(event, ToolCallBegun):
        blocks.append({"type": "tool_use", "id": event.id, "name": event.name, "input": ""})
    elif isinstance(event, ToolCallArguments):
        last["input"] += event.fragment


def _whole(blocks: list[dict[str, Any]], end: Finished, request_id: str, model: str) -> bytes:
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = answer.tool_input(block["input"])
    usage = {**answer.end_usage(end.usage), "service_tier": "standard"}
    message = answer.empty_message(request_id, model, usage)
    message |= {"content": blocks, **answer.stop_of(end)}
    if end.cut is not None:
        message["helexa"] = {"finish": end.cut}
    return msgspec.json.encode(message)
