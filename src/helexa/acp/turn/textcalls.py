"""Tool calls in plain text, for models that have no calls of their own.

The model writes ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``. What is nearly JSON
is repaired; what is not is told to the model, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from helexa.core.chat import Image, Message, Text, Tool
from helexa.wire.parsers.markers import Markers
from helexa.wire.parsers.repair import Unreadable, closed, read_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_OPENING = Markers([OPEN])
_FENCE = re.compile(r"^```\w*\s*|\s*```$")


def described(tools: Sequence[Tool]) -> str:
    """How the tools are told to a model that knows none."""
    lines = [
        "\n\nYou can use tools. To use one, write exactly this and then stop:",
        f'{OPEN}{{"name": "the tool", "arguments": {{...}}}}{CLOSE}',
        "The result comes with the next message. The tools:",
    ]
    for tool in tools:
        parameters = b"{}" if tool.parameters is None else bytes(tool.parameters)
        lines.append(f"- {tool.name}: {tool.description} Arguments: {parameters.decode()}")
    return "\n".join(lines)


def as_text(messages: Sequence[Message]) -> list[Message]:
    """A history with calls as one without: calls in the text, results as the user's words."""
    out: list[Message] = []
    for message in messages:
        if message.tool_calls:
            calls = "".join(
                f'{OPEN}{{"name": "{c.name}", "arguments": {c.arguments or "{}"}}}{CLOSE}'
                for c in message.tool_calls
            )
            out.append(Message("assistant", (*message.content, Text(calls))))
        elif message.role == "tool":
            words = "".join(p.text for p in message.content if isinstance(p, Text))
            pictures = (p for p in message.content if isinstance(p, Image))
            said = Text(f"<tool_result>\n{words}\n</tool_result>")
            out.append(Message("user", (said, *pictures)))
        else:
            out.append(message)
    return out


class Visible:
    """Lets text through as it streams, up to the first call."""

    def __init__(self) -> None:
        self._held = ""
        self.whole = ""

    def feed(self, text: str) -> str:
        """What may be shown now."""
        self.whole += text
        if OPEN in self.whole[: -len(text) or None]:
            return ""
        self._held += text
        at = self._held.find(OPEN)
        if at >= 0:
            shown, self._held = self._held[:at], ""
            return shown
        keep = _OPENING.overlap(self._held)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def end(self) -> str:
        """What was held back and turned out to be no call."""
        held, self._held = self._held, ""
        return held


def calls(text: str) -> list[tuple[str, str]]:
    """Name and arguments (JSON text) of every call; a block that cannot be read has no name."""
    found = []
    for block in text.split(OPEN)[1:]:
        body = _FENCE.sub("", block.split(CLOSE)[0].strip()).strip()
        value = repaired(body)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            arguments = value.get("arguments", value.get("parameters", {}))
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            found.append((value["name"], arguments))
        else:
            found.append(("", body))
    return found


def repaired(body: str) -> Any:
    """JSON that models nearly write: closed where it was cut, without trailing commas, or Python's.

    Returns:
        The value, or None.
    """
    for attempt in (body, closed(body)):
        try:
            return read_json(attempt)
        except Unreadable:
            continue
    return None
