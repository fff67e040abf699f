"""The editor of one session: what it offers, and asking it."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.acp.protocol.rpc import Peer, RpcError

Json = dict[str, Any]


class Offers(msgspec.Struct, frozen=True):
    """What the editor can do for us, by its ``initialize``."""

    read: bool = False
    write: bool = False
    terminal: bool = False

    @classmethod
    def of(cls, params: Json) -> Offers:
        """From the parameters of ``initialize``."""
        given = params.get("clientCapabilities") or {}
        files = given.get("fs") or {}
        return cls(
            bool(files.get("readTextFile")),
            bool(files.get("writeTextFile")),
            bool(given.get("terminal")),
        )


class Gone(Exception):
    """The editor said that a file is not there."""


class Editor:
    """Asks the editor on behalf of one session."""

    def __init__(self, peer: Peer, session_id: str, offers: Offers) -> None:
        self._peer = peer
        self._session = session_id
        self.offers = offers

    async def update(self, update: Json) -> None:
        """Show something."""
        await self._peer.tell("session/update", {"sessionId": self._session, "update": update})

    async def ask(self, method: str, **params: Any) -> Any:
        """A request about this session.

        Raises:
            RpcError: The editor refused.
        """
        return await self._peer.ask(method, {"sessionId": self._session, **params})

    async def read(self, path: str) -> str:
        """The text as the user sees it, unsaved changes included.

        Raises:
            Gone: There is no such file.
        """
        try:
            answer = await self.ask("fs/read_text_file", path=path)
        except RpcError as error:
            raise Gone(error.message) from error
        return str((answer or {}).get("content", ""))

    async def write(self, path: str, text: str) -> None:
        """Change a file through the editor, so that its buffer follows.

        Raises:
            RpcError: The editor could not.
        """
        await self.ask("fs/write_text_file", path=path, content=text)

    async def permission(self, call: Json, options: list[Json]) -> str | None:
        """Let the user decide; the id of the chosen option, None when the turn was cancelled."""
        answer = await self.ask("session/request_permission", toolCall=call, options=options)
        outcome = (answer or {}).get("outcome") or {}
        chosen = outcome.get("optionId")
        return str(chosen) if outcome.get("outcome") == "selected" else None
