"""The shape of a settings struct: its keys, their types, and the one nearest to a typo."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

Path = tuple[str, ...]


class SettingsError(Exception):
    """Settings that cannot be used; the message names file or variable, key and a way out."""


def alternatives(kind: Any) -> list[Any]:
    """``kind`` without ``Annotated``, and as its members if it is a union (None left out)."""
    origin = get_origin(kind)
    if origin is Annotated:
        return alternatives(get_args(kind)[0])
    if origin is Union or origin is types.UnionType:
        return [m for a in get_args(kind) if a is not type(None) for m in alternatives(a)]
    return [kind]


def struct_fields(kind: Any) -> dict[str, Any] | None:
    """Key to type, over all structs among the alternatives of ``kind``; None if there is none."""
    found: dict[str, Any] | None = None
    for one in alternatives(kind):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            found = (found or {}) | {f.encode_name: f.type for f in msgspec.structs.fields(one)}
    return found


def value_type(kind: Any) -> Any:
    """Type of the values of a mapping, or None if ``kind`` is none."""
    for one in alternatives(kind):
        if one is dict or one is Mapping:
            return object
        if get_origin(one) in (dict, Mapping):
            return get_args(one)[1]
    return None


def element_type(kind: Any) -> Any:
    """Type of the elements of a list or tuple, or None if ``kind`` is none."""
    for one in alternatives(kind):
        if one in (list, tuple):
            return object
        if get_origin(one) in (list, tuple):
            return get_args(one)[0]
    return None


def type_at(kind: Any, path: Path) -> Any:
    """Declared type at ``path`` (mappings take any key), or None when there is no such key."""
    for part in path:
        fields = struct_fields(kind)
        kind = fields.get(part) if fields is not None else value_type(kind)
        if kind is None:
            return None
    return kind


def known_paths(kind: Any, prefix: Path = ()) -> list[Path]:
    """Every leaf and table key of a struct, depth first."""
    paths: list[Path] = []
    for name, child in (struct_fields(kind) or {}).items():
        paths.append((*prefix, name))
        paths.extend(known_paths(child, (*prefix, name)))
    return paths


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one of ``known`` that ``name`` was probably meant to be, if any is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return close[0] if close else None


def check_keys(value: object, kind: Any, where: str, path: str = "") -> None:
    """Refuse keys that no struct of ``kind`` has.

    Raises:
        SettingsError: ``FILE: unknown key `gateway.lisen`; did you mean listen?``
    """
    if isinstance(value, Mapping):
        _check_table(value, kind, where, path)
    elif isinstance(value, list):
        element = element_type(kind)
        for index, item in enumerate(value):
            check_keys(item, element, where, f"{path}[{index}]")


def _check_table(table: Mapping[str, object], kind: Any, where: str, path: str) -> None:
    fields = struct_fields(kind)
    free = value_type(kind)
    for key, item in table.items():
        here = f"{path}.{key}" if path else key
        if fields is None or (key not in fields and free is not None):
            check_keys(item, free, where, here)
            continue
        if key not in fields:
            close = nearest(key, fields)
            hint = f"did you mean {close}?" if close else f"known: {', '.join(sorted(fields))}"
            raise SettingsError(f"{where}: unknown key `{here}`; {hint}")
        check_keys(item, fields[key], where, here)
