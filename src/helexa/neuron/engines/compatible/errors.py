"""Refusals of OpenAI-compatible engines in our words. Paths, ids and keys stay behind.

Engines agree on the envelope and on little else, so the cause is read from the sentence.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    InvalidRequestBody,
    ModelLoading,
    Overloaded,
    TemplateRenderFailed,
    UnsupportedOperation,
    UpstreamConnectionError,
    VisionUnsupported,
)
from helexa.neuron.engines.base import Served

_MOST = 400
_CONTEXT = re.compile(
    r"(?:maximum (?:context|model) length (?:is|of) |exceeds the available context size \()(\d+)",
    re.IGNORECASE,
)
_PROMPT = (
    re.compile(r"prompt contains(?: at least)? (\d+)"),
    re.compile(r"request has (\d+) input tokens"),
    re.compile(r"request \((\d+) tokens\)"),
    re.compile(r"\((\d+) in the messages"),
    re.compile(r"requested (\d+) tokens"),
    re.compile(r"prompt \((?:length|total) ?:? ?(\d+)"),
)
_CAP = re.compile(r"is too large: (\d+)")
_IMAGES = (
    "multimodal model",
    "multi-modal",
    "at most 0 image",
    "image input",
    "does not support image",
)
_SCHEMA = ("grammar", "json schema", "json_schema", "structured output", "guided", "regex")
_TEMPLATE = ("jinja", "chat template", "chat_template", "is undefined", "has no attribute")
_RAISED = re.compile(r"raise_exception\(\s*(['\"])(.+?)\1", re.DOTALL)
_LOCATION = re.compile(r"'loc': \('body', '([^']+)'")
_PATH = re.compile(r"(?<![\w])/[\w.-]+(?:/[\w.-]+)+")


class EngineError(msgspec.Struct, frozen=True):
    """What an engine says of a failure; ``status`` is 0 where it names none."""

    message: str = ""
    type: str = ""
    status: int = 0
    param: str | None = None


def read_error(raw: bytes) -> EngineError:
    """An error object in any of the forms that are about: text, OpenAI's, FastAPI's."""
    try:
        found: Any = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return EngineError(message=bytes(raw[:_MOST]).decode("utf-8", "replace"))
    if isinstance(found, dict) and isinstance(found.get("error"), (dict, str)):
        found = found["error"]
    if isinstance(found, str):
        return EngineError(message=found)
    if not isinstance(found, dict):
        return EngineError()
    said = found.get("message", found.get("detail", ""))
    code = found.get("code")
    param = found.get("param")
    return EngineError(
        message=said if isinstance(said, str) else msgspec.json.encode(said).decode(),
        type=str(found.get("type") or ""),
        status=code if isinstance(code, int) else 0,
        param=param if isinstance(param, str) else None,
    )


def map_error(status: int, body: bytes, served: Served) -> HelexaError:
    """The refusal ``body`` that came with ``status`` before any answer."""
    return map_engine_error(read_error(body), status, served)


def map_engine_error(found: EngineError, status: int, served: Served) -> HelexaError:
    """An error object, from a body or from the middle of a stream."""
    for judge in (_too_long, _unseeing, _passing, _refused):
        error = judge(found, status, served)
        if error is not None:
            return error
    return UpstreamConnectionError(f"The engine of {served.model_id} failed.")


def _too_long(found: EngineError, status: int, served: Served) -> HelexaError | None:  # noqa: ARG001
    limit = _CONTEXT.search(found.message)
    if limit is None:
        return None
    prompts = (pattern.search(found.message) for pattern in _PROMPT)
    prompt = next((int(hit[1]) for hit in prompts if hit is not None), int(limit[1]) + 1)
    most = min(int(limit[1]), served.plan.context)
    cap = _CAP.search(found.message)
    if cap is not None and prompt <= most:  # what was asked for does not fit behind the prompt
        most = max(0, most - int(cap[1]))
    return ContextLengthExceeded(prompt, most)


def _unseeing(found: EngineError, status: int, served: Served) -> HelexaError | None:
    if status >= 500 or not any(mark in found.message.lower() for mark in _IMAGES):
        return None
    return VisionUnsupported(
        f"{served.model_id} cannot take this kind of input. Send text, or use a model with the "
        "vision capability.",
        param="messages",
    )


def _passing(found: EngineError, status: int, served: Served) -> HelexaError | None:  # noqa: ARG001
    if status == 503:
        return ModelLoading(f"{served.model_id} is still loading.", retry_after_s=2)
    if status == 429:
        return Overloaded(f"The engine of {served.model_id} is full.", retry_after_s=2)
    return None


def _refused(found: EngineError, status: int, served: Served) -> HelexaError | None:
    if status in (404, 405, 501):
        return UnsupportedOperation(f"{served.model_id} does not serve this operation.")
    if status not in (400, 413, 422):
        return None
    lowered = found.message.lower()
    if any(word in lowered for word in _SCHEMA):
        return InvalidRequestBody(
            f"The schema or grammar cannot be compiled: {plain(found.message)}",
            param="tools" if "tool" in lowered else "response_format",
        )
    if _from_template(found.message, lowered, served.facts.chat_template or ""):
        return TemplateRenderFailed(
            f"The chat template of {served.model_id} refuses this conversation: "
            f"{plain(found.message)}",
            param="messages",
        )
    place = _LOCATION.search(found.message)
    return InvalidRequestBody(plain(found.message), param=place[1] if place else found.param)


def _from_template(message: str, lowered: str, template: str) -> bool:
    """Whether the template has spoken: its interpreter's words, or a sentence of its own."""
    if any(word in lowered for word in _TEMPLATE):
        return True
    return any(text in message for _, text in _RAISED.findall(template))


def plain(text: str) -> str:
    """The engine's explanation in one line, without any path."""
    line = _PATH.sub("…", " ".join(text.split()))
    return line[:_MOST] or "the engine gave no reason"
