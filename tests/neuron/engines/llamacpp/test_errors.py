"""llama.cpp's refusals in our words: the bodies are its own, as observed."""

from __future__ import annotations

import json

import pytest

from helexa.core.errors import (
    ContextLengthExceeded,
    HelexaError,
    InvalidRequestBody,
    ModelLoading,
    TemplateRenderFailed,
    UnsupportedOperation,
    UpstreamConnectionError,
    VisionUnsupported,
)
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.llamacpp.errors import map_error

SCHEMA = (
    "Unable to generate parser for this template. Automatic parser generation failed: "
    "JSON schema error at #: unrecognized type objekt"
)
FIELD = "Field 'top_k': [json.exception.type_error.302] type must be number, but is string"


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (503, "unavailable_error", "Loading model", ModelLoading),
        (501, "not_supported_error", "No support for reranking", UnsupportedOperation),
        (500, "server_error", "image input is not supported - hint: mmproj", VisionUnsupported),
        (400, "invalid_request_error", "Failed to initialize samplers: failed to parse grammar",
         InvalidRequestBody),
        (400, "invalid_request_error", SCHEMA, InvalidRequestBody),
        (400, "invalid_request_error", FIELD, InvalidRequestBody),
        (500, "server_error", "Jinja Exception: Conversation roles must alternate",
         TemplateRenderFailed),
        (500, "server_error", "Failed to parse messages: Unsupported content part type",
         InvalidRequestBody),
        (500, "server_error", "Compute error.", UpstreamConnectionError),
    ],
)  # fmt: skip
def test_refusals_find_their_class(
    served: Served, status: int, kind: str, message: str, expected: type[HelexaError]
) -> None:
    raw = json.dumps({"error": {"code": status, "message": message, "type": kind}}).encode()
    assert type(map_error(status, raw, served)) is expected


def test_token_ids_of_another_models_tokenizer_are_told_from_a_wrong_prompt(served: Served) -> None:
    members = {"code": 400, "message": "Prompt contains invalid tokens"}
    error = map_error(400, json.dumps({"error": members}).encode(), served)
    assert type(error) is InvalidRequestBody
    assert f"none of {served.model_id}. Send text" in error.message


def test_overflow_carries_both_figures(served: Served) -> None:
    members = {"code": 400, "message": "x", "type": "exceed_context_size_error"}
    raw = json.dumps({"error": {**members, "n_prompt_tokens": 9000, "n_ctx": 32768}}).encode()
    error = map_error(400, raw, served)
    assert isinstance(error, ContextLengthExceeded)
    # One slot really has less than the pool the engine speaks of.
    assert error.extras == {"prompt_len": 9000, "max": 4096}


def test_an_input_too_long_to_embed_is_a_context_overflow(served: Served) -> None:
    message = (
        "input (700 tokens) is too large to process. increase the physical batch size "
        "(current batch size: 512)"
    )
    raw = json.dumps({"error": {"code": 500, "message": message, "type": "server_error"}}).encode()
    error = map_error(500, raw, served)
    assert isinstance(error, ContextLengthExceeded)
    assert error.extras == {"prompt_len": 700, "max": 512}


def test_the_offending_member_is_named(served: Served) -> None:
    raw = json.dumps({"error": {"code": 400, "message": FIELD, "type": "x"}}).encode()
    error = map_error(400, raw, served)
    assert error.param == "top_k"
    assert "json.exception" not in error.message


def test_paths_and_html_stay_inside(served: Served) -> None:
    message = "failed to open /srv/models/secret/m.gguf today"
    raw = json.dumps({"error": {"code": 400, "message": message, "type": "x"}}).encode()
    assert "/srv" not in map_error(400, raw, served).message
    assert isinstance(map_error(500, b"<html>", served), UpstreamConnectionError)
