"""``session/update`` bodies and their parts, spelled as the protocol's schema (v1) spells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal[
    "read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"
]
Status = Literal["pending", "in_progress", "completed", "failed"]


def text_block(text: str) -> Json:
    """Text as a content block."""
    return {"type": "text", "text": text}


def message_chunk(text: str, message_id: str) -> Json:
    """A piece of the answer."""
    return {
        "sessionUpdate": "agent_message_chunk",
        "content": text_block(text),
        "messageId": message_id,
    }


def thought_chunk(text: str, message_id: str) -> Json:
    """A piece of what the model thinks."""
    return message_chunk(text, message_id) | {"sessionUpdate": "agent_thought_chunk"}


def user_chunk(block: Json, message_id: str) -> Json:
    """A piece of what the user had said, when a session is replayed."""
    return {"sessionUpdate": "user_message_chunk", "content": block, "messageId": message_id}


def tool_call(
    call_id: str,
    title: str,
    kind: Kind,
    status: Status,
    raw_input: Any = None,
    locations: Sequence[Json] = (),
    content: Sequence[Json] = (),
) -> Json:
    """A call begins."""
    update: Json = {
        "sessionUpdate": "tool_call",
        "toolCallId": call_id,
        "title": title,
        "kind": kind,
        "status": status,
    }
    if raw_input is not None:
        update["rawInput"] = raw_input
    if locations:
        update["locations"] = list(locations)
    if content:
        update["content"] = list(content)
    return update


def tool_update(call_id: str, **members: Any) -> Json:
    """What changed about a call; members as the schema names them, None is left out."""
    update: Json = {"sessionUpdate": "tool_call_update", "toolCallId": call_id}
    return update | {name: value for name, value in members.items() if value is not None}


def said(text: str) -> Json:
    """Text as the content of a call."""
    return {"type": "content", "content": text_block(text)}


def diff(path: str, old: str | None, new: str) -> Json:
    """A change of a file, to be seen before and after; no old text is a new file."""
    return {"type": "diff", "path": path, "oldText": old, "newText": new}


def terminal(terminal_id: str) -> Json:
    """A terminal of the editor, live."""
    return {"type": "terminal", "terminalId": terminal_id}


def location(path: str, line: int | None = None) -> Json:
    """A place to look at; lines from 1."""
    return {"path": path} if line is None else {"path": path, "line": line}


def plan(entries: Sequence[tuple[str, str]]) -> Json:
    """The whole plan: content and status (``pending``, ``in_progress``, ``completed``)."""
    return {
        "sessionUpdate": "plan",
        "entries": [
            {"content": content, "priority": "medium", "status": status}
            for content, status in entries
        ],
    }


def commands(known: Sequence[tuple[str, str, str | None]]) -> Json:
    """Slash commands: name, description, hint of their argument."""
    return {
        "sessionUpdate": "available_commands_update",
        "availableCommands": [
            {"name": name, "description": description}
            | ({"input": {"hint": hint}} if hint is not None else {})
            for name, description, hint in known
        ],
    }


def mode_changed(mode: str) -> Json:
    """Another mode."""
    return {"sessionUpdate": "current_mode_update", "currentModeId": mode}


def options_changed(options: Sequence[Json]) -> Json:
    """All configuration options, whole."""
    return {"sessionUpdate": "config_option_update", "configOptions": list(options)}


def info(title: str | None, updated_at: str) -> Json:
    """The session's title."""
    return {"sessionUpdate": "session_info_update", "title": title, "updatedAt": updated_at}


def usage(used: int, size: int, cost: float | None) -> Json:
    """Tokens in the window, its size, and what the session has cost (USD)."""
    update: Json = {"sessionUpdate": "usage_update", "used": used, "size": size}
    if cost is not None:
        update["cost"] = {"amount": round(cost, 6), "currency": "USD"}
    return update
