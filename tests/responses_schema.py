"""Responses bodies and events, by OpenAI's published schema and by the open one."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import openresponses_types
import pytest
from pydantic import BaseModel
from tests.openai_schema import document, validate


def need_document() -> None:
    """Skip where there is no copy of OpenAI's schema."""
    if document() is None:
        pytest.skip("no copy of OpenAI's schema: set OPENAI_OPENAPI")


_EVENTS = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.failed": "ResponseFailedEvent",
    "response.output_item.added": "ResponseOutputItemAddedEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.content_part.added": "ResponseContentPartAddedEvent",
    "response.content_part.done": "ResponseContentPartDoneEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
    "response.output_text.done": "ResponseTextDoneEvent",
    "response.function_call_arguments.delta": "ResponseFunctionCallArgumentsDeltaEvent",
    "response.function_call_arguments.done": "ResponseFunctionCallArgumentsDoneEvent",
    "response.custom_tool_call_input.delta": "ResponseCustomToolCallInputDeltaEvent",
    "response.custom_tool_call_input.done": "ResponseCustomToolCallInputDoneEvent",
    "response.reasoning_text.delta": "ResponseReasoningTextDeltaEvent",
    "response.reasoning_text.done": "ResponseReasoningTextDoneEvent",
    "response.reasoning_summary_part.added": "ResponseReasoningSummaryPartAddedEvent",
    "response.reasoning_summary_part.done": "ResponseReasoningSummaryPartDoneEvent",
    "response.reasoning_summary_text.delta": "ResponseReasoningSummaryTextDeltaEvent",
    "response.reasoning_summary_text.done": "ResponseReasoningSummaryTextDoneEvent",
    "error": "ResponseErrorEvent",
}
_OWN_CODES = ("response.failed",)
"""Published codes of a failed response are few; clients look for ours, as OpenAI's API sends."""


def check_response(value: Any) -> None:
    """A response object, by both schemas."""
    validate("Response", value)
    _strict(openresponses_types.ResponseResource, value)


def check_published(value: Any) -> None:
    """One payload of a Responses stream, by OpenAI's schema."""
    validate(_EVENTS[value["type"]], value)


def check_event(value: Any) -> None:
    """One payload of a Responses stream, by both schemas where they know its type."""
    kind = value["type"]
    if kind in _OWN_CODES and value["response"]["error"] is not None:
        value = json.loads(json.dumps(value))
        value["response"]["error"]["code"] = "server_error"
    validate(_EVENTS[kind], value)
    model = _open_events().get(kind)
    if model is not None:
        _strict(model, value)


@cache
def _open_events() -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    for name in dir(openresponses_types):
        model = getattr(openresponses_types, name)
        if name.endswith("StreamingEvent"):
            schema = model.model_json_schema()
            kind = schema["properties"]["type"]
            kind = schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
            for value in kind.get("enum", [kind.get("const")]):
                found[str(value)] = model
    return found


def _strict(model: type[BaseModel], value: Any) -> None:
    """By the open schema, which knows functions only, and no schema in a format."""
    value = json.loads(json.dumps(value))
    holder = value.get("response", value)
    if "tools" in holder:
        holder["tools"] = [tool for tool in holder["tools"] if tool["type"] == "function"]
    form = holder.get("text", {})
    if isinstance(form, dict) and "schema" in form.get("format", {}):
        form["format"]["schema"] = None
    model.model_validate_json(json.dumps(value))
