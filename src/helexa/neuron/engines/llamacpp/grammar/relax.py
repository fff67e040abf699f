"""A tool's schema as llama.cpp's own compiler bears it, where nobody insists on the schema.

In ``tool_choice: auto`` the engine compiles the tools itself, inside its template's own form of a
call. What it stumbles over is loosened, never a reason to refuse the agent that sent it. Bounds are
the worst of it: from some the engine makes a repeat from more to less, which it writes out until
the memory is gone, and everybody's answers with it (``bounds.py``). Alternatives that multiply
(``readings.py``) are left open: the prompt then says less of them, and the engine goes on.
"""

from __future__ import annotations

from typing import Any

from helexa.neuron.engines.llamacpp.grammar.bounds import sane_bounds
from helexa.neuron.engines.llamacpp.grammar.merge import TYPES
from helexa.neuron.engines.llamacpp.grammar.pattern import UnknownPattern, pattern_rule
from helexa.neuron.engines.llamacpp.grammar.readings import MOST
from helexa.neuron.engines.llamacpp.grammar.schema import multiplies
from helexa.neuron.engines.llamacpp.grammar.shape import LISTED, NAMED

_ALTERNATIVES = ("anyOf", "oneOf")
_HOLDING = frozenset(("properties", "items", "prefixItems", "additionalProperties", "$ref", "allOf",
                    *_ALTERNATIVES))  # fmt: skip
_ONE = ("items", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems")


def relax(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without what the engine cannot compile; the argument stays as it is."""
    loosened = _relaxed(schema, schema)
    if _forks(loosened) > MOST and multiplies(loosened):
        opened: dict[str, Any] = _without_alternatives(loosened)
        return opened
    return loosened


def _forks(schema: Any, *, inside: bool = False) -> int:
    """The most readings that alternatives within each other can have; what a reference within
    them leads to is not followed, and counts for more than any."""
    if isinstance(schema, list):
        return max((_forks(item, inside=inside) for item in schema), default=1)
    if not isinstance(schema, dict):
        return 1
    most = MOST + 1 if inside and "$ref" in schema else 1
    for name, value in schema.items():
        if name in _ALTERNATIVES and isinstance(value, list):
            found = [_forks(option, inside=len(value) > 1) for option in value]
            holding = [n for n, option in zip(found, value, strict=True) if _holds_others(option)]
            most = max(most, sum(holding), *found)
        else:
            most = max(most, _forks(value, inside=inside))
    return most


def _holds_others(option: Any) -> bool:
    """Whether values begin within what ``option`` allows."""
    return isinstance(option, dict) and not _HOLDING.isdisjoint(option)


def _without_alternatives(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_alternatives(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept = (item for item in schema.items() if item[0] not in _ALTERNATIVES)
    return {name: _without_alternatives(value) for name, value in kept}


def _relaxed(schema: Any, document: Any) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}  # true, false, or nothing that is a schema
    out: dict[str, Any] = {}
    for name, value in schema.items():
        if name in NAMED:
            if isinstance(value, dict):
                out[name] = {key: _relaxed(inner, document) for key, inner in value.items()}
        elif name in LISTED:
            if isinstance(value, list) and value:
                out[name] = [_relaxed(inner, document) for inner in value]
        elif name in _ONE:
            if isinstance(value, dict):
                out[name] = _relaxed(value, document)
        elif name == "additionalProperties" and isinstance(value, dict):
            out[name] = _relaxed(value, document)
        elif not _stumbles(name, value, document):
            out[name] = value
    return sane_bounds(out)


def _stumbles(name: str, value: Any, document: Any) -> bool:
    match name:
        case "$ref":
            return not _resolves(value, document)
        case "type":
            kinds = value if isinstance(value, list) else [value]
            return not kinds or any(
                not isinstance(kind, str) or kind not in TYPES for kind in kinds
            )
        case "pattern":
            try:
                pattern_rule(value)
            except (UnknownPattern, TypeError):
                return True
        case "enum":
            return not isinstance(value, list) or not value
        case "required":
            return not isinstance(value, list) or not all(isinstance(key, str) for key in value)
        case "additionalProperties":
            return not isinstance(value, bool)
        case "format":
            return not isinstance(value, str)
    return False


def _resolves(reference: Any, document: Any) -> bool:
    """Whether a reference leads to a schema, and not only to further references in a ring; the
    engine does not know the one to the whole document."""
    seen: set[str] = set()
    while isinstance(reference, str) and reference.startswith("#/") and reference not in seen:
        seen.add(reference)
        found = document
        for part in reference[2:].split("/"):
            if not isinstance(found, dict) or part not in found:
                return False
            found = found[part]
        if not isinstance(found, dict):
            return False
        if "$ref" not in found:
            return True
        reference = found["$ref"]
    return False
