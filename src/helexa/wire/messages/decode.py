"""A Messages request as ``core.chat`` knows requests.

Tolerant of what real clients send (unknown members, null for unset, turns of one role in a row);
what cannot be honoured is refused with the path of the member.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from helexa.core.chat import (
    ChatRequest,
    Reasoning,
    ResponseFormat,
    Sampling,
    Tool,
    ToolChoice,
    ToolMode,
)
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.bodies import UNREADABLE, not_json
from helexa.wire.messages import body as wire
from helexa.wire.messages.defined import defined_tool, run_by_clients
from helexa.wire.messages.turns import read_turns
from helexa.wire.moved import refuse_moved
from helexa.wire.peek import wrong_type
from helexa.wire.places import Placed, message_names
from helexa.wire.warming import WARMING_OUTPUT

_decode = msgspec.json.Decoder(wire.Body).decode
_UNSET = (b"", b"null")
_ABSENT = (msgspec.Raw(), msgspec.Raw(b"null"))
_UNKNOWN_TYPE = re.compile(r"Invalid value '(.*)' - at `\$\.?(.*)\.type`")
_CHOICES: dict[str, ToolMode] = {
    "auto": "auto",
    "any": "required",
    "tool": "required",
    "none": "none",
}
_EFFORTS = {"xhigh": "high", "max": "high"}
"""Templates know low, medium and high."""
_THINKING: dict[str, bool] = {"enabled": True, "adaptive": True, "disabled": False}


class Asked(NamedTuple):
    """A request, and how its answer is to be shown.

    Args:
        names: Paths of the chat request by the client's, for refusals that come back.
        left_out: Types of tools that only Anthropic's servers run.
        hide_thinking: Thinking blocks stay empty (``thinking.display: "omitted"``).
        warms: The prompt is to be cached and nothing said (``max_tokens: 0``).
    """

    request: ChatRequest
    names: dict[str, str]
    left_out: tuple[str, ...] = ()
    hide_thinking: bool = False
    warms: bool = False


def decode_messages(raw: bytes) -> Asked:
    """Read the body of ``POST /v1/messages`` or ``/v1/messages/count_tokens``.

    Raises:
        InvalidJson: Not JSON, not UTF-8, or nested beyond reason.
        InvalidRequestBody: A member is wrong; ``param`` is its path.
        UnsupportedParameter: It is right, and nobody here can do it.
    """
    body = _read(raw)
    _refuse_threads(body)
    _refuse_servers(body)
    refuse_moved(body, wire.MOVED)
    given = _tools(body.tools or ())
    tools = tuple(given.values())
    turns = read_turns(body)
    request = ChatRequest(
        model=body.model,
        messages=tuple(turn.message for turn in turns),
        stream=bool(body.stream),
        tools=tools,
        tool_choice=_choice(body.tool_choice, tools),
        parallel_tool_calls=_parallel(body.tool_choice),
        format=_format(body),
        sampling=Sampling(
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            stop=tuple(body.stop_sequences or ()),
        ),
        reasoning=_reasoning(body),
        max_output=_cap(body),
        user=body.metadata.user_id if body.metadata is not None else None,
    )
    hidden = body.thinking is not None and body.thinking.display == "omitted"
    left_out = [t.type or "" for i, t in enumerate(body.tools or ()) if i not in given]
    names = _names(turns, given, body)
    return Asked(request, names, tuple(left_out), hidden, warms=body.max_tokens == 0)


def _names(turns: list[Placed], tools: dict[int, Tool], body: wire.Body) -> dict[str, str]:
    """The client's paths by those of the chat request."""
    names = {"response_format.json_schema.schema": "output_config.format.schema"}
    if body.output_config is None or body.output_config.format is None:
        names["response_format.json_schema.schema"] = "output_format.schema"
    names["stop"] = "stop_sequences"
    names |= message_names(turns, "source")
    for index, given in enumerate(tools):
        names[f"tools[{index}].function"] = f"tools[{given}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{given}].input_schema"
    return names


def _read(raw: bytes) -> wire.Body:
    try:
        return _decode(raw)
    except msgspec.ValidationError as error:
        unknown = _UNKNOWN_TYPE.search(str(error))
        if unknown is None:
            raise wrong_type(error) from None
        path = unknown.group(2)
        raise UnsupportedParameter(
            f"`{path}` has the type '{unknown.group(1)[:40]}', which cannot be read here. "
            f"Send one of: {wire.KNOWN_BLOCKS}.",
            param=path,
        ) from None
    except UNREADABLE as error:
        raise not_json(error, raw) from None


def _refuse_threads(body: wire.Body) -> None:
    """Anthropic's SDK sends the whole conversation by itself once it reads this code."""
    if body.thread not in _ABSENT:
        raise UnsupportedParameter(
            "Conversations are not kept here: send all messages, without `thread`.",
            param="thread",
            details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        )


def _refuse_servers(body: wire.Body) -> None:
    """Who names a server, a place to run code in or a compaction wants just that one's work."""
    if bytes(body.mcp_servers).strip() not in (*_UNSET, b"[]"):
        raise UnsupportedParameter(
            "`mcp_servers` are not called from here: connect to them in the client, and send what "
            "they offer as `tools`.",
            param="mcp_servers",
        )
    if bytes(body.container).strip() not in _UNSET:
        raise UnsupportedParameter(
            "`container` names a place at Anthropic where code runs; nothing runs code here. "
            "Leave it out, and send a tool of your own.",
            param="container",
        )
    if bytes(body.compaction).strip() not in _UNSET:
        raise UnsupportedParameter(
            "`compaction` asks for a block that only Anthropic makes and reads. Ask for a summary "
            "in a message instead, and go on from that.",
            param="compaction",
        )


def _cap(body: wire.Body) -> int | None:
    """Of output tokens; 0 is for who only wants the prompt cached:
    https://platform.claude.com/docs/en/build-with-claude/prompt-caching"""
    cap = body.max_tokens
    if cap == 0 and not body.stream:
        return WARMING_OUTPUT
    if cap is not None and cap < 1:
        cure = "send it without `stream` to cache the prompt, or " if cap == 0 else ""
        raise InvalidRequestBody(
            f"`max_tokens` is {cap}; {cure}ask for at least 1.", param="max_tokens"
        )
    return cap


def _tools(tools: Iterable[wire.ToolBody]) -> dict[int, Tool]:
    """What the client runs, by its place; what only Anthropic's servers run is left out."""
    kept: dict[int, Tool] = {}
    for index, tool in enumerate(tools):
        found = _tool(tool, f"tools[{index}]")
        if found is not None:
            kept[index] = found
    return kept


def _tool(tool: wire.ToolBody, path: str) -> Tool | None:
    kind = tool.type or "custom"
    if kind == "mcp_toolset":
        raise UnsupportedParameter(
            f"`{path}` (mcp_toolset) is of an MCP server, and none is called from here: send the "
            "server's tools as your own.",
            param=path,
        )
    if kind == "function":
        raise InvalidRequestBody(
            f"`{path}` is a function as other dialects write it; here a tool has a `name`, a "
            "`description` and an `input_schema`.",
            param=path,
        )
    if kind != "custom" and not run_by_clients(kind):
        return None
    if not tool.name:
        raise InvalidRequestBody(f"`{path}.name` must be a name.", param=f"{path}.name")
    if kind != "custom":
        known = defined_tool(kind, tool.name, tool.strict)
        if known is None:
            raise UnsupportedParameter(
                f"`{path}` ({kind[:40]}) is described to Anthropic's models only. Send it as a "
                "tool of your own, with a `description` and an `input_schema`.",
                param=path,
            )
        return known
    schema = None if tool.input_schema in _ABSENT else tool.input_schema
    if schema is not None and not bytes(schema).lstrip().startswith(b"{"):
        where = f"{path}.input_schema"
        raise InvalidRequestBody(f"`{where}` must be an object.", param=where)
    return Tool(tool.name, tool.description, schema, tool.strict)


def _choice(choice: wire.ToolChoiceBody | None, tools: tuple[Tool, ...]) -> ToolChoice | None:
    if choice is None:
        return None
    mode = _CHOICES.get(choice.type)
    if mode is None:
        raise InvalidRequestBody(
            f"`tool_choice.type` is '{choice.type[:40]}'; known are {', '.join(_CHOICES)}.",
            param="tool_choice.type",
        )
    if choice.type == "any" and not tools:
        raise InvalidRequestBody(
            "`tool_choice` asks for a tool call, but `tools` holds none that can be called here.",
            param="tool_choice",
        )
    if choice.type != "tool":
        return ToolChoice(mode)
    if choice.name is None or choice.name not in {tool.name for tool in tools}:
        raise InvalidRequestBody(
            "`tool_choice.name` names no tool of `tools` that can be called here.",
            param="tool_choice.name",
        )
    return ToolChoice(mode, (choice.name,))


def _parallel(choice: wire.ToolChoiceBody | None) -> bool | None:
    """Said only where the client said it."""
    if choice is None or choice.disable_parallel_tool_use is None:
        return None
    return not choice.disable_parallel_tool_use


def _reasoning(body: wire.Body) -> Reasoning:
    """Effort says how much to think, not whether."""
    thinking = body.thinking
    enabled = _THINKING.get(thinking.type) if thinking is not None else None
    if thinking is None or not enabled:
        return Reasoning(enabled)
    effort = body.output_config.effort if body.output_config is not None else None
    return Reasoning(True, _EFFORTS.get(effort or "", effort), thinking.budget_tokens)


def _format(body: wire.Body) -> ResponseFormat:
    given = body.output_config.format if body.output_config is not None else None
    path = "output_config.format"
    if given is None:
        given, path = body.output_format, "output_format"
    if given is None:
        return ResponseFormat()
    if given.type != "json_schema":
        raise UnsupportedParameter(
            f"`{path}.type` is '{given.type[:40]}'; only json_schema is known.",
            param=f"{path}.type",
        )
    if not bytes(given.schema).startswith(b"{"):
        raise InvalidRequestBody(f"`{path}.schema` must be an object.", param=f"{path}.schema")
    return ResponseFormat("json_schema", schema=given.schema, strict=True)
