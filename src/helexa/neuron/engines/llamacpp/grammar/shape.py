"""Whether keywords have the form that JSON Schema gives them, before anything relies on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from helexa.neuron.engines.llamacpp.grammar.merge import Uncompilable

NAMED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
"""Keywords whose value is schemas by name."""
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Keywords whose value is a list of schemas."""
_ONE = ("items", "additionalProperties", "propertyNames", "unevaluatedItems")

_DEEPEST = 64


def check_shape(schema: Any, path: str, depth: int = 0) -> None:
    """Check the schema and those inside it, down to where nothing is compiled any more.

    Args:
        path: Of the schema in the request, for refusals.

    Raises:
        Uncompilable: With the path of the keyword.
    """
    if not isinstance(schema, dict) or depth > _DEEPEST:
        return
    for name, value in schema.items():
        for inner, where in _inside(name, value, f"{path}.{name}"):
            check_shape(inner, where, depth + 1)


def _inside(name: str, value: Any, path: str) -> Iterable[tuple[Any, str]]:
    """The schemas in a keyword's value, each with its path."""
    if name in LISTED or (name == "items" and isinstance(value, list)):
        if not isinstance(value, list):
            raise Uncompilable(path, "must be a list of schemas")
        return [(inner, f"{path}[{index}]") for index, inner in enumerate(value)]
    if value is None:  # as good as absent
        return ()
    if name in NAMED:
        if not isinstance(value, dict):
            raise Uncompilable(path, "must be an object of schemas")
        return [(inner, f"{path}.{key}") for key, inner in value.items()]
    if name == "required" and not (isinstance(value, list) and _texts(value)):
        raise Uncompilable(path, "must be a list of names")
    if name == "type" and not _texts(value if isinstance(value, list) else [value]):
        raise Uncompilable(path, "must be the name of a type, or a list of names")
    return [(value, path)] if name in _ONE else ()


def _texts(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)
