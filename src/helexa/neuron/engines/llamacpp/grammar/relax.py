"""A tool's schema as llama.cpp's own compiler bears it, where nobody insists on the schema.

In ``tool_choice: auto`` the engine compiles the tools itself, inside its template's own form of a
call. What it stumbles over is loosened, never a reason to refuse the agent that sent it. Bounds are
the worst of it: from some the engine makes a repeat from more to less, which it writes out until
the memory is gone, and everybody's answers with it (``bounds.py``).
"""

from __future__ import annotations

from typing import Any

from helexa.neuron.engines.llamacpp.grammar.bounds import sane_bounds
from helexa.neuron.engines.llamacpp.grammar.merge import TYPES
from helexa.neuron.engines.llamacpp.grammar.pattern import UnknownPattern, pattern_rule
from helexa.neuron.engines.llamacpp.grammar.shape import LISTED, NAMED

_ONE = ("items", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems")


def relax(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without what the engine cannot compile; the argument stays as it is."""
    return _relaxed(schema, schema)


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
