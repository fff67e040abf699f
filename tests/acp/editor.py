"""An editor: the official SDK's client, with files, terminals and a user who decides."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import acp
from acp import schema
from acp.stdio import spawn_agent_process

LIMIT = 64 * 1024 * 1024


@dataclass
class FakeTerminal:
    process: asyncio.subprocess.Process
    output: bytes = b""
    reader: asyncio.Task[None] | None = None
    killed: bool = False
    limit: int | None = None


@dataclass
class Editor:
    """What the user sees and decides.

    Args:
        buffers: Unsaved text by path: what is read instead of the disk.
        answer: Chooses the option of a permission request; None cancels the turn.
    """

    buffers: dict[str, str] = field(default_factory=dict)
    answer: Callable[[Any], str | None] = lambda _call: "allow_once"
    updates: list[Any] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    terminals: dict[str, FakeTerminal] = field(default_factory=dict)
    released: list[str] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.append(update)
        self.news.set()

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Any, **_: Any
    ) -> schema.RequestPermissionResponse:
        self.asked.append(tool_call)
        self.news.set()
        chosen = self.answer(tool_call)
        if chosen == "wait":
            await asyncio.sleep(200)
        if chosen is None:
            return schema.RequestPermissionResponse(
                outcome=schema.DeniedOutcome(outcome="cancelled")
            )
        assert chosen in {option.option_id for option in options}
        return schema.RequestPermissionResponse(
            outcome=schema.AllowedOutcome(outcome="selected", option_id=chosen)
        )

    async def read_text_file(
        self, session_id: str, path: str, **_: Any
    ) -> schema.ReadTextFileResponse:
        if path in self.buffers:
            return schema.ReadTextFileResponse(content=self.buffers[path])
        try:
            return schema.ReadTextFileResponse(content=on_disk(path).read_text())
        except FileNotFoundError as error:
            raise acp.RequestError(-32002, "no such file") from error

    async def write_text_file(
        self, session_id: str, path: str, content: str, **_: Any
    ) -> schema.WriteTextFileResponse:
        self.written.append(path)
        self.buffers.pop(path, None)
        on_disk(path).write_text(content)
        return schema.WriteTextFileResponse()

    async def create_terminal(
        self, session_id: str, command: str, args: Any = None, cwd: Any = None, **_: Any
    ) -> schema.CreateTerminalResponse:
        process = await asyncio.create_subprocess_exec(
            command, *(args or []), cwd=cwd, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        made = FakeTerminal(process, limit=_.get("output_byte_limit"))

        async def read() -> None:
            assert process.stdout is not None
            while data := await process.stdout.read(4096):
                made.output += data

        made.reader = asyncio.ensure_future(read())
        name = f"t{len(self.terminals)}"
        self.terminals[name] = made
        self.news.set()
        return schema.CreateTerminalResponse(terminal_id=name)

    async def terminal_output(
        self, session_id: str, terminal_id: str, **_: Any
    ) -> schema.TerminalOutputResponse:
        made = self.terminals[terminal_id]
        status, code = None, made.process.returncode
        if code is not None:
            gone = {"exit_code": code} if code >= 0 else {"signal": signal.Signals(-code).name}
            status = schema.TerminalExitStatus(**gone)
        kept = made.output[-made.limit :] if made.limit else made.output
        return schema.TerminalOutputResponse(
            output=kept.decode(), truncated=len(kept) < len(made.output), exit_status=status
        )

    async def wait_for_terminal_exit(
        self, session_id: str, terminal_id: str, **_: Any
    ) -> schema.WaitForTerminalExitResponse:
        made = self.terminals[terminal_id]
        await made.process.wait()
        if made.reader is not None:
            await made.reader
        return schema.WaitForTerminalExitResponse(exit_code=max(0, made.process.returncode or 0))

    async def kill_terminal(
        self, session_id: str, terminal_id: str, **_: Any
    ) -> schema.KillTerminalResponse:
        made = self.terminals[terminal_id]
        made.killed = True
        if made.process.returncode is None:
            os.killpg(made.process.pid, signal.SIGKILL)
            await made.process.wait()
        return schema.KillTerminalResponse()

    async def release_terminal(
        self, session_id: str, terminal_id: str, **_: Any
    ) -> schema.ReleaseTerminalResponse:
        self.released.append(terminal_id)
        return schema.ReleaseTerminalResponse()

    async def create_elicitation(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    async def complete_elicitation(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        raise NotImplementedError(method)

    def on_connect(self, conn: Any) -> None:
        pass

    # ── what a test asks ────────────────────────────────────────────────────────────────────

    def kinds(self) -> list[str]:
        return [update.session_update for update in self.updates]

    def text(self, kind: str = "agent_message_chunk") -> str:
        return "".join(u.content.text for u in self.updates if u.session_update == kind)

    def calls(self) -> dict[str, dict[str, Any]]:
        """Every tool call as it stands."""
        found: dict[str, dict[str, Any]] = {}
        for update in self.updates:
            if update.session_update in ("tool_call", "tool_call_update"):
                values = update.model_dump(exclude_none=True, by_alias=True)
                found.setdefault(update.tool_call_id, {}).update(values)
        return found

    async def until(self, truth: Callable[[], object], timeout_s: float = 60) -> None:
        async with asyncio.timeout(timeout_s):
            while not truth():
                self.news.clear()
                await self.news.wait()


def on_disk(path: str) -> Path:
    return Path(path)


@dataclass
class Session:
    """One connection with one session."""

    agent: Any
    editor: Editor
    process: Any
    folder: Path
    session_id: str = ""
    state: Any = None
    messages: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def prompt(self, *blocks: Any) -> Any:
        content = [acp.text_block(b) if isinstance(b, str) else b for b in blocks]
        return await self.agent.prompt(session_id=self.session_id, prompt=content)


def environment(data: Path, url: str, **more: str) -> dict[str, str]:
    return os.environ | {
        "HELEXA_ACP_BASE_URL": url,  # empty: only what the settings say
        "XDG_DATA_HOME": str(data),
        "XDG_CONFIG_HOME": str(data),
        **more,
    }


@asynccontextmanager
async def connected(
    url: str,
    data: Path,
    editor: Editor | None = None,
    *,
    read: bool = True,
    write: bool = True,
    terminal: bool = True,
    **more: str,
) -> AsyncIterator[Session]:
    """The agent, initialised."""
    client = editor or Editor()
    command = [sys.executable, "-m", "helexa.cli", "acp", "--log-level", "info"]
    seen: list[tuple[str, dict[str, Any]]] = []
    async with spawn_agent_process(
        cast(Any, client), *command, env=environment(data, url, **more),
        transport_kwargs={"limit": LIMIT}, use_unstable_protocol=True,
        observers=[lambda event: seen.append((event.direction.value, event.message))],
    ) as (agent, process):  # fmt: skip
        files = schema.FileSystemCapabilities(read_text_file=read, write_text_file=write)
        answer = await agent.initialize(
            protocol_version=1,
            client_capabilities=schema.ClientCapabilities(fs=files, terminal=terminal),
        )
        assert answer.protocol_version == 1
        yield Session(agent, client, process, data, messages=seen)


@asynccontextmanager
async def opened(
    url: str, data: Path, work: Path, editor: Editor | None = None, **options: Any
) -> AsyncIterator[Session]:
    """A new session in ``work``."""
    servers = options.pop("mcp_servers", [])
    async with connected(url, data, editor, **options) as session:
        made = await session.agent.new_session(cwd=str(work), mcp_servers=servers)
        session.session_id, session.state = made.session_id, made
        yield session
