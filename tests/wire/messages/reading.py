"""Reading the Messages dialect as Anthropic's own SDK does, and more strictly."""

from __future__ import annotations

import json
from typing import Any

from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
_STOPS = {"end_turn": "stop", "max_tokens": "length", "tool_use": "tool_calls",
          "stop_sequence": "stop", "refusal": "content_filter"}  # fmt: skip
_DELTA_OF = {"text": ("text_delta",), "thinking": ("thinking_delta", "signature_delta"),
             "tool_use": ("input_json_delta",)}  # fmt: skip


def sse(stream: bytes) -> list[dict[str, Any]]:
    """The payloads; each must say its event's name inside too."""
    found = []
    assert stream == b"" or stream.endswith(b"\n\n")
    for block in stream.split(b"\n\n"):
        lines = [line for line in block.split(b"\n") if line and not line.startswith(b":")]
        if not lines:
            continue
        assert len(lines) == 2, lines
        assert lines[0].startswith(b"event: ")
        assert lines[1].startswith(b"data: ")
        data = json.loads(lines[1][6:])
        assert data["type"] == lines[0][7:].decode()
        found.append(data)
    return found


def validate(payloads: list[dict[str, Any]]) -> None:
    """By the SDK's own types, strictly; ping and error are none of its event types."""
    for data in payloads:
        if data["type"] not in ("ping", "error"):
            _EVENT.validate_json(json.dumps(data), strict=True)


def check_order(payloads: list[dict[str, Any]]) -> None:
    """The order that Anthropic documents; an error may end a stream at any place."""
    kinds = [data["type"] for data in payloads if data["type"] != "ping"]
    if kinds and kinds[-1] == "error":
        kinds.pop()
    elif kinds:
        assert kinds[-2:] == ["message_delta", "message_stop"]
    if kinds:
        assert kinds[0] == "message_start"
    assert kinds.count("message_start") <= 1
    assert "error" not in kinds
    index, block = -1, None
    for data in payloads:
        if data["type"] == "content_block_start":
            assert block is None
            assert data["index"] == index + 1
            index, block = data["index"], data["content_block"]["type"]
        elif data["type"] == "content_block_delta":
            assert data["index"] == index
            assert data["delta"]["type"] in _DELTA_OF[str(block)]
        elif data["type"] == "content_block_stop":
            assert data["index"] == index
            assert block is not None
            block = None
        elif data["type"] in ("message_delta", "message_stop"):
            assert block is None


def said(payloads: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The meaning of a stream, in the words of ``dialects.answers.meaning``."""
    out: list[list[str]] = []
    for data in payloads:
        kind = data["type"]
        if kind == "content_block_start":
            out.append(_opened(data["content_block"]))
        elif kind == "content_block_delta":
            delta = data["delta"]
            if delta["type"] != "signature_delta":
                out[-1][-1] += (
                    delta.get("text") or delta.get("thinking") or delta.get("partial_json")
                )
        elif kind == "message_delta":
            out.append(_ended(data["delta"]["stop_reason"], data))
        elif kind == "error":
            out.append(["error", data["error"]["code"]])
    return [tuple(item) for item in out]


def said_plain(body: bytes) -> list[tuple[str, ...]]:
    """The meaning of a whole message, strictly validated."""
    Message.model_validate_json(body, strict=True)
    data = json.loads(body)
    out: list[list[str]] = []
    for block in data["content"]:
        item = _opened(block)
        if block["type"] == "tool_use":
            item[-1] = json.dumps(block["input"], sort_keys=True)
        else:
            item[-1] = block.get("text") or block.get("thinking")
        out.append(item)
    out.append(_ended(data["stop_reason"], data))
    return [tuple(item) for item in out]


def _opened(block: dict[str, Any]) -> list[str]:
    if block["type"] == "tool_use":
        return ["call", block["id"], block["name"], ""]
    return ["text" if block["type"] == "text" else "reasoning", ""]


def _ended(stop_reason: str, data: dict[str, Any]) -> list[str]:
    usage = data["usage"]
    assert usage["cache_creation_input_tokens"] == 0
    cached = usage["cache_read_input_tokens"]
    prompt = usage["input_tokens"] + cached
    cut = data.get("helexa", {}).get("finish", "")
    return ["end", _STOPS[stop_reason], str(prompt), str(usage["output_tokens"]), str(cached), cut]
