"""Anthropic's Messages, spoken by a client: requests written, streams read."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.acp.providers.base import Reader
from helexa.acp.providers.events import EventReader, Json
from helexa.core.chat import ChatRequest, Image, Message, Part, Text, ToolChoice
from helexa.core.events import (
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    Started,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
    ToolCallEnded,
)
from helexa.core.usage import Usage
from helexa.wire.bodies import UNREADABLE
from helexa.wire.errors import from_wire

_MOST_OUTPUT = 8192
_THINKING_BUDGET = 4096
_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')
_REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class MessagesDialect:
    """See ``providers.base.Dialect``."""

    path = "/v1/messages"

    def __init__(self) -> None:
        self.headers = {"anthropic-version": "2023-06-01"}

    def encode(self, request: ChatRequest) -> bytes:
        """System messages apart, results of tools inside user turns, arguments as objects."""
        system = [m for m in request.messages if m.role in ("system", "developer")]
        cap = request.max_output or _MOST_OUTPUT
        body: Json = {
            "model": request.model,
            "max_tokens": cap,
            "stream": True,
            "messages": _turns([m for m in request.messages if m not in system]),
        }
        if system:
            body["system"] = "\n\n".join(_words(m) for m in system)
        if request.tools:
            body["tools"] = [
                {
                    "name": tool.name,
                    "description": tool.description or "",
                    "input_schema": tool.parameters or _EMPTY_SCHEMA,
                }
                for tool in request.tools
            ]
            if request.tool_choice is not None:
                body["tool_choice"] = _choice(request.tool_choice)
        if request.reasoning.enabled and cap > _THINKING_BUDGET:
            body["thinking"] = {"type": "enabled", "budget_tokens": _THINKING_BUDGET}
        if request.sampling.temperature is not None:
            body["temperature"] = request.sampling.temperature
        return msgspec.json.encode(body)

    def reader(self) -> Reader:
        """Reads one stream."""
        return MessagesReader()


def _turns(messages: list[Message]) -> list[Json]:
    """Neighbours of one role become one turn: the API wants them to alternate."""
    turns: list[Json] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = _blocks(message)
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[Json]:
    content = [_part(part) for part in message.content if part != Text("")]
    if message.role == "tool":
        return [
            {"type": "tool_result", "tool_use_id": message.tool_call_id or "", "content": content}
        ]
    return content + [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _object(call.arguments)}
        for call in message.tool_calls
    ]


def _part(part: Part) -> Json:
    if isinstance(part, Image):
        head, _, data = part.url.partition(";base64,")
        if data:
            source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
        else:
            source = {"type": "url", "url": part.url}
        return {"type": "image", "source": source}
    return {"type": "text", "text": part.text}


def _object(arguments: str) -> Any:
    """Arguments as the object that they should be; what is none is kept where it can be seen."""
    try:
        value = msgspec.json.decode(arguments)
    except UNREADABLE:
        return {"unparsable": arguments}
    return value if isinstance(value, dict) else {"value": value}


def _choice(choice: ToolChoice) -> Json:
    if choice.mode == "required":
        return {"type": "tool", "name": choice.names[0]} if choice.names else {"type": "any"}
    return {"type": choice.mode}


def _words(message: Message) -> str:
    return "".join(part.text for part in message.content if isinstance(part, Text))


class MessagesReader(EventReader):
    """Reads one stream of Messages."""

    api = "Messages"

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0
        self._open: int | None = None
        self._prompt = 0
        self._cached = 0
        self._finish: Finished | None = None

    def take(self, event: Json, out: list[Event], payload: bytes) -> None:
        """See ``EventReader``."""
        match event["type"]:
            case "message_start":
                self._begin(event["message"], out)
            case "content_block_start":
                self._block(event["content_block"], out)
            case "content_block_delta":
                self._delta(event["delta"], out)
            case "content_block_stop" if self._open is not None:
                out.append(ToolCallEnded(self._open))
                self._open = None
            case "message_delta":
                self._end(event)
            case "message_stop":
                self.over = True
                out.append(self._finish or Finished("stop"))
            case "error":
                self.over = True
                out.append(Failed(from_wire(200, payload)))

    def _begin(self, message: Json, out: list[Event]) -> None:
        usage = message.get("usage") or {}
        self._cached = usage.get("cache_read_input_tokens") or 0
        created = usage.get("cache_creation_input_tokens") or 0
        self._prompt = (usage.get("input_tokens") or 0) + self._cached + created
        out.append(Started(message["id"], message["model"], 0, self._prompt, self._cached))

    def _block(self, block: Json, out: list[Event]) -> None:
        if block["type"] == "tool_use":
            self._open = self._calls
            self._calls += 1
            out.append(ToolCallBegun(self._open, block["id"], block["name"]))

    def _delta(self, delta: Json, out: list[Event]) -> None:
        match delta["type"]:
            case "text_delta" if delta["text"]:
                out.append(TextDelta(delta["text"]))
            case "thinking_delta" if delta["thinking"]:
                out.append(ReasoningDelta(delta["thinking"]))
            case "input_json_delta" if delta["partial_json"] and self._open is not None:
                out.append(ToolCallArguments(self._open, delta["partial_json"]))

    def _end(self, event: Json) -> None:
        usage = event.get("usage") or {}
        output = usage.get("output_tokens") or 0
        reason = _REASONS.get(event["delta"].get("stop_reason") or "end_turn", "stop")
        prompt = usage.get("input_tokens")
        if prompt is not None:
            self._cached = usage.get("cache_read_input_tokens") or self._cached
            self._prompt = max(self._prompt, prompt + self._cached)
        self._finish = Finished(reason, Usage(self._prompt, output, self._cached))
