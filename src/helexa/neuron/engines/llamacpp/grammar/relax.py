"""A tool's schema as llama.cpp's own compiler bears it, where nobody insists on the schema.

In ``tool_choice: auto`` the engine compiles the tools itself, inside its template's own form of a
call. What it stumbles over is loosened, never a reason to refuse the agent that sent it.
"""

from __future__ import annotations

from typing import Any

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
        if name in NAMED and isinstance(value, dict):
            out[name] = {key: _relaxed(inner, document) for key, inner in value.items()}
        elif name in LISTED and isinstance(value, list):
            out[name] = [_relaxed(inner, document) for inner in value]
        elif name in _ONE:
            if isinstance(value, dict):
                out[name] = _relaxed(value, document)
        elif name == "additionalProperties" and isinstance(value, dict):
            out[name] = _relaxed(value, document)
        elif not _stumbles(name, value, document):
            out[name] = value
    return out


def _stumbles(name: str, value: Any, document: Any) -> bool:
    if name == "$ref":
        return not _resolves(value, document)
    if name == "type":
        kinds = value if isinstance(value, list) else [value]
        return not kinds or any(kind not in TYPES for kind in kinds)
    if name == "pattern":
        try:
            pattern_rule(value)
        except (UnknownPattern, TypeError):
            return True
    return False


def _resolves(reference: Any, document: Any) -> bool:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return bool(reference == "#")
    found = document
    for part in reference[2:].split("/"):
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return isinstance(found, dict)
