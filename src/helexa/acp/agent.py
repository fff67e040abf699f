"""The agent's side of the protocol: sessions, their options, and their turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helexa.acp import options
from helexa.acp.catalogue import Catalogue, NoModel
from helexa.acp.commands import parse
from helexa.acp.editor import Offers
from helexa.acp.live import Live, open_live
from helexa.acp.permission import MODES
from helexa.acp.prompts import parts, words
from helexa.acp.protocol.rpc import (
    AUTH_REQUIRED,
    INVALID_PARAMS,
    NOT_FOUND,
    Handler,
    Peer,
    RpcError,
    text,
)
from helexa.acp.protocol.updates import info, user_chunk
from helexa.acp.sessions.session import Saved, record, title_of
from helexa.acp.sessions.store import NoSession, SessionStore, new_id
from helexa.acp.settings import AcpSettings
from helexa.acp.slash import Slash
from helexa.acp.turn.instructions import instructions
from helexa.acp.turn.turn import Brain, Turn
from helexa.acp.welcome import greet, show_standing
from helexa.core.chat import Message
from helexa.core.errors import HelexaError, InvalidApiKey
from helexa.core.logging import Logger

Json = dict[str, Any]
PROTOCOL_VERSION = 1
API_KEY = "api-key"


class Agent:
    """Answers the editor.

    Args:
        now: Wall clock, for the dates of sessions.
    """

    def __init__(
        self,
        settings: AcpSettings,
        catalogue: Catalogue,
        store: SessionStore,
        version: str,
        log: Logger,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._version = version
        self._log = log
        self._now = now
        self._live: dict[str, Live] = {}
        self._offers = Offers()
        self._peer: Peer | None = None
        self._own: str | None = None
        self._slash = Slash(self, catalogue)

    def connect(self, peer: Peer) -> None:
        """The way to the editor."""
        self._peer = peer

    def requests(self) -> dict[str, Handler]:
        """By method."""
        return {
            "initialize": self.initialize,
            "authenticate": self.authenticate,
            "session/new": self.new,
            "session/load": self.load,
            "session/resume": self.resume,
            "session/list": self.list,
            "session/close": self.close,
            "session/delete": self.delete,
            "session/prompt": self.prompt,
            "session/set_mode": self.set_mode,
            "session/set_config_option": self.set_config_option,
        }

    def notifications(self) -> dict[str, Handler]:
        """By method."""
        return {"session/cancel": self.cancel}

    async def aclose(self) -> None:
        """Let go of every session."""
        await asyncio.gather(*(live.close() for live in self._live.values()))

    # ── the connection ──────────────────────────────────────────────────────────────────────

    async def initialize(self, params: Json) -> Json:
        """What we can do; what the editor can do is remembered."""
        self._offers = Offers.of(params)
        return {
            "protocolVersion": PROTOCOL_VERSION,
            "agentCapabilities": {
                "loadSession": True,
                "promptCapabilities": {"image": True, "audio": False, "embeddedContext": True},
                "mcpCapabilities": {"http": True, "sse": True},
                "sessionCapabilities": {"list": {}, "resume": {}, "close": {}, "delete": {}},
            },
            "agentInfo": {"name": "helexa-acp", "title": "helexa", "version": self._version},
            "authMethods": [
                {
                    "id": API_KEY,
                    "name": "API key",
                    "description": "Only where an endpoint asks for one: set HELEXA_ACP_API_KEY, "
                    "or api_key_env in the settings.",
                }
            ],
        }

    async def authenticate(self, params: Json) -> Json:
        """Whether the endpoints take the configured key now."""
        if params.get("methodId") != API_KEY:
            raise RpcError(INVALID_PARAMS, f"there is no method {params.get('methodId')!r}")
        await self._catalogue.refresh()
        if not self._catalogue.choices:
            raise RpcError(AUTH_REQUIRED, self._why_nothing())
        return {}

    # ── sessions ────────────────────────────────────────────────────────────────────────────

    async def new(self, params: Json) -> Json:
        """A new conversation in a folder."""
        cwd, roots = _folders(params)
        for folder in (cwd, *roots):
            if not await asyncio.to_thread(Path(folder).is_dir):
                raise RpcError(INVALID_PARAMS, f"there is no folder {folder}")
        await self._catalogue.refresh()
        self._refuse_without_key()
        stamp = self._stamp()
        saved = Saved(new_id(), cwd, roots, self._default(), created_at=stamp, updated_at=stamp)
        live = await self._open(saved, params)
        await greet(live, self._catalogue)
        return {"sessionId": saved.id, **self._state(live)}

    async def load(self, params: Json) -> Json:
        """A stored conversation, shown again from its beginning."""
        live = await self._stored(params)
        for update in live.saved.log:
            await live.editor.update(update)
        await show_standing(live, self._catalogue)
        await greet(live, self._catalogue)
        return self._state(live)

    async def resume(self, params: Json) -> Json:
        """A stored conversation, without showing it again."""
        return self._state(await self._stored(params))

    async def list(self, params: Json) -> Json:
        """Stored conversations, newest first."""
        cwd = params.get("cwd")
        heads = await asyncio.to_thread(self._store.heads, cwd if isinstance(cwd, str) else None)
        return {
            "sessions": [
                {
                    "sessionId": head.id,
                    "cwd": head.cwd,
                    "title": head.title,
                    "updatedAt": head.updated_at,
                }
                for head in heads
            ]
        }

    async def close(self, params: Json) -> Json:
        """Stop and let go of a session; it stays stored."""
        live = self._live.pop(text(params, "sessionId"), None)
        if live is not None:
            await live.close()
        return {}

    async def delete(self, params: Json) -> Json:
        """Forget a session."""
        await self.close(params)
        try:
            await asyncio.to_thread(self._store.delete, text(params, "sessionId"))
        except NoSession as error:
            raise RpcError(NOT_FOUND, str(error)) from error
        return {}

    async def set_mode(self, params: Json) -> Json:
        """Another mode, also in the middle of a turn."""
        live = self._of(params)
        await self.change(live, "mode", text(params, "modeId"))
        return {}

    async def set_config_option(self, params: Json) -> Json:
        """Model, thinking or mode."""
        live = self._of(params)
        await self.change(live, text(params, "configId"), params.get("value"))
        return {"configOptions": options.all_of(live.saved, self._catalogue)}

    # ── turns ───────────────────────────────────────────────────────────────────────────────

    async def prompt(self, params: Json) -> Json:
        """Run a turn; ``session/cancel`` ends it at once."""
        live = self._of(params)
        if live.turn is not None:
            raise RpcError(INVALID_PARAMS, "this session is in the middle of a turn")
        blocks = params.get("prompt") or []
        content = parts(blocks)
        said = parse(words(blocks))
        for block in blocks:  # the editor shows it already
            record(live.saved.log, user_chunk(block, new_id()))
        live.begin_turn()
        work = self._slash.run(live, *said) if said else self.turn(live, Message("user", content))
        live.turn = asyncio.ensure_future(work)
        try:
            reason = await live.turn
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                live.turn.cancel()
                await asyncio.wait([live.turn])
                raise
            reason = "cancelled"
        finally:
            live.turn = None
            live.end_turn()
            try:
                await self._save(live)
            finally:
                live.idle.set()
        return {"stopReason": reason, "usage": _usage(live.saved)}

    async def cancel(self, params: Json) -> None:
        """End the turn of a session."""
        live = self._live.get(text(params, "sessionId"))
        if live is not None and live.turn is not None:
            live.turn.cancel()

    async def turn(self, live: Live, message: Message) -> str:
        """One prompt to its end; the reason it ended."""
        try:
            brain = await self.brain(live)
        except NoModel as error:
            await live.show.text(f"I cannot answer: {error}.")
            return "end_turn"
        live.saved.messages.append(message)
        try:
            return await self.thinker(live, brain).run()
        except HelexaError as error:
            if isinstance(error, InvalidApiKey):
                raise RpcError(AUTH_REQUIRED, error.message) from error
            await live.show.text(f"\n\nThe model cannot answer: {error.message}")
            return "end_turn"

    # ── what they share ─────────────────────────────────────────────────────────────────────

    async def _open(self, saved: Saved, params: Json) -> Live:
        if self._peer is None:
            raise RuntimeError("a request came before its connection")
        servers = params.get("mcpServers") or []
        live = await open_live(
            saved, self._peer, self._offers, servers, self._settings.command_timeout_secs, self._log
        )
        self._live[saved.id] = live
        return live

    async def _stored(self, params: Json) -> Live:
        session_id = text(params, "sessionId")
        old = self._live.pop(session_id, None)
        if old is not None:
            await old.close()
        try:
            saved = await asyncio.to_thread(self._store.load, session_id)
        except NoSession as error:
            raise RpcError(NOT_FOUND, str(error)) from error
        cwd, roots = _folders(params)
        saved.cwd, saved.roots = cwd, roots
        await self._catalogue.refresh()
        return await self._open(saved, params)

    def thinker(self, live: Live, brain: Brain) -> Turn:
        """A turn of a session."""
        rounds = self._settings.max_rounds
        return Turn(live.saved, brain, live.caller, live.show, rounds, lambda: self._save(live))

    async def brain(self, live: Live) -> Brain:
        """The session's model, as the endpoints have it now.

        Raises:
            NoModel: It is nowhere.
        """
        try:
            choice = self._catalogue.find(live.saved.model)
        except NoModel:
            await self._catalogue.refresh()
            if not live.saved.model:
                live.saved.model = self._catalogue.default().selector
            choice = self._catalogue.find(live.saved.model)
        provider = self._catalogue.providers[choice.endpoint]
        own = await self._own_instructions()
        return Brain(
            provider,
            choice,
            instructions(live.workspace.home, live.rules, live.saved.mode, own),
            live.saved.thinking,
            provider.endpoint.max_tokens,
        )

    async def _own_instructions(self) -> str | None:
        path = self._settings.system_prompt_path
        if path is not None and self._own is None:
            self._own = await asyncio.to_thread(path.read_text, encoding="utf-8")
        return self._own

    async def change(self, live: Live, name: str, value: Any) -> None:
        """Change one option, here and for the editor.

        Raises:
            RpcError: There is no such option or value.
        """
        saved = live.saved
        if name == "mode" and value in {mode for mode, _, _ in MODES}:
            saved.mode = live.caller.mode = value
        elif name == "thinking" and value in ("on", "off", True, False):
            saved.thinking = value in ("on", True)
        elif name == "model" and isinstance(value, str):
            try:
                saved.model = self._catalogue.find(value).selector
            except NoModel as error:
                raise RpcError(INVALID_PARAMS, str(error)) from error
        else:
            raise RpcError(INVALID_PARAMS, f"there is no option {name!r} with {value!r}")
        for update in options.updates(saved, self._catalogue, name):
            await live.editor.update(update)

    async def _save(self, live: Live) -> None:
        saved = live.saved
        saved.updated_at = self._stamp()
        if saved.title is None:
            saved.title = title_of(saved.messages)
            if saved.title is not None:
                await live.editor.update(info(saved.title, saved.updated_at))
        try:
            await asyncio.shield(asyncio.to_thread(self._store.save, saved))
        except OSError as error:
            await live.show.note(f"The session could not be stored: {error}")

    def _state(self, live: Live) -> Json:
        return {
            "modes": options.modes(live.saved),
            "configOptions": options.all_of(live.saved, self._catalogue),
        }

    def _default(self) -> str:
        try:
            return self._catalogue.default().selector
        except NoModel:
            return ""

    def _of(self, params: Json) -> Live:
        session_id = text(params, "sessionId")
        live = self._live.get(session_id)
        if live is None:
            raise RpcError(NOT_FOUND, f"there is no open session {session_id!r}")
        return live

    def _refuse_without_key(self) -> None:
        if self._catalogue.refused and not self._catalogue.choices:
            raise RpcError(AUTH_REQUIRED, self._why_nothing())

    def _why_nothing(self) -> str:
        return "; ".join(f"{name}: {why}" for name, why in self._catalogue.down.items())

    def _stamp(self) -> str:
        return self._now().isoformat(timespec="seconds").replace("+00:00", "Z")


def _folders(params: Json) -> tuple[str, list[str]]:
    """The folder and further roots; they must be absolute."""
    cwd = text(params, "cwd")
    roots = params.get("additionalDirectories") or []
    for folder in (cwd, *roots):
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise RpcError(INVALID_PARAMS, f"{folder!r} is not an absolute path")
    return cwd, list(roots)


def _usage(saved: Saved) -> Json:
    return {
        "totalTokens": saved.prompt_tokens + saved.output_tokens,
        "inputTokens": saved.prompt_tokens,
        "outputTokens": saved.output_tokens,
    }
