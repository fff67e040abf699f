"""JSON that models nearly write."""

from __future__ import annotations

import ast
import re
from typing import Any

import msgspec

_FENCE = re.compile(r"^```\w*\s*|\s*```$")
_COMMA = re.compile(r",\s*([}\]])")


class Unreadable(ValueError):
    """No value can be made of the text."""


def read_json(text: str) -> Any:
    """The value of ``text``: JSON, in a code fence, with trailing commas, or as Python writes it.

    Raises:
        Unreadable: It is none of these.
    """
    body = _FENCE.sub("", text.strip()).strip()
    for attempt in (body, _COMMA.sub(r"\1", body)):
        try:
            return msgspec.json.decode(attempt)
        except (msgspec.DecodeError, RecursionError):
            continue
    try:
        value = ast.literal_eval(body)
        msgspec.json.encode(value)  # no complex numbers, for example
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise Unreadable(text) from None
    return value


def closed(text: str) -> str:
    """``text``, JSON that was cut, with its open strings, lists and objects closed."""
    stack: list[str] = []
    inside = escaped = False
    for char in text:
        if inside:
            inside, escaped = (char != '"' or escaped), char == "\\" and not escaped
        elif char == '"':
            inside = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]" and stack:
            stack.pop()
    return text + ('"' if inside else "") + "".join(reversed(stack))
