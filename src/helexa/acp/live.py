"""A session while it is open: its parts, joined."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helexa.acp.editor import Editor, Offers
from helexa.acp.protocol.rpc import Peer
from helexa.acp.sessions.session import Saved
from helexa.acp.tools.base import Change, Context, Tool, ToolTrouble
from helexa.acp.tools.command import RunCommand
from helexa.acp.tools.mcp import McpServer
from helexa.acp.tools.others import FetchUrl, Todo
from helexa.acp.tools.reading import Glob, Grep, ListDir, ReadFile
from helexa.acp.tools.writing import EditFile, WriteFile
from helexa.acp.turn.calling import Caller
from helexa.acp.turn.instructions import Rules, read_rules
from helexa.acp.turn.show import Show
from helexa.acp.workspace import Workspace
from helexa.core.logging import Logger

MOST_UNDOS = 20
CLOSE_S = 10.0


@dataclass(slots=True)
class Live:
    """One open session.

    Args:
        undo: Per turn what it changed, newest last.
        turn: The prompt that runs, if any.
        idle: Set while none does, its end being stored too.
    """

    saved: Saved
    editor: Editor
    workspace: Workspace
    show: Show
    caller: Caller
    context: Context
    rules: Rules
    servers: list[McpServer] = field(default_factory=list)
    undo: list[list[Change]] = field(default_factory=list)
    turn: asyncio.Task[Any] | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    def begin_turn(self) -> None:
        """What is changed from now on belongs to a new turn."""
        self.idle.clear()
        self.context.changed.clear()
        self.show.next_message()

    def end_turn(self) -> None:
        """Remember what the turn changed."""
        if self.context.changed:
            self.undo.append(list(self.context.changed))
            del self.undo[:-MOST_UNDOS]

    async def close(self) -> None:
        """Stop what runs, and wait until it is stored; servers too."""
        if self.turn is not None:
            self.turn.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.idle.wait()
        await asyncio.gather(*(server.stop() for server in self.servers))


def own_tools() -> list[Tool]:
    """The agent's own."""
    return [
        ReadFile(), ListDir(), Glob(), Grep(), EditFile(), WriteFile(), RunCommand(), Todo(),
        FetchUrl(),
    ]  # fmt: skip


async def open_live(
    saved: Saved,
    peer: Peer,
    offers: Offers,
    servers: list[Any],
    timeout_s: float,
    log: Logger,
) -> Live:
    """Join a session's parts and start its servers."""
    editor = Editor(peer, saved.id, offers)
    workspace = Workspace([Path(saved.cwd), *(Path(root) for root in saved.roots)], editor)
    context = Context(workspace, editor, [], saved.plan, timeout_s)
    show = Show(editor, saved.log)
    caller = Caller({tool.name: tool for tool in own_tools()}, context, show,
                    saved.remembered, log)  # fmt: skip
    caller.mode = saved.mode
    rules = await asyncio.to_thread(read_rules, workspace.roots)
    live = Live(saved, editor, workspace, show, caller, context, rules)
    await _start_servers(live, servers)
    return live


async def _start_servers(live: Live, configs: list[Any]) -> None:
    servers = [McpServer(config) for config in configs if isinstance(config, dict)]
    results = await asyncio.gather(*(s.start() for s in servers), return_exceptions=True)
    for server, result in zip(servers, results, strict=True):
        if isinstance(result, ToolTrouble):
            await live.show.note(f"The MCP server {server.name} cannot be used: {result}")
        elif isinstance(result, BaseException):
            raise result
        else:
            live.servers.append(server)
            live.caller.tools |= {tool.name: tool for tool in server.tools}
