"""What the user sees of a turn: sent to the editor, and kept for replaying the session."""

from __future__ import annotations

from typing import Any

from helexa.acp.editor import Editor
from helexa.acp.protocol.updates import message_chunk, thought_chunk
from helexa.acp.sessions.session import record
from helexa.acp.sessions.store import new_id

Json = dict[str, Any]


class Show:
    """Shows updates of one session.

    Args:
        log: Where they are kept.
    """

    def __init__(self, editor: Editor, log: list[Json]) -> None:
        self._editor = editor
        self._log = log
        self._message = new_id()
        self._thought = new_id()

    def next_message(self) -> None:
        """What is said from now on is another message."""
        self._message, self._thought = new_id(), new_id()

    async def update(self, update: Json) -> None:
        """Show and keep something."""
        record(self._log, update)
        await self._editor.update(update)

    async def text(self, text: str) -> None:
        """A piece of the answer."""
        await self.update(message_chunk(text, self._message))

    async def thought(self, text: str) -> None:
        """A piece of a thought."""
        await self.update(thought_chunk(text, self._thought))

    async def note(self, text: str) -> None:
        """Something the agent itself has to say, apart from the answer; not kept."""
        await self._editor.update(thought_chunk(text + "\n", f"note{self._message}"))

    async def permission(self, call: Json, options: list[Json]) -> str | None:
        """Let the user decide."""
        return await self._editor.permission(call, options)
