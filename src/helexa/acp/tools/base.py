"""The interface of a tool.

::

    arguments ─▶ prepare ─▶ Prepared (what it would do, diff included) ─▶ allowed? ─▶ perform
                   └─ ToolTrouble: told to the model, which can do better
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from helexa.acp.editor import Editor
from helexa.acp.protocol.updates import Kind
from helexa.acp.workspace import Workspace
from helexa.core.chat import Part, Text

Json = dict[str, Any]


class Change(NamedTuple):
    """A file that was changed; ``before`` is None where there was none."""

    path: Path
    before: str | None
    after: str | None


class ToolTrouble(Exception):
    """A call that cannot be done; the message is for the model, and says what would work."""


@dataclass(slots=True)
class Context:
    """What a tool may use.

    Args:
        changed: What was changed, oldest first.
        plan: The plan as it stands: content and status.
        show: Shows more of the running call in the editor (members of a ``tool_call_update``).
        timeout_s: For commands that do not say.
    """

    workspace: Workspace
    editor: Editor
    changed: list[Change]
    plan: list[tuple[str, str]]
    timeout_s: float = 120.0
    show: Callable[..., Awaitable[None]] | None = None


@dataclass(slots=True)
class Done:
    """What came of it.

    Args:
        parts: For the model.
        content: For the editor, instead of the text.
        failed: It was done and went wrong (a command's exit status).
    """

    parts: tuple[Part, ...]
    content: list[Json] | None = None
    failed: bool = False

    @classmethod
    def text(cls, text: str, *, content: list[Json] | None = None, failed: bool = False) -> Done:
        """With words for the model."""
        return cls((Text(text),), content, failed)


@dataclass(slots=True)
class Prepared:
    """A call that could be performed now.

    Args:
        subject: What "always" would be remembered for: a command's program, a host, a tool.
        content: Shown before it is done: a diff.
    """

    title: str
    perform: Callable[[], Awaitable[Done]]
    locations: list[Json] = field(default_factory=list)
    content: list[Json] = field(default_factory=list)
    subject: str = ""


class Tool(Protocol):
    """One tool.

    Attributes:
        reads_only: It changes nothing and may run beside others, without being asked about.
        in_plan: May be used while only a plan is wanted.
    """

    name: str
    description: str
    parameters: Json
    kind: Kind
    reads_only: bool
    in_plan: bool

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """Check the arguments and look at what it is about.

        Raises:
            ToolTrouble, FileTrouble: It cannot be done.
        """


def schema(required: tuple[str, ...] = (), **properties: Json) -> Json:
    """A JSON schema of arguments."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def words(arguments: Json, name: str, default: str | None = None) -> str:
    """An argument that must be a string.

    Raises:
        ToolTrouble: It is missing or something else.
    """
    value = arguments.get(name, default)
    if not isinstance(value, str):
        raise ToolTrouble(f"`{name}` must be a string")
    return value


def number(arguments: Json, name: str, default: int, low: int, high: int) -> int:
    """An argument that must be an integer; held within its bounds.

    Raises:
        ToolTrouble: It is something else.
    """
    value = arguments.get(name, default)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ToolTrouble(f"`{name}` must be an integer")
    return max(low, min(high, value))
