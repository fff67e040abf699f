"""What slash commands do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from helexa.acp.catalogue import Catalogue, NoModel
from helexa.acp.commands import PROMPTS
from helexa.acp.live import Live
from helexa.acp.tools.base import Change
from helexa.acp.turn.turn import Brain, Turn
from helexa.acp.workspace import FileTrouble, Workspace
from helexa.core.chat import Message, Text
from helexa.core.errors import HelexaError


class Doing(Protocol):
    """What commands need of the agent."""

    async def turn(self, live: Live, message: Message) -> str:
        """One prompt to its end."""

    async def change(self, live: Live, name: str, value: Any) -> None:
        """Change one option."""

    async def brain(self, live: Live) -> Brain:
        """The session's model."""

    def thinker(self, live: Live, brain: Brain) -> Turn:
        """A turn of a session."""


class Slash:
    """Runs commands."""

    def __init__(self, do: Doing, catalogue: Catalogue) -> None:
        self._do = do
        self._catalogue = catalogue

    async def run(self, live: Live, name: str, rest: str) -> str:
        """Do one; the reason the turn ended."""
        if name in PROMPTS:
            return await self._do.turn(live, _user(PROMPTS[name].format(rest=rest).strip()))
        if name == "plan":
            await self._do.change(live, "mode", "plan")
            if not rest:
                return "end_turn"
            return await self._do.turn(live, _user(rest))
        work: dict[str, Callable[[Live, str], Awaitable[str]]] = {
            "compact": self._compact,
            "model": self._choose,
            "undo": self._undo,
            "cost": self._cost,
        }
        await live.show.text(await work[name](live, rest))
        return "end_turn"

    async def _compact(self, live: Live, _rest: str) -> str:
        try:
            brain = await self._do.brain(live)
            done = await self._do.thinker(live, brain).compact(hard=True)
        except (NoModel, HelexaError) as error:
            return f"The context stays as it is: {error}"
        return "The context has room again." if done else "There is nothing to let go of."

    async def _choose(self, live: Live, rest: str) -> str:
        await self._catalogue.refresh()
        if rest:
            try:
                await self._do.change(live, "model", self._catalogue.find(rest).selector)
            except NoModel as error:
                return f"{error}. {self._models()}"
            return f"Now it is {live.saved.model}."
        return f"It is {live.saved.model}. {self._models()}"

    async def _undo(self, live: Live, _rest: str) -> str:
        if not live.undo:
            return "No turn of this session has changed a file that could be restored."
        done, kept = [], []
        for change in reversed(live.undo.pop()):
            shown = live.workspace.shown(change.path)
            try:
                if shown in kept or not await _restored(live.workspace, change):
                    kept.append(shown)
                    continue
            except (FileTrouble, OSError) as error:
                return f"{shown} could not be restored: {error}"
            done.append(shown)
        left = f" Left alone, because changed since: {_listed(kept)}." if kept else ""
        if not done:
            return f"Nothing was restored.{left}"
        live.saved.messages.append(
            _user(f"(I have taken back your last changes: {_listed(done)}.)")
        )
        return f"Restored: {_listed(done)}.{left}"

    async def _cost(self, live: Live, _rest: str) -> str:
        saved = live.saved
        price = "" if saved.spent_usd is None else f", {saved.spent_usd:.4f} USD"
        return (
            f"{saved.prompt_tokens:,} prompt and {saved.output_tokens:,} output tokens{price}; "
            f"{saved.used:,} tokens are in the context now."
        )

    def _models(self) -> str:
        return "There are: " + ", ".join(choice.selector for choice in self._catalogue.choices)


async def _restored(workspace: Workspace, change: Change) -> bool:
    """Put back what was there; False, and nothing done, where somebody has changed it since.

    Raises:
        FileTrouble, OSError: It cannot be written.
    """
    if await workspace.read_or_none(change.path) != change.after:
        return False
    if change.before is None:
        await workspace.remove(change.path)
    else:
        await workspace.write(change.path, change.before)
        workspace.seen(change.path, change.before)  # the model is told
    return True


def _listed(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _user(words: str) -> Message:
    return Message("user", (Text(words),))
