"""Refusals of OpenAI-compatible engines, in our words and without theirs."""

from __future__ import annotations

import json

import msgspec
import pytest

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
from helexa.neuron.engines.compatible.errors import map_error

LONG = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least "
    "5000 input tokens, which exceeds this limit."
)
CAP = (
    "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context "
    "length is 4096 tokens and your request has 3500 input tokens (1000 > 4096 - 3500)."
)
OPENAI = (
    "This model's maximum context length is 4096 tokens. However, you requested 5200 tokens "
    "(5000 in the messages, 200 in the completion)."
)


def refused(served: Served, status: int, message: object) -> HelexaError:
    return map_error(status, json.dumps({"error": {"message": message}}).encode(), served)


@pytest.mark.parametrize(("said", "prompt", "most"), [(LONG, 5000, 4096), (CAP, 3500, 3096),
                                                      (OPENAI, 5000, 4096)])  # fmt: skip
def test_too_long_a_prompt_has_its_figures(
    served: Served, said: str, prompt: int, most: int
) -> None:
    error = refused(served, 400, said)
    assert isinstance(error, ContextLengthExceeded)
    assert (error.extras["prompt_len"], error.extras["max"]) == (prompt, most)


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (400, "'org/model' is not a multimodal model", VisionUnsupported),
        (400, "Invalid json schema: unsupported keyword", InvalidRequestBody),
        (400, "temperature must be non-negative", InvalidRequestBody),
        (400, "'dict object' has no attribute 'x'", TemplateRenderFailed),
        (404, "Not Found", UnsupportedOperation),
        (501, "does not support", UnsupportedOperation),
        (503, "loading", ModelLoading),
        (429, "busy", Overloaded),
        (401, "Unauthorized", UpstreamConnectionError),
        (500, "CUDA error", UpstreamConnectionError),
    ],
)
def test_each_cause_is_one_of_ours(
    served: Served, status: int, said: str, kind: type[HelexaError]
) -> None:
    assert type(refused(served, status, said)) is kind


@pytest.mark.parametrize(
    "body",
    [b'{"error": "no"}', b'{"detail": "no"}', b'{"message": "no", "code": 400}', b"no", b"[]",
     b'{"detail": [{"loc": ["body"], "msg": "no"}]}'],
)  # fmt: skip
def test_any_envelope_is_understood(served: Served, body: bytes) -> None:
    assert isinstance(map_error(400, body, served), InvalidRequestBody)


def test_a_sentence_of_the_template_is_the_templates(served: Served) -> None:
    said = "Conversation roles must alternate"
    template = "{{ raise_exception('" + said + "') }}"
    facts = msgspec.structs.replace(served.facts, chat_template=template)
    error = refused(msgspec.structs.replace(served, facts=facts), 400, said + "!")
    assert isinstance(error, TemplateRenderFailed)


def test_a_place_in_the_body_is_named_and_paths_are_not(served: Served) -> None:
    error = refused(served, 400, "[{'loc': ('body', 'top_p'), 'msg': 'in /opt/vllm/api.py'}]")
    assert error.param == "top_p"
    assert "/opt" not in error.message
