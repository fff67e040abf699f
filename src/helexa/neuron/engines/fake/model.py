"""What the fake engine says: a pure function of the request.

It repeats what follows the last colon of the last user message (or all of it), thinks first when
asked to, calls the first tool when there are tools, and answers a schema with its least instance.
A token is a word or a sign with the blanks before it.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_TOKEN = re.compile(r"\s*(?:[\w']+|[^\w\s])|\s+$")


class Piece(msgspec.Struct, frozen=True):
    """One token of an answer: ``kind`` is ``content``, ``reasoning_content`` or ``tool_calls``."""

    kind: str
    text: str


class Reply(msgspec.Struct, frozen=True):
    """A whole answer; ``tool`` is the name called by the ``tool_calls`` pieces."""

    pieces: tuple[Piece, ...]
    tool: str | None = None


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong, in the request's ``fake`` member; counts are output tokens.

    Args:
        prefill_s: The prompt takes this much longer.
        crash_after: The process dies by SIGSEGV.
        oom_after: The process is killed as the kernel does when memory runs out.
        hang_after: The process stops answering anything.
        garbage_after: Bytes that are no event.
        error_after: An error event.
        drop_after: The connection is reset.
        count: Tokens to say, whatever the request contains.
    """

    prefill_s: float = 0.0
    crash_after: int | None = None
    oom_after: int | None = None
    hang_after: int | None = None
    garbage_after: int | None = None
    error_after: int | None = None
    drop_after: int | None = None
    count: int | None = None


def tokenize(text: str) -> list[str]:
    """Tokens whose concatenation is ``text``."""
    return _TOKEN.findall(text)


def render(body: dict[str, Any]) -> str:
    """The prompt."""
    if "messages" not in body:
        return str(body.get("prompt", ""))
    lines = [json.dumps(body["tools"])] if body.get("tools") else []
    for message in body["messages"]:
        calls = json.dumps(message["tool_calls"]) if message.get("tool_calls") else ""
        lines.append(f"<{message['role']}> {_text(message.get('content'))}{calls}")
    return "\n".join([*lines, "<assistant>"])


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


def answer(body: dict[str, Any], faults: Faults) -> Reply:
    """The reply to a decoded request."""
    if faults.count is not None:
        return Reply(tuple(Piece("content", f" t{index}") for index in range(faults.count)))
    if "messages" not in body:
        return Reply(_pieces("content", str(body.get("prompt", ""))))
    last = body["messages"][-1]
    thinking = (body.get("chat_template_kwargs") or {}).get("enable_thinking", False)
    thought = _pieces("reasoning_content", "I shall answer.") if thinking else ()
    schema = ((body.get("response_format") or {}).get("json_schema") or {}).get("schema")
    if schema is not None:
        return Reply((*thought, *_pieces("content", json.dumps(least(schema)))))
    if body.get("tools") and last["role"] == "user" and body.get("tool_choice") != "none":
        function = body["tools"][0]["function"]
        arguments = json.dumps(least(function["parameters"]))
        return Reply((*thought, *_pieces("tool_calls", arguments)), function["name"])
    said = _text(last.get("content"))
    return Reply((*thought, *_pieces("content", said.rpartition(":")[2].strip() or said)))


def _pieces(kind: str, text: str) -> tuple[Piece, ...]:
    return tuple(Piece(kind, token) for token in tokenize(text))


def least(schema: dict[str, Any]) -> Any:
    """The least instance of a JSON schema (types, enum, const, properties, items)."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    if kind == "object":
        wanted = schema.get("required", list(schema.get("properties", {})))
        return {name: least(schema.get("properties", {}).get(name, {})) for name in wanted}
    if kind == "array":
        return [least(schema.get("items", {}))] * int(schema.get("minItems", 0))
    return {"string": "word", "integer": 1, "number": 1.5, "boolean": True}.get(kind)
