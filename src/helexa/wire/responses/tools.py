"""What may be called: functions, and functions inside namespaces under one flat name each.

Models know no namespaces, so a function inside one is offered as ``namespace__name``; the flat
name stays between us and the model. What only OpenAI's servers run is accepted and left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from helexa.core.chat import Tool, ToolChoice, ToolMode
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.responses.body import NamedTool, ToolBody, ToolChoiceBody
from helexa.wire.responses.custom import as_function

_MODES: dict[str, ToolMode] = {"auto": "auto", "none": "none", "required": "required"}
_ABSENT = (b"", b"null")
CALLED = ("function", "custom")
"""Types of tools that the model calls and the client runs."""


class Names(msgspec.Struct, frozen=True):
    """Flat names and what clients call them.

    Args:
        known: Flat name to namespace (None for a plain function) and name.
        custom: Flat names of custom tools.
    """

    known: dict[str, tuple[str | None, str]]
    custom: frozenset[str] = frozenset()

    def flat(self, namespace: str | None, name: str) -> str:
        """The model's name for a function; one that is not offered now is joined the same way."""
        if namespace is None:
            return name
        for flat, found in self.known.items():
            if found == (namespace, name):
                return flat
        return f"{namespace}__{name}"

    def shown(self, flat: str) -> tuple[str | None, str]:
        """Namespace and name, as the client knows them."""
        return self.known.get(flat, (None, flat))


class Offered(NamedTuple):
    """The functions that may be called, how clients call them, and where they wrote each; and
    the types of tools that are not among them."""

    tools: tuple[Tool, ...]
    names: Names
    paths: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def read_tools(tools: Iterable[tuple[str, ToolBody]]) -> Offered:
    """The functions that may be called, each once: an item may bring what is there already.

    Args:
        tools: Each with its path in the request.

    Raises:
        InvalidRequestBody: With the path.
        UnsupportedParameter: One is of a certain server, which nobody here calls.
    """
    offering = _Offering()
    for path, tool in tools:
        if tool.type in CALLED:
            offering.add(tool, None, path)
        elif tool.type == "namespace":
            if not tool.name:
                raise InvalidRequestBody(f"`{path}.name` must be a name.", param=f"{path}.name")
            for index, inner in enumerate(tool.tools or ()):
                if inner.type in CALLED:
                    offering.add(inner, tool.name, f"{path}.tools[{index}]")
                else:
                    offering.leave_out(inner, f"{path}.tools[{index}]")
        else:
            offering.leave_out(tool, path)
    names = Names(offering.known, frozenset(offering.custom))
    return Offered(tuple(offering.tools), names, tuple(offering.paths), tuple(offering.left_out))


@dataclass(slots=True)
class _Offering:
    """What is offered so far."""

    tools: list[Tool] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    known: dict[str, tuple[str | None, str]] = field(default_factory=dict)
    custom: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)

    def leave_out(self, tool: ToolBody, path: str) -> None:
        """Not offer one; agents send some of them to every endpoint, whatever it can."""
        if tool.type == "mcp":
            raise UnsupportedParameter(
                f"`{path}` is an MCP server, and none is called from here: connect to it in the "
                "client, and send what it offers as functions.",
                param=path,
            )
        self.left_out.append(tool.type)

    def add(self, tool: ToolBody, namespace: str | None, path: str) -> None:
        """Offer one more."""
        if not tool.name:
            raise InvalidRequestBody(f"`{path}.name` must be a name.", param=f"{path}.name")
        flat = tool.name if namespace is None else f"{namespace}__{tool.name}"
        if self.known.get(flat) == (namespace, tool.name):
            return
        while flat in self.known:  # a function of its own that is called like a namespace's
            flat += "_"
        made = as_function(flat, tool) if tool.type == "custom" else _function(flat, tool, path)
        self.known[flat] = (namespace, tool.name)
        self.tools.append(made)
        self.paths.append(path)
        if tool.type == "custom":
            self.custom.add(flat)


def _function(flat: str, tool: ToolBody, path: str) -> Tool:
    raw = bytes(tool.parameters).lstrip()
    if raw not in _ABSENT and not raw.startswith(b"{"):
        where = f"{path}.parameters"
        raise InvalidRequestBody(f"`{where}` must be an object.", param=where)
    parameters = None if raw in _ABSENT else tool.parameters
    # Here a function is strict unless it says no; it is bound only where it asks to be.
    return Tool(flat, tool.description, parameters, tool.strict or None)


def read_choice(choice: str | ToolChoiceBody | None, names: Names) -> ToolChoice | None:
    """Whether tools may or must be called.

    Raises:
        InvalidRequestBody: An unknown word, or a function that is not in ``tools``.
        UnsupportedParameter: A hosted tool is demanded.
    """
    if choice is None:
        return None
    if isinstance(choice, str):
        mode = _MODES.get(choice)
        if mode is None:
            raise InvalidRequestBody(
                f"`tool_choice` is {choice[:40]!r}; known are {', '.join(_MODES)} and an object.",
                param="tool_choice",
            )
        return ToolChoice(mode) if names.known or mode != "required" else _nothing_to_call()
    if choice.type == "allowed_tools":
        return _allowed(choice, names)
    return ToolChoice("required", (_named(choice, names, "tool_choice"),))


def _nothing_to_call() -> ToolChoice:
    raise InvalidRequestBody(
        "`tool_choice` asks for a call, but there is no function in `tools`.", param="tool_choice"
    )


def _allowed(choice: ToolChoiceBody, names: Names) -> ToolChoice:
    mode = _MODES.get(choice.mode or "auto", "auto")
    listed = [
        _named(tool, names, f"tool_choice.tools[{index}]")
        for index, tool in enumerate(choice.tools or ())
        if tool.type in CALLED
    ]
    if not listed:
        return ToolChoice("none") if mode != "required" else _nothing_to_call()
    return ToolChoice(mode, tuple(listed))


def _named(tool: NamedTool, names: Names, path: str) -> str:
    if tool.type not in CALLED:
        raise UnsupportedParameter(
            f"`{path}` demands a tool of the type {tool.type[:40]!r}, which nobody here can run.",
            param=path,
        )
    flat = names.flat(tool.namespace, tool.name or "")
    if flat not in names.known:
        raise InvalidRequestBody(
            f"`{path}.name` names no function of `tools`.", param=f"{path}.name"
        )
    return flat
