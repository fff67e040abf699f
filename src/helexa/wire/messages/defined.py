"""Tools that Anthropic defines and the client runs: named in a request, described nowhere in it.

Anthropic's models have learned them; to another model they are offered as what they are, with the
commands and members that the client's side of each reads.
"""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.chat import Tool

Json = dict[str, Any]

_RANGE: Json = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "For view: first and last line; -1 is the end of the file.",
}


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


_EDITING: Json = {
    "file_text": _text("For create: the whole file."),
    "old_str": _text("For str_replace: the text to replace; it must be in the file once."),
    "new_str": _text("For str_replace: what takes its place."),
    "insert_line": {
        "type": "integer",
        "description": "For insert: the line behind which; 0 is the start.",
    },
    "insert_text": _text("For insert: what is inserted."),
    "view_range": _RANGE,
}


def _commands(*names: str) -> Json:
    return {"type": "string", "enum": list(names)}


_DEFINED: dict[str, tuple[str, Json, list[str]]] = {
    "bash_20250124": (
        "Run a command in a bash session that goes on from call to call.",
        {
            "command": _text("What to run. Needed unless the session is restarted."),
            "restart": {"type": "boolean", "description": "True starts a new session."},
        },
        [],
    ),
    "text_editor_20250728": (
        "View, create and edit text files.",
        {
            "command": _commands("view", "create", "str_replace", "insert"),
            "path": _text("Of the file, or of a directory to view."),
            **_EDITING,
        },
        ["command", "path"],
    ),
    "memory_20250818": (
        "Keep notes for later conversations, as files below /memories. Look there first.",
        {
            "command": _commands("view", "create", "str_replace", "insert", "delete", "rename"),
            "path": _text("Of the file or directory; for rename, the old one."),
            **_EDITING,
            "old_path": _text("For rename."),
            "new_path": _text("For rename."),
        },
        ["command", "path"],
    ),
}
_RUN_BY_CLIENTS = ("bash_", "text_editor_", "memory_", "computer_", "browser_")


def defined_tool(kind: str, name: str, strict: bool | None) -> Tool | None:
    """The tool of the type ``kind``; None where it is not described here."""
    found = _DEFINED.get(kind)
    if found is None:
        return None
    description, properties, required = found
    schema: Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = required
    return Tool(name, description, msgspec.Raw(msgspec.json.encode(schema)), strict)


def run_by_clients(kind: str) -> bool:
    """Whether the client waits for calls of such a tool: one that is left out would be missed."""
    return kind.startswith(_RUN_BY_CLIENTS)
