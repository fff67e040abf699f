"""Responses streams and bodies, read strictly."""

from __future__ import annotations

import json
from typing import Any

from tests.responses_schema import check_event, check_response

_DELTAS = {
    "response.output_text.delta": "message",
    "response.reasoning_text.delta": "reasoning",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.function_call_arguments.delta": "function_call",
    "response.custom_tool_call_input.delta": "custom_tool_call",
}
_ENDS = ("response.completed", "response.incomplete", "response.failed")


def sse(stream: bytes) -> list[dict[str, Any]]:
    """Payloads of a whole stream; comments are left out."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found = []
    for block in stream.decode().split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        if not lines:
            continue
        assert len(lines) == 2, lines
        data = json.loads(lines[1].removeprefix("data: "))
        assert lines[0] == f"event: {data['type']}"
        found.append(data)
    return found


def validate(payloads: list[dict[str, Any]]) -> None:
    """Every payload against the published schemas."""
    for payload in payloads:
        check_event(payload)


def check_order(payloads: list[dict[str, Any]]) -> None:
    """The order that clients rely on."""
    kinds = [payload["type"] for payload in payloads]
    assert [p["sequence_number"] for p in payloads] == list(range(len(payloads)))
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.created") == 1
    assert [kind in _ENDS for kind in kinds].count(True) == 1
    assert kinds[-1] in _ENDS
    open_item: dict[str, Any] | None = None
    text = ""
    done: list[dict[str, Any]] = []
    for payload in payloads:
        kind = payload["type"]
        if kind == "response.output_item.added":
            assert open_item is None
            assert payload["output_index"] == len(done)
            open_item, text = payload["item"], ""
        elif kind in _DELTAS:
            assert open_item is not None
            assert open_item["type"] == _DELTAS[kind]
            assert payload["item_id"] == open_item["id"]
            assert payload["output_index"] == len(done)
            assert payload["delta"]
            text += payload["delta"]
        elif kind == "response.output_item.done":
            assert open_item is not None
            item = payload["item"]
            assert item["id"] == open_item["id"]
            assert text_of(item) == text
            done.append(item)
            open_item = None
    assert open_item is None or kinds[-1] == "response.failed"
    if kinds[-1] != "response.failed":
        shown = payloads[-1]["response"]["output"]
        assert [{**item, "status": ""} for item in shown] == [{**i, "status": ""} for i in done]


def text_of(item: dict[str, Any]) -> str:
    """What an item says."""
    if item["type"] == "function_call":
        return str(item["arguments"])
    if item["type"] == "custom_tool_call":
        return str(item["input"])
    return "".join(part["text"] for part in item["content"] or item["summary"])


def said(response: dict[str, Any]) -> list[tuple[str, ...]]:
    """The meaning of a response, as ``tests.wire.dialects.answers`` has it."""
    out: list[tuple[str, ...]] = []
    for item in response["output"]:
        if item["type"] == "function_call":
            out.append(("call", item["call_id"], item["name"], item["arguments"]))
        else:
            kind = "text" if item["type"] == "message" else "reasoning"
            out.append((kind, text_of(item)))
    if response["status"] == "failed":
        return [*out, ("error", response["error"]["code"])]
    called = any(item["type"] == "function_call" for item in response["output"])
    details = response["incomplete_details"] or {}
    reason = "tool_calls" if called else "stop"
    if response["status"] == "incomplete":
        reason = {"max_output_tokens": "length"}.get(details["reason"], details["reason"])
    usage = response["usage"]
    counts = (usage["input_tokens"], usage["output_tokens"],
              usage["input_tokens_details"]["cached_tokens"])  # fmt: skip
    cut = details.get("helexa", {}).get("finish", "")
    return [*out, ("end", reason, *map(str, counts), cut)]


def validate_body(body: bytes) -> dict[str, Any]:
    """A plain body, decoded and checked."""
    found: dict[str, Any] = json.loads(body)
    check_response(found)
    return found
