"""Reading a text in pieces, and what came of it, independent of how it was cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from helexa.core.events import ReasoningDelta, TextDelta, ToolCallArguments, ToolCallBegun
from helexa.wire.parsers.forms import Form
from helexa.wire.parsers.outlet import ReaderEvent
from helexa.wire.parsers.reader import AnswerReader

THINK = ("<think>", "</think>")
Item = tuple[str, str] | tuple[str, str, str]


def merged(events: Sequence[ReaderEvent]) -> list[Item]:
    """``("text", …)``, ``("thought", …)`` and ``("call", name, arguments)``; neighbours joined."""
    out: list[Item] = []
    for event in events:
        if isinstance(event, ToolCallBegun):
            out.append(("call", event.name, ""))
        elif isinstance(event, ToolCallArguments):
            kind, name, *before = out[-1]
            out[-1] = (kind, name, "".join(before) + event.fragment)
        elif isinstance(event, (TextDelta, ReasoningDelta)):
            assert event.text
            kind = "text" if isinstance(event, TextDelta) else "thought"
            if out and out[-1][0] == kind:
                out[-1] = (kind, out[-1][1] + event.text)
            else:
                out.append((kind, event.text))
    return out


def read(
    pieces: str | Sequence[str],
    forms: Sequence[Form] = (),
    think: tuple[str, str] | None = THINK,
    *,
    thinking: bool = False,
    tools: Mapping[str, dict[str, Any] | None] | None = None,
) -> list[Item]:
    """What an answer holds; a text by itself is read character by character."""
    reader = AnswerReader(forms, think, thinking=thinking, tools=tools)
    events: list[ReaderEvent] = []
    for piece in pieces:
        events += reader.feed(piece)
    return merged([*events, *reader.end()])
