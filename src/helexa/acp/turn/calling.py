"""Performing what the model called: looked at, allowed, done, shown; every call gets a result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from helexa.acp.permission import OPTIONS, Asked, Mode, decide, memory_key
from helexa.acp.protocol.rpc import RpcError
from helexa.acp.protocol.updates import said, tool_call, tool_update
from helexa.acp.tools.base import Context, Done, Prepared, Tool, ToolTrouble
from helexa.acp.turn.show import Show
from helexa.acp.turn.textcalls import repaired
from helexa.acp.workspace import FileTrouble
from helexa.core.chat import Message, Text, ToolCall
from helexa.core.logging import Logger
from helexa.wire.bodies import UNREADABLE

CANCELLED = "The user cancelled this call."
HALF = (
    "Your answer reached its limit of tokens in the middle of this call, so nothing was done. "
    "Do it in smaller parts: of a long file write the beginning, and add the rest by edits."
)


class Caller:
    """Performs the calls of one session.

    Args:
        tools: By name.
        mode: Asked anew for every call: the user may change it meanwhile.
        remembered: What the user always or never allows; written here.
    """

    def __init__(
        self,
        tools: dict[str, Tool],
        context: Context,
        show: Show,
        remembered: dict[str, bool],
        log: Logger,
    ) -> None:
        self.tools = tools
        self._context = context
        self._show = show
        self._remembered = remembered
        self._log = log
        self._count = 0
        self.mode: Mode = "ask"

    async def perform(
        self, calls: Sequence[ToolCall], results: list[Message], *, half: bool = False
    ) -> None:
        """All calls of an answer; those that only read run beside each other.

        ``half``: the last one was cut off. It is not repaired and performed: half a file would
        be written in place of a whole one.

        When it is cancelled, calls that are not done yet are shown as failed; their results are
        the caller's business.

        Args:
            results: Where each call's result is put, in their order, as soon as it is done.
        """
        beside: list[ToolCall] = []
        whole = calls[:-1] if half else calls
        for call in whole:
            tool = self.tools.get(call.name)
            if tool is not None and tool.reads_only:
                beside.append(call)
                continue
            results += await self._together(beside)
            beside = []
            results.append(await self._one(call))
        results += await self._together(beside)
        if half:
            results.append(await self._one(calls[-1], half=True))

    async def _together(self, calls: Sequence[ToolCall]) -> list[Message]:
        return list(await asyncio.gather(*(self._one(call) for call in calls)))

    async def _one(self, call: ToolCall, *, half: bool = False) -> Message:
        self._count += 1
        shown_id = f"{call.id}-{self._count}"
        try:
            done = await self._run(call, shown_id, half=half)
        except (ToolTrouble, FileTrouble, RpcError) as error:
            done = Done.text(str(error), failed=True)
            await self._show.update(
                tool_update(shown_id, status="failed", content=[said(str(error))])
            )
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.shield(
                    self._show.update(
                        tool_update(shown_id, status="failed", content=[said(CANCELLED)])
                    )
                )
            raise
        except Exception as error:  # noqa: BLE001  # one tool's bug must not end the turn
            self._log.exception("bug", tool=call.name)
            done = Done.text(f"a bug in the tool: {type(error).__name__}: {error}", failed=True)
            await self._show.update(tool_update(shown_id, status="failed"))
        return Message("tool", done.parts, tool_call_id=call.id, name=call.name or "unknown")

    async def _run(self, call: ToolCall, shown_id: str, *, half: bool) -> Done:
        tool = self.tools.get(call.name)
        arguments = call.arguments if half else _arguments(call)
        kind = tool.kind if tool is not None else "other"
        await self._show.update(
            tool_call(shown_id, call.name or "unreadable call", kind, "pending", arguments)
        )
        if half:
            raise ToolTrouble(HALF)
        if tool is None:
            known = ", ".join(sorted(self.tools))
            raise ToolTrouble(f"there is no tool {call.name!r}; there are: {known}")
        if not isinstance(arguments, dict):
            raise ToolTrouble(
                f"the arguments are no JSON object: {call.arguments[:200]!r}; write them again"
            )

        async def show(**members: Any) -> None:
            await self._show.update(tool_update(shown_id, **members))

        context = with_show(self._context, show)
        prepared = await tool.prepare(arguments, context)
        await self._show.update(
            tool_update(
                shown_id,
                title=prepared.title,
                locations=prepared.locations or None,
                content=prepared.content or None,
            )
        )
        await self._allowed(tool, prepared, shown_id, arguments)
        await self._show.update(tool_update(shown_id, status="in_progress"))
        done = await prepared.perform()
        words = "".join(part.text for part in done.parts if isinstance(part, Text))
        await self._show.update(
            tool_update(
                shown_id,
                status="failed" if done.failed else "completed",
                content=done.content if done.content is not None else [said(words)],
                rawOutput={"text": words},
            )
        )
        return done

    async def _allowed(self, tool: Tool, prepared: Prepared, shown_id: str, arguments: Any) -> None:
        """Return if it may be done.

        Raises:
            ToolTrouble: It may not; says so to the model.
        """
        asked = Asked(tool.name, tool.kind, prepared.subject, tool.reads_only, tool.in_plan)
        word, why = decide(self.mode, asked, self._remembered)
        if word == "refuse":
            raise ToolTrouble(why)
        if word == "allow":
            return
        call = {
            "toolCallId": shown_id,
            "title": prepared.title,
            "kind": tool.kind,
            "status": "pending",
            "rawInput": arguments,
            "locations": prepared.locations,
            "content": prepared.content,
        }
        subject = f" {prepared.subject}" if prepared.subject else ""
        options = [
            {
                "optionId": kind,
                "kind": kind,
                "name": words + (f":{subject}" if kind.endswith("always") and subject else ""),
            }
            for kind, words in OPTIONS
        ]
        chosen = await self._show.permission(call, options)
        if chosen is None:
            raise asyncio.CancelledError
        if chosen.endswith("_always"):
            self._remembered[memory_key(asked)] = chosen == "allow_always"
        if not chosen.startswith("allow"):
            raise ToolTrouble(
                "The user did not allow this. Do not try it again unchanged: do without it, or "
                "ask what they would like instead."
            )


def with_show(context: Context, show: Any) -> Context:
    """The session's context with this call's own way to the editor."""
    return Context(
        context.workspace, context.editor, context.changed, context.plan, context.timeout_s, show
    )


def _arguments(call: ToolCall) -> Any:
    if not call.arguments.strip():
        return {}
    try:
        return msgspec.json.decode(call.arguments)
    except UNREADABLE:
        found = repaired(call.arguments)
        return found if isinstance(found, dict) else call.arguments
