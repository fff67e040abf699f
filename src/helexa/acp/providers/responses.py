"""OpenAI's Responses, spoken by a client: requests written, streams read."""

from __future__ import annotations

import msgspec

from helexa.acp.providers.base import Reader
from helexa.acp.providers.events import EventReader, Json
from helexa.core.chat import ChatRequest, Image, Message, Part, Text
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
from helexa.wire.errors import from_wire

_EMPTY_SCHEMA = msgspec.Raw(b'{"type":"object","properties":{}}')


class ResponsesDialect:
    """See ``providers.base.Dialect``. Nothing is kept over there: every turn is sent whole."""

    path = "/v1/responses"

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def encode(self, request: ChatRequest) -> bytes:
        """Turns as items; results of tools are items of their own."""
        body: Json = {
            "model": request.model,
            "stream": True,
            "store": False,
            "input": [item for message in request.messages for item in _items(message)],
        }
        if request.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description or "",
                    "parameters": tool.parameters or _EMPTY_SCHEMA,
                    "strict": False,
                }
                for tool in request.tools
            ]
            if request.tool_choice is not None:
                body["tool_choice"] = request.tool_choice.mode
        if request.max_output is not None:
            body["max_output_tokens"] = request.max_output
        if request.reasoning.enabled is not None:
            effort = request.reasoning.effort or "medium"
            body["reasoning"] = {"effort": effort if request.reasoning.enabled else "none"}
        if request.sampling.temperature is not None:
            body["temperature"] = request.sampling.temperature
        return msgspec.json.encode(body)

    def reader(self) -> Reader:
        """Reads one stream."""
        return ResponsesReader()


def _items(message: Message) -> list[Json]:
    if message.role == "tool":
        output: str | list[Json] = "".join(p.text for p in message.content if isinstance(p, Text))
        if any(isinstance(part, Image) for part in message.content):
            output = [_part(part, "input_text") for part in message.content]
        call_id = message.tool_call_id or ""
        return [{"type": "function_call_output", "call_id": call_id, "output": output}]
    calls = [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for call in message.tool_calls
    ]
    if not message.content:
        return calls
    kind = "output_text" if message.role == "assistant" else "input_text"
    content = [_part(part, kind) for part in message.content]
    return [{"type": "message", "role": message.role, "content": content}, *calls]


def _part(part: Part, kind: str) -> Json:
    if isinstance(part, Image):
        return {"type": "input_image", "image_url": part.url, "detail": part.detail or "auto"}
    return {"type": kind, "text": part.text}


class ResponsesReader(EventReader):
    """Reads one stream of Responses."""

    api = "Responses"

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, int] = {}
        self._written: set[str] = set()

    def take(self, event: Json, out: list[Event], payload: bytes) -> None:
        """See ``EventReader``."""
        match event["type"]:
            case "response.created":
                response = event["response"]
                out.append(Started(response["id"], response["model"], 0))
            case "response.output_text.delta" | "response.refusal.delta" if event["delta"]:
                out.append(TextDelta(event["delta"]))
            case "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" if event[
                "delta"
            ]:
                out.append(ReasoningDelta(event["delta"]))
            case "response.output_item.added" if event["item"]["type"] == "function_call":
                item = event["item"]
                call = self._calls[item["id"]] = len(self._calls)
                out.append(ToolCallBegun(call, item["call_id"], item["name"]))
            case "response.function_call_arguments.delta" if event["delta"]:
                self._written.add(event["item_id"])
                out.append(ToolCallArguments(self._calls[event["item_id"]], event["delta"]))
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                self._end_call(event["item"], out)
            case "response.completed" | "response.incomplete":
                self._end(event["response"], out)
            case "response.failed":
                self.over = True
                body = msgspec.json.encode({"error": event["response"].get("error") or {}})
                out.append(Failed(from_wire(500, body)))
            case "error":
                self.over = True
                out.append(Failed(from_wire(500, payload)))

    def _end_call(self, item: Json, out: list[Event]) -> None:
        call = self._calls[item["id"]]
        if item["id"] not in self._written and item.get("arguments"):
            out.append(ToolCallArguments(call, item["arguments"]))
        out.append(ToolCallEnded(call))

    def _end(self, response: Json, out: list[Event]) -> None:
        self.over = True
        usage = response.get("usage") or {}
        cached = (usage.get("input_tokens_details") or {}).get("cached_tokens") or 0
        thought = (usage.get("output_tokens_details") or {}).get("reasoning_tokens") or 0
        reason: FinishReason = "tool_calls" if self._calls else "stop"
        if response.get("status") == "incomplete":
            why = (response.get("incomplete_details") or {}).get("reason")
            reason = "content_filter" if why == "content_filter" else "length"
        counts = Usage(
            usage.get("input_tokens") or 0, usage.get("output_tokens") or 0, cached, thought
        )
        out.append(Finished(reason, counts))
