"""One conversation: what the model remembers, what the editor was shown, what the user allowed."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.acp.permission import Mode
from helexa.core.chat import Message, Text

Json = dict[str, Any]
VERSION = 1
"""Of what is written; a new one where an older helexa would misread it."""
_TITLE_LENGTH = 60


class Saved(msgspec.Struct, omit_defaults=True):
    """A session as it is stored.

    Args:
        messages: What the model is sent, without the instructions.
        log: Updates the editor was shown, chunks joined: what ``session/load`` replays, and then
            ``plan`` as it stands.
        remembered: What the user always or never allows, by ``permission.memory_key``.
        used: Tokens in the window after the last answer.
        spent_usd: None until something had a price.
        version: As it was read; 1 where the file does not say.
    """

    id: str
    cwd: str
    roots: list[str]
    model: str
    mode: Mode = "ask"
    thinking: bool = False
    title: str | None = None
    created_at: str = ""
    updated_at: str = ""
    messages: list[Message] = []
    log: list[Json] = []
    remembered: dict[str, bool] = {}
    plan: list[tuple[str, str]] = []
    used: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    spent_usd: float | None = None
    version: int = 1


def record(log: list[Json], update: Json) -> None:
    """Add an update to what is replayed: chunks of a message are joined, calls end as they are."""
    kind = update["sessionUpdate"]
    if kind.endswith("_chunk"):
        last = log[-1] if log else None
        same = (
            last is not None
            and last["sessionUpdate"] == kind
            and last.get("messageId") == update.get("messageId")
            and last["content"].get("type") == update["content"].get("type") == "text"
        )
        if same and last is not None:
            last["content"]["text"] += update["content"]["text"]
        else:
            log.append(update | {"content": dict(update["content"])})
    elif kind == "tool_call":
        log.append(dict(update))
    elif kind == "tool_call_update":
        for entry in reversed(log):
            if entry.get("toolCallId") == update["toolCallId"]:
                entry.update({k: v for k, v in update.items() if k != "sessionUpdate"})
                break


def title_of(messages: list[Message]) -> str | None:
    """The first line that the user wrote, shortened."""
    for message in messages:
        if message.role == "user":
            for part in message.content:
                if isinstance(part, Text) and part.text.strip():
                    line = " ".join(part.text.split())
                    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1] + "…"
    return None
