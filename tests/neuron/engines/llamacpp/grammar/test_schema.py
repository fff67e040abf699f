"""Keywords are compiled or refused by their path; none is passed over."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.neuron.engines.llamacpp.grammar.gbnf import expanded

from helexa.neuron.engines.llamacpp.grammar import (
    Grammar,
    Uncompilable,
    compile_schema,
    relax,
    until,
)
from helexa.neuron.engines.llamacpp.grammar.objects import _key_rule


def refused(schema: Any) -> str:
    with pytest.raises(Uncompilable) as found:
        compile_schema(Grammar(), schema, "s")
    return found.value.path


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"not": {}}, "s.not"),
        ({"if": {}, "then": {}}, "s.if"),
        ({"type": "objekt"}, "s.type"),
        ({"type": "array", "contains": {}}, "s.contains"),
        ({"type": "array", "uniqueItems": True}, "s.uniqueItems"),
        ({"type": "integer", "multipleOf": 5}, "s.multipleOf"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "s.minimum"),
        ({"type": "string", "pattern": "(?=a)b"}, "s.pattern"),
        ({"type": "string", "pattern": "(a)\\1"}, "s.pattern"),
        ({"type": "string", "pattern": "a+", "maxLength": 3}, "s.pattern"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "s.maxLength"),
        ({"type": "string", "minLength": -1}, "s.minLength"),
        ({"properties": {"a": {"$ref": "https://x.org/a"}}}, "s.properties.a.$ref"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "s.properties.a.$ref"),
        ({"$ref": "#"}, "s.$ref"),
        ({"dependentRequired": {"a": ["b"]}}, "s.dependentRequired"),
        ({"properties": {}, "required": ["a"], "additionalProperties": False}, "s.required"),
        ({"type": "object", "minProperties": 2}, "s.minProperties"),
        ({"enum": []}, "s.enum"),
        ({"type": "string", "enum": [1]}, "s.enum"),
        ({"anyOf": []}, "s.anyOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "s.oneOf"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "s.allOf[1].type"),
        ({"items": {"anyOf": [{"type": "null"}, {"not": {}}]}}, "s.items.anyOf[1].not"),
        (False, "s"),
        (5, "s"),
    ],
)
def test_what_cannot_be_enforced_is_named_by_its_path(schema: Any, path: str) -> None:
    assert refused(schema) == path


def thing(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}  # fmt: skip


def alike(depth: int) -> dict[str, Any]:
    """Two objects that both begin with "a", in each other ``depth`` times."""
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        inner = {"anyOf": [thing(a=inner), thing(a=inner, b={"type": "string"})]}
    return inner


ROOT = {"$ref": "#"}


@pytest.mark.parametrize(("schema", "path"), [
    (alike(10), "s.anyOf"),
    ({"anyOf": [thing(a=ROOT), thing(a=ROOT, b={}), {"type": "null"}]}, "s.anyOf"),
    ({"anyOf": [{"items": ROOT}, {"items": {"anyOf": [ROOT, {"type": "null"}]}}]},
     "s.anyOf[1].items.anyOf"),
])  # fmt: skip
def test_alternatives_that_begin_alike_within_each_other_without_end_are_refused(
    schema: Any, path: str
) -> None:
    assert refused(schema) == path


@pytest.mark.parametrize("schema", [
    alike(8),
    {"anyOf": [thing(kind={"const": k}, left=ROOT, right=ROOT) for k in ("and", "or")]},
    {"anyOf": [thing(**{k: {"items": ROOT}}) for k in ("and", "or")] + [{"type": "string"}]},
    {"anyOf": [thing(value={"type": "integer"}, next=ROOT), {"type": "null"}]},
    {"anyOf": [thing(child=ROOT), {}]},
    {"anyOf": [{"items": ROOT}, {"additionalProperties": ROOT}, {"type": ["string", "number"]}]},
    {"anyOf": [thing(kind={"const": n}, value={"type": "string"}) for n in range(100)]},
])  # fmt: skip
def test_alternatives_that_part_soon_may_refer_to_themselves(schema: Any) -> None:
    compile_schema(Grammar(), schema, "s")


def test_alternatives_of_a_tool_that_would_multiply_are_left_open() -> None:
    tool = thing(query=alike(10), limit={"type": "integer"})
    assert relax(tool)["properties"] == {"query": {}, "limit": {"type": "integer"}}
    few = thing(query=alike(3))
    parting = {"anyOf": [thing(**{k: {"items": {"$ref": "#/$defs/f"}}}) for k in ("and", "or")]}
    filters = {**thing(filter={"$ref": "#/$defs/f"}), "$defs": {"f": parting}}
    assert (relax(few), relax(filters)) == (few, filters)


def first_key(schema: dict[str, Any]) -> str:
    """What the first of several objects begins with."""
    grammar = Grammar()
    rules = grammar.rules
    option = rules[compile_schema(grammar, schema, "s")].split(" | ")[0]
    inside = rules[option].split()[2]  # "{" ws …
    member = rules[rules[inside].split()[0]]
    return member.split()[0].replace("\\", "").strip('"')


def test_what_tells_alternatives_apart_is_written_first_where_they_would_multiply() -> None:
    late = [thing(left=ROOT, right=ROOT, kind={"const": kind}) for kind in ("and", "or")]
    assert first_key({"anyOf": [*late, {"type": "string"}]}) == "kind"
    assert first_key({"anyOf": [thing(v={"type": "null"}, kind={"const": k}) for k in "ab"]}) == "v"


def test_a_schema_that_never_ends_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(200):
        schema = {"type": "array", "items": schema}
    assert refused(schema).startswith("s.items.items")


@pytest.mark.parametrize(
    ("key", "free"),
    [("a", False), ("ab", False), ("b", True), ("abc", True), ("", True), ("aa", True)],
)
def test_a_further_key_is_none_of_the_declared_ones(key: str, free: bool) -> None:
    grammar = Grammar()
    rule = _key_rule(grammar, ["a", "ab"])
    assert bool(re.fullmatch(expanded(grammar, rule), f'"{key}"')) is free


@pytest.mark.parametrize(
    ("text", "ends"),
    [("</t>", True), ("a</t>", True), ("<</t>", True), ("</</t>", True), ("</t", False),
     ("</t>x", False), ("</t></t>", False)],
)  # fmt: skip
def test_a_thought_ends_with_its_first_mark(text: str, ends: bool) -> None:
    grammar = Grammar()
    state = until(grammar, "</t>")
    for char in text:  # each rule is a state, each of its options a step
        steps = [part.split() for part in grammar.rules[state].split(" | ")] if state else []
        found = next((s for s in steps if re.fullmatch(s[0].strip('"'), char)), None)
        if found is None:
            assert not ends
            return
        state = found[1] if len(found) > 1 else ""
    assert (state == "") is ends
