"""Settings from the environment: ``CORTEX_GATEWAY__LISTEN=127.0.0.1:0`` is ``gateway.listen``."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from helexa.core.settings_keys import SettingsError, element_type, type_at
from helexa.core.settings_words import in_words

Convert = Callable[[Any, Any], object]
"""``(value, type)`` to the converted value; raises ValueError or TypeError when it does not fit."""


def table_from_environ(
    environ: Mapping[str, str],
    prefix: str,
    kind: Any,
    reserved: frozenset[str],
    convert: Convert,
) -> tuple[dict[str, Any], list[str]]:
    """Variables with ``prefix`` as a nested table, and the names that fit no key.

    Args:
        kind: The settings struct; decides how a text is read (``12345`` stays text for a name).
        reserved: Full names that are left alone.

    Raises:
        SettingsError: A value that does not fit its key, by the variable's name.
    """
    table: dict[str, Any] = {}
    unknown: list[str] = []
    for name in sorted(environ):
        if not name.startswith(prefix) or name in reserved:
            continue
        path = tuple(name.removeprefix(prefix).lower().split("__"))
        leaf = type_at(kind, path) if all(path) else None
        if leaf is None:
            unknown.append(name)
        else:
            _put(table, path, _fitting(name, environ[name], leaf, convert))
    return table, unknown


def blamed(message: str, where: str, environ: Mapping[str, str], prefix: str) -> str:
    """``message`` about a key of the file ``where``; of the variable, if one has set that key."""
    for name in environ:
        if name.startswith(prefix):
            key = f"{where}: {name.removeprefix(prefix).lower().replace('__', '.')}:"
            if message.startswith(key):
                return f"{name} in the environment:{message.removeprefix(key)}"
    return message


def parse_value(text: str) -> object:
    """``text`` as JSON, else as a TOML value, else itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return table["value"] if len(table) == 1 else text


def _fitting(name: str, text: str, leaf: Any, convert: Convert) -> object:
    """The first reading of ``text`` that its key accepts: a value, plain text, a comma list."""
    readings: list[object] = [parse_value(text), text]
    if element_type(leaf) is not None:
        readings.append([part.strip() for part in text.split(",")])
    refusals: list[Exception] = []
    for reading in readings:
        try:
            convert(reading, leaf)
        except (ValueError, TypeError) as error:
            refusals.append(error)
        else:
            return reading
    said = in_words(str(refusals[0]), readings[0], leaf).removeprefix("the top level ")
    raise SettingsError(f"{name} in the environment: {said}") from refusals[0]


def _put(table: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for part in path[:-1]:
        below = table.setdefault(part, {})
        if not isinstance(below, dict):
            below = table[part] = {}
        table = below
    table[path[-1]] = value
