"""Two schemas as one that asks for both, and whether two can hold at once."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_IMPLIED = (
    ("object", ("properties", "required", "additionalProperties", "patternProperties",
                "minProperties", "maxProperties", "propertyNames")),
    ("array", ("items", "prefixItems", "minItems", "maxItems", "uniqueItems")),
    ("string", ("pattern", "minLength", "maxLength")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)  # fmt: skip
_TIGHTEST = {
    "minimum": max, "exclusiveMinimum": max, "minLength": max, "minItems": max,
    "minProperties": max, "maximum": min, "exclusiveMaximum": min, "maxLength": min,
    "maxItems": min, "maxProperties": min,
}  # fmt: skip
_SPOKEN = frozenset(("title", "description", "default", "examples", "$defs", "definitions",
                     "$schema", "$id", "$comment", "format", "example"))  # fmt: skip


class Uncompilable(ValueError):
    """A keyword that cannot be enforced.

    Args:
        path: Of the keyword, in the request.
        why: What is the matter; continues a sentence that begins with the path.
    """

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"`{path}` {why}")
        self.path = path
        self.why = why


def types_of(schema: Json, path: str) -> list[str] | None:
    """The types a value may have; those that its keywords speak of when none is named.

    Raises:
        Uncompilable: A type that JSON does not have.
    """
    named = schema.get("type")
    if named is None:
        implied = [kind for kind, words in _IMPLIED if any(word in schema for word in words)]
        return implied or (["string"] if "format" in schema else None)
    kinds = named if isinstance(named, list) else [named]
    for kind in kinds:
        if kind not in TYPES:
            raise Uncompilable(f"{path}.type", f"is {kind!r}; JSON has {', '.join(TYPES)}")
    if not kinds:
        raise Uncompilable(f"{path}.type", "leaves no value")
    if schema.get("nullable") is True and "null" not in kinds:
        kinds = [*kinds, "null"]
    return list(dict.fromkeys(kinds))


def merge(one: Any, other: Any, path: str, drop: str | None = None) -> Any:
    """A schema whose values satisfy both.

    Args:
        drop: A keyword of ``other`` to leave out.

    Raises:
        Uncompilable: They contradict each other, or cannot be joined.
    """
    if one is True or not isinstance(one, dict):
        return other if one is True else one
    if other is True or not isinstance(other, dict):
        return one if other is True else other
    _check_closed(one, other, path)
    result = dict(one)
    for name, value in other.items():
        if name == drop:
            continue
        if name not in result:
            result[name] = value
        elif name == "properties":
            result[name] = _properties(result[name] or {}, value or {}, f"{path}.properties")
        elif result[name] != value and name not in _SPOKEN:
            result[name] = _both(name, result[name], value, path)
    return result


def _properties(one: Json, other: Json, path: str) -> Json:
    shared = {k: merge(one[k], other[k], f"{path}.{k}") for k in one if k in other}
    return {**one, **other, **shared}


def _both(name: str, one: Any, other: Any, path: str) -> Any:
    """One keyword's two values as one."""
    here = f"{path}.{name}"
    if name == "type":
        kinds = _shared_types(one, other)
        if not kinds:
            raise Uncompilable(here, "contradicts the type beside it")
        return kinds
    if name == "required":
        return list(dict.fromkeys([*(one or ()), *(other or ())]))
    if name == "enum":
        return [value for value in one if value in other]
    if name == "additionalProperties":
        return False if False in (one, other) else merge(one, other, here)
    if name == "items":
        return merge(one, other, here)
    if name in _TIGHTEST:
        return _TIGHTEST[name](one, other)
    raise Uncompilable(here, "cannot be joined with the one beside it")


def _shared_types(one: Any, other: Any) -> list[str]:
    first, second = (kind if isinstance(kind, list) else [kind] for kind in (one, other))
    shared = [kind for kind in first if kind in second]
    if "integer" not in shared and {"integer", "number"} <= {*first, *second}:
        shared.append("integer")
    return shared


def _check_closed(one: Json, other: Json, path: str) -> None:
    """A closed object does not bear another's properties."""
    for closed, wider in ((one, other), (other, one)):
        if closed.get("additionalProperties") is False:
            named = wider.get("properties") or {}
            beyond = [key for key in named if key not in (closed.get("properties") or {})]
            if beyond:
                raise Uncompilable(
                    f"{path}.additionalProperties", f"excludes {beyond[0]!r}, which is asked for "
                    "beside it"
                )  # fmt: skip


def disjoint(one: Any, other: Any) -> bool:
    """Whether surely no value satisfies both."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one is False or other is False
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not any(_same(a, b) for a in values for b in others)
    kinds, more = _kinds(one), _kinds(other)
    if kinds is not None and more is not None and not kinds & more:
        return True
    return kinds == more == {"object"} and _told_apart(one, other)


def _told_apart(one: Json, other: Json) -> bool:
    """Objects: by a property that both require, or by one that the other is closed to."""
    first, second = one.get("properties") or {}, other.get("properties") or {}
    required, needed = set(one.get("required") or ()), set(other.get("required") or ())
    for name in required & needed:
        if name in first and name in second and disjoint(first[name], second[name]):
            return True
    closed_first = one.get("additionalProperties") is False and needed - set(first)
    return bool(closed_first) or bool(
        other.get("additionalProperties") is False and required - set(second)
    )


def _values(schema: Json) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found = schema.get("enum")
    return found if isinstance(found, list) else None


def _kinds(schema: Json) -> set[str] | None:
    found = schema.get("type")
    if found is None:
        return None
    kinds = set(found) if isinstance(found, list) else {found}
    return kinds | {"integer"} if "number" in kinds else kinds


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)
