"""What stands inside a block of tool calls: names and arguments.

::

    tagged    {"name": …, "arguments": {…}}  or a list of them, or XML
    xml       <function=NAME><parameter=KEY>value</parameter></function>, one or several
    named     NAME[ARGS]{…}, or a list of objects   (Mistral)
    sections  <｜tool▁call▁begin｜>NAME<｜tool▁sep｜>{…}<｜tool▁call▁end｜> …   (DeepSeek)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import msgspec

from helexa.wire.parsers.coerce import Schema, coerce_arguments
from helexa.wire.parsers.repair import Unreadable, read_json

# What a tool is given may hold anything, closing tags too: those end it that something follows.
_FUNCTION = re.compile(
    r"\s*<function=\s*\"?([^>\n\"]+?)\"?\s*>(.*?)</function>(?=\s*(?:<function=|\Z))\s*", re.DOTALL
)
_PARAMETER = re.compile(
    r"\s*<parameter=\s*\"?([^>\n\"]+?)\"?\s*>(.*?)(?:</parameter>|(?=\n<parameter=)|\Z)"
    r"(?=\s*(?:<parameter=|\Z))\s*",
    re.DOTALL,
)
_NAMED = re.compile(
    r"\s*([A-Za-z_][\w.\-]*)(?:\[CALL_ID\][\w\-]*)?(?:\[ARGS\])?\s*(\{.*)", re.DOTALL
)
_SECTION = re.compile(
    r"\s*<｜tool▁call▁begin｜>(.*?)<｜tool▁sep｜>(.*?)<｜tool▁call▁end｜>\s*", re.DOTALL
)
_FENCED = re.compile(r"([^\n]+)\n```\w*\n(.*?)\n?```\s*\Z", re.DOTALL)


class Call(msgspec.Struct, frozen=True):
    """One call; ``arguments`` is the text of a JSON object."""

    name: str
    arguments: str


Tools = Mapping[str, Schema | None]
"""Names of the tools with the schemas of their parameters."""


def read_tagged(body: str, tools: Tools) -> list[Call]:
    """Calls between tags, as JSON or as XML.

    Raises:
        Unreadable: The body is not wholly calls.
    """
    if body.lstrip().startswith("<function="):
        return read_xml(body, tools)
    return read_objects(body, tools)


def read_objects(body: str, tools: Tools) -> list[Call]:
    """One object or a list of them, in JSON; an empty one is no call.

    Raises:
        Unreadable: It is something else.
    """
    found = read_json(body)
    items = found if isinstance(found, list) else [found]
    texts = _texts(body) if isinstance(found, list) else [body]
    return [_from_object(*pair, tools) for pair in zip_longest(items, texts, fillvalue="")]


def _texts(body: str) -> list[str]:
    """The members of a list as they were written; none where that is not strict JSON."""
    try:
        return [bytes(raw).decode() for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except msgspec.MsgspecError:
        return []


def _from_object(item: Any, body: str, tools: Tools) -> Call:
    function = item.get("function") if isinstance(item, dict) else None
    if isinstance(function, dict):  # the wire's own shape
        item = function
    elif isinstance(function, str):
        item = {**item, "name": function}
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
        raise Unreadable(body)
    key = next((key for key in _Held.__struct_fields__ if item.get(key) is not None), None)
    arguments = item[key] if key else {}
    verbatim = _verbatim(body, key) if key else None
    if isinstance(arguments, str):
        arguments, verbatim = read_json(arguments or "{}"), arguments
    if not isinstance(arguments, dict):
        raise Unreadable(body)
    return make_call(item["name"], arguments, tools, verbatim)


class _Held(msgspec.Struct):
    """The members that may hold the arguments, as they were written; they are tried in order."""

    arguments: msgspec.Raw = msgspec.Raw()
    parameters: msgspec.Raw = msgspec.Raw()
    args: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


def _verbatim(body: str, key: str) -> str | None:
    """The arguments' own bytes where the body is an object in strict JSON."""
    try:
        return bytes(getattr(msgspec.json.decode(body, type=_Held), key)).decode()
    except msgspec.MsgspecError:
        return None


def make_call(
    name: str, arguments: dict[str, Any], tools: Tools, verbatim: str | None = None
) -> Call:
    """A call with its values as the tool declares them; what needs no change keeps its bytes."""
    typed = coerce_arguments(arguments, tools.get(name))
    if verbatim is not None and typed == arguments and _is_object(verbatim):
        return Call(name, verbatim)
    return Call(name, msgspec.json.encode(typed).decode())


def _is_object(text: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False


def read_xml(body: str, tools: Tools) -> list[Call]:
    """Functions with their parameters as elements, and nothing else.

    Raises:
        Unreadable: There is something else.
    """
    return [
        make_call(name, _parameters(inner), tools) for name, inner in _all(_FUNCTION, body, body)
    ]


def _parameters(inner: str) -> dict[str, Any]:
    return {key: _value(text) for key, text in _all(_PARAMETER, inner, inner)}


def _value(text: str) -> str:
    """A value without the line ends that the form itself puts around it."""
    return text.removeprefix("\n").removesuffix("\n")


def _all(pattern: re.Pattern[str], text: str, whole: str) -> list[tuple[str, str]]:
    """The matches that make up ``text``, back to back."""
    at, found = 0, []
    while text[at:].strip():
        match = pattern.match(text, at)
        if match is None:
            raise Unreadable(whole)
        found.append((match[1].strip(), match[2]))
        at = match.end()
    return found


def read_named(body: str, tools: Tools) -> list[Call]:
    """A list of objects, or a name and its arguments.

    Raises:
        Unreadable: It is neither.
    """
    found = _NAMED.fullmatch(body)
    if found is None:
        return read_objects(body, tools)
    arguments = read_json(found[2])
    if not isinstance(arguments, dict):
        raise Unreadable(body)
    return [make_call(found[1], arguments, tools, found[2].strip())]


def read_sections(body: str, tools: Tools) -> list[Call]:
    """Calls in sections of their own.

    Raises:
        Unreadable: There is something else.
    """
    calls = []
    for head, rest in _all(_SECTION, body, body):
        fenced = _FENCED.fullmatch(rest)  # the older form: function<sep>NAME and fenced JSON
        name, text = (fenced[1].strip(), fenced[2]) if fenced else (head, rest.strip())
        arguments = read_json(text or "{}")
        if not isinstance(arguments, dict) or not name:
            raise Unreadable(body)
        calls.append(make_call(name, arguments, tools, text))
    return calls
