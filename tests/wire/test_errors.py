"""Every class of the tree, in both dialects, as the contract's table has it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from helexa.core import errors as e
from helexa.wire import errors as wire

CASES: list[tuple[e.HelexaError, int, str | None]] = [
    (e.InvalidJson("The body is not JSON (line 1)."), 400, "invalid_json"),
    (e.MissingModelField("The body has no model."), 400, "missing_model_field"),
    (e.InvalidRequestBody("A number.", param="messages[0]"), 400, "invalid_request_body"),
    (e.PreviousResponseNotFound("Not kept."), 400, "previous_response_not_found"),
    (e.UnsupportedParameter("No logit_bias.", param="logit_bias"), 400, "unsupported_parameter"),
    (e.UnsupportedOperation("Not an embedding model."), 400, "unsupported_operation"),
    (e.VisionUnsupported("It cannot see."), 400, "vision_unsupported"),
    (e.ContextLengthExceeded(42900, 15000), 400, "context_length_exceeded"),
    (e.PayloadTooLarge("Over 64 MB."), 413, "payload_too_large"),
    (e.HeadersTooLarge("Over 64 kB."), 431, "headers_too_large"),
    (e.RequestTimeout("The body took too long."), 408, "request_timeout"),
    (e.TemplateRenderFailed("The template refuses."), 422, "template_render_failed"),
    (e.InvalidApiKey("Unknown key."), 401, "invalid_api_key"),
    (e.Forbidden("Not this model."), 403, "forbidden"),
    (e.ModelNotFound("No such model."), 404, "model_not_found"),
    (e.InsufficientQuota("The balance is spent."), 429, "insufficient_quota"),
    (e.RateLimitExceeded("Budget in use.", retry_after_s=7.2), 429, "rate_limit_exceeded"),
    (e.ServiceUnavailable("No node.", retry_after_s=3), 503, "service_unavailable"),
    (e.ModelLoading("Loading.", retry_after_s=600, progress=0.3), 503, "model_loading"),
    (e.ModelRecovering("Recovering.", retry_after_s=0.2), 503, "model_recovering"),
    (e.Overloaded("Queue full."), 503, "overloaded"),
    (e.InsufficientVram("Needs 4 GB."), 503, "insufficient_vram"),
    (e.UpstreamConnectionError("The node went away."), 502, "upstream_connection_error"),
    (e.UpstreamTimeout("No first byte."), 504, "upstream_timeout"),
    (e.InternalError("Internal error."), 500, None),
]
IDS = [type(case[0]).__name__ for case in CASES]
FORBIDDEN = re.compile(r"429|5\d\d|overloaded|server_error|try again", re.IGNORECASE)


def every_subclass(kind: type[e.HelexaError]) -> set[type[e.HelexaError]]:
    return {kind}.union(*(every_subclass(sub) for sub in kind.__subclasses__()))


def headers_of(rendered: wire.Rendered) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in rendered.headers}


def test_every_class_with_a_code_has_a_case_here() -> None:
    # Rooms may derive from the tree; their classes exist only when their modules are imported.
    coded = {c for c in every_subclass(e.HelexaError) if c.code and c.__module__ == e.__name__}
    assert coded <= {type(case[0]) for case in CASES}


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=IDS)
def test_status_code_and_headers_are_the_same_in_both_dialects(
    error: e.HelexaError, status: int, code: str | None
) -> None:
    openai = wire.render(error, "openai", "req_abc")
    anthropic = wire.render(error, "anthropic", "req_abc")
    assert openai.status == anthropic.status == wire.status_of(error) == status
    inner = json.loads(openai.body)["error"]
    assert inner["code"] == code
    assert {"message", "type", "code", "param"} <= inner.keys()
    assert inner["param"] == error.param
    outer = json.loads(anthropic.body)
    assert outer["type"] == "error"
    assert outer["request_id"] == "req_abc"
    assert {"type", "message"} <= outer["error"].keys()
    assert outer["error"].get("code") == code
    assert ("code" in outer["error"]) == (code is not None)
    assert ("prompt is too long" in outer["error"]["message"]) == ("prompt_len" in error.extras)
    assert openai.headers == anthropic.headers
    said = "".join(f"{name}: {value}\r\n" for name, value in headers_of(openai).items())
    assert openai.lines == said.encode()


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=IDS)
def test_retry_after_is_there_exactly_when_it_helps(
    error: e.HelexaError, status: int, code: str | None
) -> None:
    rendered = wire.render(error, "openai")
    header = headers_of(rendered).get("retry-after")
    body = json.loads(rendered.body)["error"]
    if isinstance(error, e.TryLater):
        assert header is not None
        assert 1 <= int(header) <= 59
        assert body["retry_after_s"] == (error.retry_after_s or wire.UNKNOWN_RETRY_AFTER_S)
    else:
        assert header is None
        assert "retry_after_s" not in body


def test_retry_after_is_the_truth_rounded_up_and_clamped() -> None:
    def after(truth: float) -> int | None:
        return wire.retry_after_s(e.Overloaded("", retry_after_s=truth))

    assert [after(t) for t in (0.0, 0.2, 1.0, 1.1, 58.5, 59.1, 86400)] == [1, 1, 1, 2, 59, 59, 59]


def test_a_spent_balance_tells_the_sdk_not_to_retry() -> None:
    rendered = wire.render(e.InsufficientQuota("Spent."), "openai")
    assert headers_of(rendered)["x-should-retry"] == "false"
    assert "retry-after" not in headers_of(rendered)
    assert "x-should-retry" not in headers_of(wire.render(e.Forbidden("No."), "openai"))


def test_a_rolling_limit_gives_the_whole_wait_in_body_and_reset_header() -> None:
    rendered = wire.render(e.RateLimitExceeded("Budget.", retry_after_s=3599.2), "openai")
    assert headers_of(rendered)["retry-after"] == "59"
    assert headers_of(rendered)["x-ratelimit-reset-tokens"] == "3600s"
    body = json.loads(rendered.body)["error"]
    assert (body["retry_after_s"], body["type"]) == (3599.2, "tokens")
    soon = headers_of(wire.render(e.RateLimitExceeded("Budget."), "openai"))
    assert soon["x-ratelimit-reset-tokens"] == "5s"
    at_once = headers_of(wire.render(e.RateLimitExceeded("Budget.", retry_after_s=-2.5), "openai"))
    assert at_once["x-ratelimit-reset-tokens"] == "1s"
    assert "x-ratelimit-reset-tokens" not in headers_of(
        wire.render(e.Overloaded("Full."), "openai")
    )


def test_a_limit_on_requests_says_nothing_of_tokens() -> None:
    error = e.RateLimitExceeded("Too many.", retry_after_s=3, limited="requests", spent=None)
    rendered = wire.render(error, "openai")
    assert "x-ratelimit-reset-tokens" not in headers_of(rendered)
    body = json.loads(rendered.body)["error"]
    assert (body["type"], body["limited"]) == ("requests", "requests")
    assert "spent" not in body
    other = json.loads(wire.render(e.Overloaded("", limited="requests"), "openai").body)
    assert other["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [case for case in CASES if isinstance(case[0], e.RequestRefused)],
    ids=[i for i, case in zip(IDS, CASES, strict=True) if isinstance(case[0], e.RequestRefused)],
)
@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_a_refusal_never_looks_like_something_to_retry(
    error: e.HelexaError, status: int, code: str | None, dialect: wire.Dialect
) -> None:
    if isinstance(error, e.ContextLengthExceeded):
        return
    poisoned = type(error)(
        "At most 5000 of 1429, model gpt-503 of 16384 is Overloaded, a server_error: try again.",
        param="messages[512].content",
        limit=50000,
        note="try again",
        fine=7,
    )
    text = wire.render(poisoned, dialect, "id-429").body.decode()
    assert not FORBIDDEN.search(text), text
    assert '"fine":7' in text
    assert "5,000" in text
    assert " 16384 is …" in text


def test_a_number_that_python_will_not_read_is_left_out_of_a_refusal() -> None:
    text = wire.render(e.ModelNotFound(f"No model is called {'5' * 5000}."), "openai").body
    assert "No model is called ….".encode() in text


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
def test_context_overflow_uses_the_words_that_make_agents_compact(dialect: wire.Dialect) -> None:
    body: dict[str, Any] = json.loads(
        wire.render(e.ContextLengthExceeded(42900, 15000), dialect).body
    )
    assert "maximum context length is 15000 tokens" in body["error"]["message"]
    assert "prompt is too long" in body["error"]["message"]  # LangChain compacts on this one
    assert body["error"]["prompt_len"] == 42900
    assert body["error"]["max"] == 15000
    assert body["error"]["code"] == "context_length_exceeded"
    if dialect == "anthropic":
        assert "prompt is too long: 42900 tokens > 15000 maximum" in body["error"]["message"]


def test_error_events_have_the_form_of_their_stream() -> None:
    error = e.UpstreamConnectionError("The node went away.")
    chat, messages = wire.event(error, "openai"), wire.event(error, "anthropic")
    assert chat.startswith(b'data: {"error":{')
    assert messages.startswith(b'event: error\ndata: {"type":"error","error":{')
    assert chat.endswith(b"}\n\n")
    assert messages.count(b"\n\n") == chat.count(b"\n\n") == 1


def test_an_internal_error_names_the_request_and_nothing_else() -> None:
    inner = json.loads(wire.render(wire.internal_error("req_abc"), "openai").body)["error"]
    assert inner["code"] is None
    assert "req_abc" in inner["message"]


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=IDS)
def test_a_nodes_refusal_comes_out_of_the_gateway_unchanged(
    error: e.HelexaError, status: int, code: str | None
) -> None:
    first = wire.render(error, "openai")
    again = wire.from_wire(first.status, first.body)
    assert type(again) is type(error)
    assert wire.render(again, "openai") == first


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b"<html>", e.InvalidRequestBody),
        (404, b'{"error": "text"}', e.ModelNotFound),
        (418, b"[]", e.InvalidRequestBody),
        (503, b"", e.ServiceUnavailable),
        (500, b'{"error":{"message":null,"code":12}}', e.InternalError),
        (507, b"\xff", e.UpstreamConnectionError),
        (502, b'{"error":' * 5000, e.UpstreamConnectionError),
        (400, b'{"error":{"self":1,"error":2}}', e.InvalidRequestBody),
        (499, b"", e.InvalidRequestBody),
        (399, b"", e.UpstreamConnectionError),
        (501, b"", e.UpstreamConnectionError),
        (400, b'{"error":{"code":["x"],"param":7,"retry_after_s":"9"}}', e.InvalidRequestBody),
    ],
)
def test_what_is_no_envelope_is_mapped_by_its_status(
    status: int, body: bytes, kind: type[e.HelexaError]
) -> None:
    found = wire.from_wire(status, body)
    assert type(found) is kind
    assert (found.param, found.retry_after_s) == (None, None)
    assert found.message == f"The node answered with status {status}."


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        (b"/v1/messages", (), "anthropic"),
        (b"/messages/count_tokens", (), "anthropic"),
        (b"/v1/models", (b"anthropic-version",), "anthropic"),
        (b"/v1/models", (b"host",), "openai"),
        (b"/v1/chat/messages", (), "openai"),
    ],
)
def test_an_error_is_told_in_the_dialect_that_was_asked_in(
    path: bytes, headers: tuple[bytes, ...], dialect: str
) -> None:
    assert wire.dialect_of(path, headers) == dialect


def test_a_missing_route_has_the_callers_envelope() -> None:
    openai = wire.route_error(404, "not_found", "No such path: /v1/x503", "openai")
    assert (openai.status, headers_of(openai)) == (404, {"content-type": "application/json"})
    assert json.loads(openai.body) == {
        "error": {
            "message": "No such path: /v1/x…",
            "type": "invalid_request_error",
            "code": "not_found",
            "param": None,
        }
    }
    anthropic = [
        json.loads(wire.route_error(status, "x", "GET only", "anthropic", "id_a").body)
        for status in (404, 405, 410)
    ]
    assert anthropic[0] == {
        "type": "error",
        "error": {"type": "not_found_error", "message": "GET only", "code": "x"},
        "request_id": "id_a",
    }
    assert [found["error"]["type"] for found in anthropic[1:]] == ["invalid_request_error"] * 2
