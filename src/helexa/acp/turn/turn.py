"""The loop of a turn.

::

    prompt ─▶ room? ─no─▶ compact ─┐
               └─yes─▶ ask ◀───────┘
                        ├─ calls ─▶ perform ─▶ ask …      bounded rounds, loops are noticed
                        ├─ too long ─▶ compact ─▶ ask
                        └─ words ─▶ end
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from helexa.acp.catalogue import Choice
from helexa.acp.protocol.updates import usage
from helexa.acp.providers.base import Provider
from helexa.acp.sessions.session import Saved
from helexa.acp.tools.base import Tool as AgentTool
from helexa.acp.turn import compaction
from helexa.acp.turn.answer import Answer, Answering, Shown
from helexa.acp.turn.calling import CANCELLED, Caller
from helexa.acp.turn.show import Show
from helexa.acp.turn.textcalls import as_text, described
from helexa.core.chat import ChatRequest, Message, Reasoning, Text, Tool, ToolCall
from helexa.core.errors import ContextLengthExceeded, HelexaError
from helexa.core.events import Cut

StopReason = Literal["end_turn", "max_tokens", "max_turn_requests", "refusal", "cancelled"]

FULL = 0.85
"""Share of the window at which room is made."""
KEPT = 0.5
"""Share of the window that a history may take after that."""
SAME_ROUNDS = 3
LOOPED = "This call was made again and again; it was stopped."
_MOST_COMPACTIONS = 4
_CUTS: dict[Cut, str] = {
    "budget": "the budget of this key is spent",
    "kv_exhausted": "its node had no room left for a longer one",
    "node_lost": "its node was lost",
    "drain": "its node is shutting down",
}


@dataclass(slots=True)
class Brain:
    """Which model answers, and how.

    Args:
        cap: Output tokens of one answer.
    """

    provider: Provider
    choice: Choice
    instructions: str
    thinking: bool = False
    cap: int | None = None

    @property
    def plain(self) -> bool:
        """It has no calls of its own."""
        return self.choice.model.tools is False


class Turn:
    """Runs one prompt to its end.

    Args:
        store: Called when a round of calls has been performed: a long turn is not to be lost whole.
    """

    def __init__(
        self,
        session: Saved,
        brain: Brain,
        caller: Caller,
        show: Show,
        max_rounds: int,
        store: Callable[[], Awaitable[None]],
    ) -> None:
        self._session = session
        self._brain = brain
        self._caller = caller
        self._show = show
        self._max_rounds = max_rounds
        self._store = store
        self._answering = Answering(Shown(show.text, show.thought, show.note))
        self._seen: list[tuple[str, ...]] = []

    async def run(self) -> StopReason:
        """Ask and perform until there is nothing to perform.

        Raises:
            HelexaError: The model cannot answer; the history is whole and the session usable.
        """
        for _ in range(self._max_rounds):
            try:
                answer = await self._ask()
            except BaseException:  # the user has seen it: the model is to know it too
                self._keep(Answer(self._answering.begun))
                raise
            self._keep(answer)
            await self._count(answer)
            if not answer.calls:
                await self._say_why(answer)
                return _stop_reason(answer)
            if self._loops(answer):
                await self._show.text(
                    "\n\nI keep making the same calls without getting anywhere, so I stop here."
                )
                self._answer_calls(
                    answer.calls, "This call was made again and again; it was stopped."
                )
                return "end_turn"
            await self._perform(answer)
            await self._store()
            self._show.next_message()
        await self._show.text(f"\n\nI stop after {self._max_rounds} rounds; say if I shall go on.")
        return "max_turn_requests"

    async def compact(self, *, hard: bool = False) -> bool:
        """Make room in the window; False when nothing more can be let go of.

        Args:
            hard: The endpoint says that it is too long: estimates are not to be trusted.
        """
        messages = self._session.messages
        before = compaction.tokens(messages)
        room = min(self._room(), before // 2) if hard else self._room()
        lighter = compaction.lightened(messages, room)
        if compaction.tokens(lighter) > room:
            lighter = await self._summarised(lighter, room)
        if compaction.tokens(lighter) > room:
            lighter = compaction.within_turn(lighter, room)
        if lighter == messages:
            return False
        messages[:] = lighter
        after = compaction.tokens(lighter)
        await self._show.note(f"Made room in the context: about {before} → {after} tokens.")
        return True

    async def _ask(self) -> Answer:
        """One answer, making room first where that is needed."""
        if self._used() > FULL * self._brain.choice.context:
            await self.compact()
        for _ in range(_MOST_COMPACTIONS):
            try:
                return await self._answering.ask(
                    self._brain.provider, self._request(), plain=self._brain.plain
                )
            except ContextLengthExceeded:
                if not await self.compact(hard=True):
                    raise
        return await self._answering.ask(
            self._brain.provider, self._request(), plain=self._brain.plain
        )

    def _request(self) -> ChatRequest:
        brain, messages = self._brain, self._session.messages
        tools = tuple(described_tool(tool) for tool in self._caller.tools.values())
        words = brain.instructions + (described(tools) if brain.plain else "")
        history = as_text(messages) if brain.plain else messages
        return ChatRequest(
            model=brain.choice.model.id,
            messages=(Message("system", (Text(words),)), *history),
            stream=True,
            tools=() if brain.plain else tools,
            max_output=brain.cap,
            reasoning=Reasoning(enabled=True, effort="medium") if brain.thinking else Reasoning(),
            user=self._session.id,
        )

    async def _perform(self, answer: Answer) -> None:
        """Every call gets its result, also when the user cancels in the middle."""
        results: list[Message] = []
        try:
            await self._caller.perform(answer.calls, results, half=answer.half)
        finally:
            self._session.messages += results
            self._answer_calls(answer.calls[len(results) :], CANCELLED)

    def _answer_calls(self, calls: Sequence[ToolCall], words: str) -> None:
        self._session.messages += [
            Message("tool", (Text(words),), tool_call_id=call.id, name=call.name) for call in calls
        ]

    def _keep(self, answer: Answer) -> None:
        content = (Text(answer.text),) if answer.text else ()
        if content or answer.calls:
            self._session.messages.append(
                Message("assistant", content, tuple(answer.calls), answer.reasoning)
            )

    async def _say_why(self, answer: Answer) -> None:
        """Where the end of an answer does not explain itself."""
        if answer.cut is not None:
            await self._show.text(f"\n\n(The answer was cut here: {_CUTS[answer.cut]}.)")
        elif not answer.text.strip():
            await self._show.text("(The model ended its turn without an answer.)")

    async def _count(self, answer: Answer) -> None:
        counts, session = answer.usage, self._session
        if counts is None:
            return
        session.used = counts.prompt + counts.completion
        session.prompt_tokens += counts.prompt
        session.output_tokens += counts.completion
        cost = self._brain.choice.model.cost
        if cost is not None:
            spent = counts.prompt * cost.get("input", 0) + counts.completion * cost.get("output", 0)
            session.spent_usd = (session.spent_usd or 0.0) + spent / 1e6
        context = self._brain.choice.context
        await self._show.update(usage(session.used, context, session.spent_usd))

    def _loops(self, answer: Answer) -> bool:
        """The same calls, round after round."""
        self._seen.append(tuple(f"{call.name} {call.arguments}" for call in answer.calls))
        last = self._seen[-SAME_ROUNDS - 1 :]
        return len(last) > SAME_ROUNDS and len(set(last)) == 1

    async def _summarised(self, messages: list[Message], room: int) -> list[Message]:
        """The old part as the model's own summary; as it was when it cannot write one."""
        at = compaction.split(messages, room // 2)
        if not at:
            return messages
        old, rest = messages[:at], messages[at:]
        request = ChatRequest(
            model=self._brain.choice.model.id,
            messages=tuple(
                as_text(compaction.summary_request(old, int(self._brain.choice.context * KEPT)))
            ),
            stream=True,
            max_output=max(256, room // 4),
        )
        quiet = Answering(Shown(_nothing, _nothing, self._show.note))
        try:
            summary = (await quiet.ask(self._brain.provider, request, plain=False)).text.strip()
        except HelexaError as error:
            await self._show.note(f"No summary could be had ({error.message}).")
            summary = "(it was too long and could not be summarised)"
        return compaction.with_summary(summary or "(empty)", rest)

    def _used(self) -> int:
        words = len(self._brain.instructions) / compaction.CHARS_PER_TOKEN
        return round(compaction.tokens(self._session.messages) + words)

    def _room(self) -> int:
        words = round(len(self._brain.instructions) / compaction.CHARS_PER_TOKEN)
        return max(512, round(KEPT * self._brain.choice.context) - words)


async def _nothing(_text: str) -> None:
    pass


def described_tool(tool: AgentTool) -> Tool:
    """A tool as it is told to the model."""
    return Tool(tool.name, tool.description, msgspec.Raw(msgspec.json.encode(tool.parameters)))


def _stop_reason(answer: Answer) -> StopReason:
    if answer.reason == "length":
        return "max_tokens"
    return "refusal" if answer.reason == "content_filter" else "end_turn"
