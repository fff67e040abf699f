"""Values of a call's arguments as the tool's JSON schema wants them.

XML forms write every value as text, and models write numbers in quotes. The narrowest declared
type that the text can be read as wins; what fits none stays as it was written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from helexa.wire.parsers.repair import Unreadable, read_json

Schema = dict[str, Any]

_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,308})")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,308})(?:\.\d+)?(?:[eE][+-]?\d{1,4})?")
_ANY_INTEGER = re.compile(r"[+-]?\d{1,309}(?:\.0+)?")
_ANY_NUMBER = re.compile(r"[+-]?(?:\d{1,309}(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,4})?")
_ANY_WHOLE = re.compile(r"[+-]?\d+")
_WORDS: dict[str, Any] = {"null": None, "none": None, "true": True, "false": False}
_BRANCHES = ("anyOf", "oneOf", "allOf")


def coerce_arguments(arguments: dict[str, Any], schema: Schema | None) -> dict[str, Any]:
    """``arguments`` by the tool's ``parameters``; members it does not name stay as they are."""
    if not schema:
        return arguments
    return {
        name: coerce(value, inner, schema) if (inner := _member(schema, name, schema)) else value
        for name, value in arguments.items()
    }


def coerce(value: Any, schema: Schema, root: Schema) -> Any:
    """One value, lists and objects with what they hold.

    Args:
        root: The whole schema, for its ``$defs``.
    """
    if isinstance(value, str):
        value = _read(value, tuple(_branches(schema, root)))
    if isinstance(value, dict):
        return {
            name: coerce(item, inner, root) if (inner := _member(schema, name, root)) else item
            for name, item in value.items()
        }
    if isinstance(value, list):
        items = next((i for b in _branches(schema, root) if (i := b.get("items"))), None)
        return [coerce(v, items, root) for v in value] if isinstance(items, dict) else value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        types = {kind for branch in _branches(schema, root) for kind in _types(branch)}
        return str(value) if types == {"string"} else value
    return value


def _read(text: str, branches: tuple[Schema, ...]) -> Any:
    """``text`` as the narrowest of the declared types."""
    types = {kind for branch in branches for kind in _types(branch)}
    named = [item for b in branches for item in (*_list(b.get("enum")), *_const(b))]
    if text in named:
        return text
    plain = text.strip()
    for item in named:
        if not isinstance(item, str) and plain.encode() == msgspec.json.encode(item):
            return item
    if types <= {"string"}:
        return text
    lowered = plain.lower()
    if lowered in _WORDS and ("null" if _WORDS[lowered] is None else "boolean") in types:
        return _WORDS[lowered]
    # A number that is written as none of JSON's (a leading zero) may be meant as text.
    integer, number = (_INTEGER, _NUMBER) if "string" in types else (_ANY_INTEGER, _ANY_NUMBER)
    if "integer" in types and integer.fullmatch(plain):
        return int(plain.split(".")[0])
    if "number" in types and number.fullmatch(plain):
        return int(plain) if _ANY_WHOLE.fullmatch(plain) else _float(plain, text)
    return _structure(plain, text, types)


def _float(plain: str, text: str) -> float | str:
    found = float(plain)
    return found if math.isfinite(found) else text


def _structure(plain: str, text: str, types: set[str]) -> Any:
    """A list or an object written out as JSON."""
    if not (plain.startswith("{") and "object" in types) and not (
        plain.startswith("[") and "array" in types
    ):
        return text
    try:
        found = read_json(plain)
    except Unreadable:
        return text
    return found if isinstance(found, (dict, list)) else text


def _const(schema: Schema) -> tuple[Any, ...]:
    return (schema["const"],) if "const" in schema else ()


def _types(schema: Schema) -> list[str]:
    kind = schema.get("type")
    if isinstance(kind, str):
        return [kind]
    if isinstance(kind, list):
        return [item for item in kind if isinstance(item, str)]
    if "properties" in schema:
        return ["object"]
    return ["array"] if "items" in schema else []


def _branches(schema: Schema, root: Schema) -> Iterator[Schema]:
    """The schema and every alternative in it, references resolved, each once: alternatives that
    refer back to each other are more ways round than anybody has the time for."""
    seen: set[int] = set()
    waiting: list[Any] = [schema]
    while waiting:
        found = waiting.pop()
        if not isinstance(found, dict) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = [_resolve(found.get("$ref"), root)]
        for name in _BRANCHES:
            inner += _list(found.get(name))
        waiting += reversed(inner)


def _list(found: Any) -> list[Any]:
    """What a schema has where there should be a list."""
    return found if isinstance(found, list) else []


def _resolve(reference: Any, root: Schema) -> Any:
    """What ``#/…`` points at in the tool's own schema."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Any = root
    for step in reference[2:].split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _member(schema: Schema, name: str, root: Schema) -> Schema | None:
    for branch in _branches(schema, root):
        properties = branch.get("properties")
        inner = properties.get(name) if isinstance(properties, dict) else None
        if isinstance(inner, dict):
            return inner
    return None
