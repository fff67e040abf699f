"""Custom tools: what the model writes for them is a text and no JSON.

Models call functions, so a custom tool is offered as a function of one text, ``input``; its calls
go back as calls of a custom tool. A grammar is shown to the model and not enforced.
"""

from __future__ import annotations

import msgspec

from helexa.core.chat import Tool
from helexa.wire.bodies import UNREADABLE
from helexa.wire.responses.body import ToolBody


class _Format(msgspec.Struct):
    type: str = "text"
    syntax: str = ""
    definition: str = ""


class _Input(msgspec.Struct):
    input: str


_format = msgspec.json.Decoder(_Format | None).decode
_input = msgspec.json.Decoder(_Input).decode


def as_function(flat: str, tool: ToolBody) -> Tool:
    """What a model is offered.

    Args:
        flat: The function's name.
    """
    text = {"type": "string", "description": "The whole input, as it is."}
    try:
        form = _format(tool.format) if tool.format else None
    except msgspec.ValidationError:
        form = None
    if form is not None and form.type == "grammar":
        text["description"] = f"Text of this form ({form.syntax}):\n{form.definition}"
    schema = {
        "type": "object",
        "properties": {"input": text},
        "required": ["input"],
        "additionalProperties": False,
    }
    return Tool(flat, tool.description, msgspec.Raw(msgspec.json.encode(schema)))


def as_arguments(text: str) -> str:
    """An earlier call's input as the arguments of that function."""
    return msgspec.json.encode(_Input(text)).decode()


def input_of(arguments: str) -> str:
    """The input in the arguments that a model wrote; what is something else stays as it is."""
    try:
        return _input(arguments).input
    except UNREADABLE:
        return arguments
