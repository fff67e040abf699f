"""``run_command``: in a terminal of the editor where it offers one, else beside us."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
from typing import Any

from helexa.acp.editor import Editor
from helexa.acp.protocol.rpc import RpcError
from helexa.acp.protocol.updates import Kind, said, terminal
from helexa.acp.tools.base import Context, Done, Json, Prepared, ToolTrouble, number, schema, words

MOST_OUTPUT = 30_000
LONGEST_S = 3600
_GRACE_S = 2.0
_MADE_S = 5.0
"""How long a cancelled call waits for the terminal that it had asked for."""
_SHOW_EVERY_S = 0.3
_LOOK_EVERY_S = 0.1
BEGINNING_LEFT_OUT = "(the beginning is left out)\n"
LEFT_RUNNING = b"\n(what it left running in the background was ended)"


class RunCommand:
    """``run_command``."""

    name = "run_command"
    description = (
        "Run a shell command in the workspace and get its output and exit status. "
        "It must end by itself and must not ask for input."
    )
    parameters = schema(
        ("command",),
        command={"type": "string"},
        timeout_secs={"type": "integer", "description": "It is ended after so long."},
    )
    kind: Kind = "execute"
    reads_only = False
    in_plan = False

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        command = words(arguments, "command").strip()
        if not command:
            raise ToolTrouble("`command` is empty")
        limit_s = number(arguments, "timeout_secs", int(context.timeout_s), 1, LONGEST_S)

        async def perform() -> Done:
            if context.editor.offers.terminal:
                return await _in_terminal(command, limit_s, context)
            return await _here(command, limit_s, context)

        return Prepared(f"`{command}`", perform, subject=program(command))


def program(command: str) -> str:
    """What "always" is remembered for: the program; nothing where a shell would do more."""
    if any(mark in command for mark in (";", "|", "&", "`", "$(", ">", "<", "\n")):
        return command
    try:
        parts = shlex.split(command)
    except ValueError:
        return command
    return parts[0] if parts else command


async def _in_terminal(command: str, limit_s: float, context: Context) -> Done:
    """The editor runs it and shows it live; killed and let go of whatever happens."""
    editor = context.editor
    terminal_id = await _made(command, context)
    if context.show is not None:
        await context.show(content=[terminal(terminal_id)])
    late = False
    try:
        try:
            async with asyncio.timeout(limit_s):
                await editor.ask("terminal/wait_for_exit", terminalId=terminal_id)
        except TimeoutError:
            late = True
            await editor.ask("terminal/kill", terminalId=terminal_id)
        found = await editor.ask("terminal/output", terminalId=terminal_id)
    except asyncio.CancelledError:
        await asyncio.shield(_let_go(editor, terminal_id, "terminal/kill"))
        raise
    finally:
        await asyncio.shield(_let_go(editor, terminal_id, "terminal/release"))
    ended = found.get("exitStatus") or {}
    # Whoever stops a command in the editor leaves no status: a signal, or nothing.
    status = ended.get("exitCode") if ended.get("signal") is None else ended["signal"]
    head = BEGINNING_LEFT_OUT if found.get("truncated") else ""
    text = head + str(found.get("output", ""))
    return _done(text, status, limit_s if late else None, [terminal(terminal_id)])


async def _made(command: str, context: Context) -> str:
    """A terminal's id; one that comes after the call was cancelled is ended at once."""
    editor = context.editor
    making = asyncio.ensure_future(
        editor.ask(
            "terminal/create",
            command="/bin/sh",
            args=["-c", command],
            cwd=str(context.workspace.home),
            outputByteLimit=MOST_OUTPUT,
        )
    )
    try:
        return str((await asyncio.shield(making))["terminalId"])
    except asyncio.CancelledError:
        with contextlib.suppress(RpcError, TimeoutError):
            async with asyncio.timeout(_MADE_S):
                late = str((await making)["terminalId"])
            await _let_go(editor, late, "terminal/kill", "terminal/release")
        raise


async def _let_go(editor: Editor, terminal_id: str, *steps: str) -> None:
    for step in steps:
        with contextlib.suppress(RpcError):
            await editor.ask(step, terminalId=terminal_id)


async def _here(command: str, limit_s: float, context: Context) -> Done:
    """In a process group of its own, so that its children end with it."""
    try:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            command,
            cwd=context.workspace.home,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # no such folder, too long, a NUL in it
        raise ToolTrouble(f"the command cannot be started: {error}") from error
    output = _Output()
    late = False
    try:
        async with asyncio.timeout(limit_s):
            await _until_it_ends(process, output, context)
    except TimeoutError:
        late = True
    finally:
        await asyncio.shield(_end(process))
    return _done(output.text, process.returncode, limit_s if late else None, None)


class _Output:
    """The newest bytes of an output."""

    def __init__(self) -> None:
        self._data = b""
        self._cut = False

    def add(self, data: bytes) -> None:
        self._data += data
        if len(self._data) > MOST_OUTPUT:
            self._data, self._cut = self._data[-MOST_OUTPUT:], True

    @property
    def text(self) -> str:
        head = BEGINNING_LEFT_OUT if self._cut else ""
        return head + self._data.decode("utf-8", "replace")


async def _until_it_ends(process: Any, output: _Output, context: Context) -> None:
    """Its own end, not that of what it leaves running, which holds the output open."""
    following = asyncio.ensure_future(_follow(process, output, context))
    try:
        while process.returncode is None:
            if following.done():
                await process.wait()  # which waits for the end of the output, too
            await asyncio.wait([following], timeout=_LOOK_EVERY_S)
        await asyncio.wait([following], timeout=_GRACE_S)
        if following.done():
            following.result()
        elif _lives(process.pid):
            output.add(LEFT_RUNNING)
    finally:
        following.cancel()


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


async def _follow(process: Any, output: _Output, context: Context) -> None:
    loop = asyncio.get_running_loop()
    shown = loop.time()
    while data := await process.stdout.read(65_536):
        output.add(data)
        if context.show is not None and loop.time() - shown > _SHOW_EVERY_S:
            shown = loop.time()
            await context.show(content=[said(output.text)])


async def _end(process: Any) -> None:
    for number_ in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number_)
        if process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_S):
                    await process.wait()


def _done(
    text: str, status: int | str | None, late: float | None, content: list[Json] | None
) -> Done:
    """``status`` is a signal's name, or None, where the command was stopped from outside."""
    if late is not None:
        ending = f"(ended after {late:g} s; it had not finished)"
    elif isinstance(status, int):
        ending = f"(exit status {status})"
    else:
        ending = f"(stopped{f' by {status}' if status else ''}; it had not finished)"
    whole = f"{text.rstrip()}\n{ending}".lstrip()
    return Done.text(whole, content=content, failed=late is not None or status != 0)
