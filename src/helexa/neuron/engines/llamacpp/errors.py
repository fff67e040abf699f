"""llama.cpp's refusals in our words. Paths, ids and the engine's own advice stay behind."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    InvalidRequestBody,
    ModelLoading,
    ServiceUnavailable,
    TemplateRenderFailed,
    UnsupportedOperation,
    UpstreamConnectionError,
    VisionUnsupported,
)
from helexa.neuron.engines.base import Served

_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is (?:too large|larger)")
_BATCH_SIZE = re.compile(r"current batch size: (\d+)")
_FIELD = re.compile(r"Field '([^']+)'")
_TEMPLATE = (
    "jinja",
    "template",
    "render",
    "raise_exception",
    "unknown method",
    "Expected 'content'",
)
_WRONG = ("failed to parse", "unsupported", "invalid", "cannot", "expected", "only ")
_SCHEMA = ("grammar", "json schema", "json_schema", "unrecognized schema", "unrecognized type",
           "unable to generate parser")  # fmt: skip


class EngineError(msgspec.Struct, frozen=True):
    """The members of an error object of llama.cpp."""

    code: int = 0
    message: str = ""
    type: str = ""
    n_prompt_tokens: int = 0
    n_ctx: int = 0


class _Envelope(msgspec.Struct, frozen=True):
    error: EngineError = EngineError()


def map_error(status: int, body: bytes, served: Served) -> HelexaError:
    """The refusal ``body`` that came with ``status`` before any answer."""
    try:
        found = msgspec.json.decode(body, type=_Envelope, strict=False).error
    except msgspec.MsgspecError:
        found = EngineError(code=status)
    return map_engine_error(found, status, served)


def map_engine_error(found: EngineError, status: int, served: Served) -> HelexaError:
    """An error object, from a body or from the middle of a stream."""
    text = found.message
    lowered = text.lower()
    if found.type == "exceed_context_size_error":
        return ContextLengthExceeded(found.n_prompt_tokens, min(found.n_ctx, served.plan.context))
    too_large = _TOO_LARGE.search(text)
    if too_large:
        size = _BATCH_SIZE.search(text)
        return ContextLengthExceeded(int(too_large[1]), int(size[1]) if size else served.plan.batch)
    if "input is not supported" in lowered:
        return VisionUnsupported(
            f"{served.model_id} cannot take this kind of input. Send text, or use a model with "
            "the vision capability.",
            param="messages",
        )
    if "contains invalid tokens" in lowered:
        return InvalidRequestBody(
            f"A token id is none of {served.model_id}. Send text, or ids of its own tokenizer: "
            "those of other models mean something else here."
        )
    if "load image or audio" in lowered:
        return InvalidRequestBody(
            "An image cannot be decoded: its header is sound, its pixels are not.",
            param="messages",
        )
    if status == 503 or found.type == "unavailable_error":
        return ModelLoading(f"{served.model_id} is still loading.", retry_after_s=2)
    if found.type == "not_supported_error" or status == 501:
        return UnsupportedOperation(f"{served.model_id} does not serve this operation.")
    return _refusal(status, found.type, text, lowered, served)


def _refusal(status: int, kind: str, text: str, lowered: str, served: Served) -> HelexaError:
    # Some of what is wrong with a request is an internal error to llama.cpp.
    wrong = status == 400 or kind == "invalid_request_error" or lowered.startswith(_WRONG)
    if any(word in lowered for word in _SCHEMA):
        return InvalidRequestBody(
            f"The schema or grammar cannot be compiled: {_inner(text)}", param=_schema_param(text)
        )
    if any(word.lower() in lowered for word in _TEMPLATE):
        return TemplateRenderFailed(
            f"The chat template of {served.model_id} refuses this conversation: {_inner(text)}",
            param="messages",
        )
    if wrong:
        field = _FIELD.search(text)
        return InvalidRequestBody(_inner(text), param=field[1] if field else None)
    if "no slot" in lowered or "kv cache" in lowered or "context size has been exceeded" in lowered:
        return ServiceUnavailable(f"{served.model_id} ran out of memory cells.", retry_after_s=2)
    return UpstreamConnectionError(f"The engine of {served.model_id} failed.")


def _schema_param(text: str) -> str:
    return "tools" if "tool" in text.lower() else "response_format"


def _inner(text: str) -> str:
    """The engine's explanation in one line, without its library's labels and any path."""
    line = " ".join(text.split())
    line = re.sub(r"\[json\.exception\.[^\]]+\] ", "", line)
    line = re.sub(r"(?<![\w])/[\w.-]+(?:/[\w.-]+)+", "…", line)
    return line[:400] or "the engine gave no reason"


def as_json(error: HelexaError) -> dict[str, Any]:
    """For tests and logs: class name and code."""
    return {"type": type(error).__name__, "code": error.code}
