"""One answer of the model: streamed to the editor, retried where that may help."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec

from helexa.acp.providers.base import Note, Provider
from helexa.acp.turn.textcalls import CLOSE, OPEN, Visible, calls
from helexa.core.chat import ChatRequest, ToolCall
from helexa.core.errors import HelexaError, TryLater, UpstreamFailed
from helexa.core.events import (
    Cut,
    Event,
    Failed,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallArguments,
    ToolCallBegun,
)
from helexa.core.usage import Usage
from helexa.wire.bodies import UNREADABLE

MOST_TRIES = 5
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 59.0


@dataclass(slots=True)
class Answer:
    """What the model said.

    Args:
        half: It was cut in the middle of its last call.
        cut: Why a gateway or node ended it, where that says so.
    """

    text: str = ""
    reasoning: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    reason: FinishReason = "stop"
    usage: Usage | None = None
    half: bool = False
    cut: Cut | None = None


@dataclass(slots=True)
class Shown:
    """Where an answer's pieces go while it comes."""

    text: Callable[[str], Awaitable[None]]
    thought: Callable[[str], Awaitable[None]]
    note: Callable[[str], Awaitable[None]]


class Answering:
    """Asks for answers.

    Args:
        sleep: Waits between tries.
    """

    def __init__(
        self, shown: Shown, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._shown = shown
        self._sleep = sleep
        self._attempt: _Attempt | None = None

    @property
    def begun(self) -> str:
        """What an answer that was interrupted had said."""
        return "" if self._attempt is None else self._attempt.said

    async def ask(self, provider: Provider, request: ChatRequest, *, plain: bool) -> Answer:
        """One whole answer.

        A refusal that will pass is waited for as long as it says; an answer that broke off is
        asked for again only when nothing of it was shown.

        Args:
            plain: The model has no calls of its own: they are read out of its text.

        Raises:
            HelexaError: It will not come.
        """
        for tried in range(1, MOST_TRIES + 1):
            attempt = self._attempt = _Attempt(self._shown, plain=plain)
            try:
                async for event in provider.stream(request):
                    await attempt.take(event)
                answer = await attempt.answer()
                self._attempt = None
                return answer
            except HelexaError as error:
                wait = _wait(error, tried)
                if wait is None or attempt.shown or tried == MOST_TRIES:
                    raise
                await self._shown.note(f"{error.message} Asking again in {wait:.0f} s.")
                await self._sleep(wait)
        raise AssertionError("unreachable")


def _wait(error: HelexaError, tried: int) -> float | None:
    """Seconds until asking again may help; None when it will not."""
    if isinstance(error, TryLater) and error.retry_after_s is not None:
        return min(_LONGEST_WAIT_S, max(0.1, error.retry_after_s))
    if isinstance(error, (TryLater, UpstreamFailed)):
        return min(_LONGEST_WAIT_S, _FIRST_WAIT_S * (1 << (tried - 1)))
    return None


class _Attempt:
    """One stream as it comes."""

    def __init__(self, shown: Shown, *, plain: bool) -> None:
        self._to = shown
        self._visible = Visible() if plain else None
        self._answer = Answer()
        self._arguments: dict[int, list[str]] = {}
        self._begun: dict[int, ToolCallBegun] = {}
        self.shown = False

    async def take(self, event: Event | Note) -> None:
        """One event; raises what it failed with."""
        match event:
            case TextDelta(text):
                await self._text(text)
            case ReasoningDelta(text):
                self._answer.reasoning += text
                self.shown = True
                await self._to.thought(text)
            case ToolCallBegun(call):
                self._begun[call] = event
                self._arguments[call] = []
            case ToolCallArguments(call, fragment):
                self._arguments[call].append(fragment)
            case Finished():
                self._answer.reason, self._answer.usage = event.reason, event.usage
                self._answer.cut = event.cut
            case Failed(error):
                raise error
            case Note(text):
                await self._to.note(text)

    async def _text(self, text: str) -> None:
        self._answer.text += text
        shown = text if self._visible is None else self._visible.feed(text)
        if shown:
            self.shown = True
            await self._to.text(shown)

    @property
    def said(self) -> str:
        """Its words so far, without calls that it writes as text."""
        return self._answer.text.partition(OPEN)[0].rstrip()

    async def answer(self) -> Answer:
        """When it is complete."""
        answer = self._answer
        answer.calls = [
            ToolCall(begun.id or f"call{number}", begun.name, "".join(self._arguments[number]))
            for number, begun in self._begun.items()
        ]
        if self._visible is not None:
            await self._to.text(self._visible.end())
            found = calls(answer.text)
            answer.calls = [
                ToolCall(f"text{i}", name, arguments) for i, (name, arguments) in enumerate(found)
            ]
            unended = CLOSE not in answer.text.rpartition(OPEN)[2]
            if found:
                answer.text = self.said
        else:
            unended = bool(answer.calls) and not _is_json(answer.calls[-1].arguments)
        answer.half = bool(answer.calls) and unended and answer.reason == "length"
        return answer


def _is_json(arguments: str) -> bool:
    try:
        msgspec.json.decode(arguments or "{}")
    except UNREADABLE:
        return False
    return True
