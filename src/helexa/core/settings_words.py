"""What is wrong with a value of a settings file, in an operator's words.

::

    Expected `float`, got `str` - at `$.timeouts.first_byte`
        ─▶ `timeouts.first_byte` must be a number, not "10m"; leave the unit away

The type at that path says which values there are, and whether the one that was given is a secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

from helexa.core.settings_keys import alternatives, element_type, nearest, struct_fields, value_type

_TYPES = {
    "str": "text in quotes",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list in [ ]",
    "object": "a table: { name = value } or lines under a [heading]",
    "datetime": "a date such as 2027-01-31T00:00:00Z",
}
_EXPECTED = re.compile(r"Expected `([^`]+)`(?:, got `[^`]+`| (>=|>|<=|<) (\S+))")
_BOUNDS = {">=": "of at least", ">": "above", "<=": "of at most", "<": "below"}
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_WITH_UNIT = re.compile(r"\d+(\.\d+)? ?[A-Za-zµ%]{1,5}")
_HARMLESS = re.compile(
    rf"{_WITH_UNIT.pattern}|\d[\d.,:+TZ -]{{0,30}}|yes|no|on|off|true|false", re.IGNORECASE
)
_SECRET = re.compile(r"key|secret|token|passw", re.IGNORECASE)
_UNKNOWN = object()


def in_words(refusal: str, table: object, kind: Any) -> str:
    """The refusal of ``table`` as a ``kind`` by msgspec, with the value and what to write.

    Args:
        refusal: msgspec's own words.
    """
    said, _, at = refusal.partition(" - at `$")
    steps = re.findall(r"[^.\[\]`]+|\[\d+\]|\[\.\.\.\]", at)
    steps = [_only_key(table, steps[:i]) if s == "[...]" else s for i, s in enumerate(steps)]
    value, leaf = _value_at(table, steps), _type_at(kind, steps)
    name = f"`{_dotted(steps)}`" if steps else "the top level"
    missing = _MISSING.fullmatch(said)
    if missing:
        return f"{name} has no `{missing[1]}`; add it"
    if said.startswith("Expected `array") and isinstance(value, Mapping) and _of_tables(leaf):
        return f"{name} may be there several times; write [[{_dotted(steps)}]], in two brackets"
    choices = [str(c) for one in alternatives(leaf) if _is_choice(one) for c in get_args(one)]
    wanted = _wanted(said, choices)
    if wanted is None:
        return f"{said} - at {name}" if steps else said
    secret = _is_secret(leaf, steps, said)
    return f"{name} must be {wanted}{'' if secret else _given(value, choices, said)}"


def _wanted(said: str, choices: list[str]) -> str | None:
    """What may stand there; None when msgspec says something that we have no words for."""
    if choices and said.startswith(("Invalid enum value", "Expected `str")):
        return f"one of {', '.join(json.dumps(c) for c in choices)}"
    if said.startswith("Invalid RFC3339"):
        return _TYPES["datetime"]
    match = _EXPECTED.fullmatch(said)
    if match is None:
        return None
    words = [_TYPES.get(one, one) for one in match[1].split(" | ") if one != "null"]
    bound = f" {_BOUNDS[match[2]]} {match[3].removesuffix('.0')}" if match[2] else ""
    return " or ".join(words) + bound


def _given(value: object, choices: list[str], said: str) -> str:
    """What stands there instead, and how it was probably meant.

    A text is shown where one of a few words belongs, or if it is a number, a date or a yes: any
    other may be a secret that was put into the wrong line.
    """
    if isinstance(value, int | float):
        return f", not {json.dumps(value)}"
    if not isinstance(value, str) or not (choices or _HARMLESS.fullmatch(value)):
        return ""
    text = f", not {json.dumps(value, ensure_ascii=False)}" if len(value) <= 60 else ""
    close = nearest(value.lower(), choices)
    if close:
        return f"{text}; did you mean {json.dumps(close)}?"
    if re.match(r"Expected `(int|float)", said) and _WITH_UNIT.fullmatch(value):
        return f"{text}; leave the unit away, docs/reference/settings.md names it"
    return text


def _is_secret(leaf: Any, steps: list[str], said: str) -> bool:
    """Whether what stands there may be a secret: also one that was put where a table belongs."""
    if any(getattr(one, "__name__", "") == "Secret" for one in alternatives(leaf)):
        return True
    named = bool(steps) and _SECRET.search(steps[-1]) is not None
    return said.startswith("Expected `object") or (named and said.startswith("Expected `str"))


def _of_tables(kind: Any) -> bool:
    return any(struct_fields(element_type(one)) is not None for one in alternatives(kind))


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _dotted(steps: list[str]) -> str:
    return "".join(s if s.startswith("[") else f".{s}" for s in steps).removeprefix(".")


def _only_key(table: object, steps: list[str]) -> str:
    """The key of a table that msgspec leaves open, where there is only one."""
    found = _value_at(table, steps)
    keys = list(found) if isinstance(found, Mapping) else []
    return str(keys[0]) if len(keys) == 1 else "<name>"


def _value_at(value: object, steps: list[str]) -> object:
    for step in steps:
        if isinstance(value, list) and step.startswith("["):
            value = value[int(step[1:-1])]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            return _UNKNOWN
    return value


def _type_at(kind: Any, steps: list[str]) -> Any:
    for step in steps:
        fields = struct_fields(kind)
        if step.startswith("["):
            kind = element_type(kind)
        elif fields is not None and step in fields:
            kind = fields[step]
        else:
            kind = value_type(kind)
    return kind
