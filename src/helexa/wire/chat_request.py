"""A request as the chat completion that nodes read.

Only what was asked for is written: no default, no system prompt, nothing of ours.
"""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.chat import (
    ChatRequest,
    Image,
    Message,
    Part,
    Reasoning,
    ResponseFormat,
    Sampling,
    Text,
    Tool,
    ToolChoice,
)

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_NO_PARAMETERS = msgspec.Raw(b'{"type":"object","properties":{}}')


def encode_chat(request: ChatRequest) -> bytes:
    """The body of ``POST /v1/chat/completions``; a stream always asks for its usage chunk."""
    body: Json = {
        "model": request.model,
        "messages": [_message(message) for message in request.messages],
    }
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    if request.max_output is not None:
        body["max_completion_tokens"] = request.max_output
    _add_tools(body, request)
    _add_format(body, request.format)
    _add_sampling(body, request.sampling)
    _add_reasoning(body, request.reasoning, request.template)
    if request.user is not None:
        body["prompt_cache_key"] = request.user
    return _encode(body)


def _message(message: Message) -> Json:
    out: Json = {"role": message.role, "content": _content(message)}
    if message.reasoning:
        out["reasoning_content"] = message.reasoning
    if message.tool_calls:
        out["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    return out


def _content(message: Message) -> str | list[Json] | None:
    """One text as a string, since templates know that best; several, or images, as parts."""
    parts = message.content
    if not parts:
        return None if message.tool_calls else ""
    first = parts[0]
    if len(parts) == 1 and isinstance(first, Text):
        return first.text
    return [_part(part) for part in parts]


def _part(part: Part) -> Json:
    if isinstance(part, Image):
        image: Json = {"url": part.url}
        if part.detail is not None:
            image["detail"] = part.detail
        return {"type": "image_url", "image_url": image}
    return {"type": "text", "text": part.text}


def _add_tools(body: Json, request: ChatRequest) -> None:
    if not request.tools:
        return
    body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.parallel_tool_calls is not None:
        body["parallel_tool_calls"] = request.parallel_tool_calls


def _tool(tool: Tool) -> Json:
    function: Json = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = _NO_PARAMETERS if tool.parameters is None else tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice) -> str | Json:
    if not choice.names or choice.mode == "none":
        return choice.mode
    named = [{"type": "function", "function": {"name": name}} for name in choice.names]
    if choice.mode == "required" and len(named) == 1:
        return named[0]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice.mode, "tools": named}}


def _add_format(body: Json, wanted: ResponseFormat) -> None:
    if wanted.kind == "text":
        return
    if wanted.kind == "json_object" or wanted.schema is None:
        body["response_format"] = {"type": "json_object"}
        return
    described: Json = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        described["description"] = wanted.description
    if wanted.strict is not None:
        described["strict"] = wanted.strict
    body["response_format"] = {"type": "json_schema", "json_schema": described}


_SAMPLING = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")


def _add_sampling(body: Json, sampling: Sampling) -> None:
    for name in _SAMPLING:
        value = getattr(sampling, name)
        if value is not None:
            body[name] = value
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs:
        body["logprobs"] = True
        if sampling.top_logprobs is not None:
            body["top_logprobs"] = sampling.top_logprobs


def _add_reasoning(body: Json, wanted: Reasoning, template: msgspec.Raw | None) -> None:
    """Effort is passed on; a plain yes or no becomes the template's switch, which nodes rename
    where a model's template calls it something else."""
    kwargs: Json = msgspec.json.decode(template) if template is not None else {}
    if wanted.effort is not None:
        body["reasoning_effort"] = wanted.effort
    if wanted.enabled is not None:
        kwargs.setdefault("enable_thinking", wanted.enabled)
    if wanted.budget is not None:
        body["thinking_budget_tokens"] = wanted.budget
    if kwargs:
        body["chat_template_kwargs"] = kwargs
