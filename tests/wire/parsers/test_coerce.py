"""Values as the tool's schema wants them."""

from __future__ import annotations

from typing import Any

import pytest

from helexa.wire.parsers.coerce import coerce, coerce_arguments


@pytest.mark.parametrize(("text", "schema", "expected"), [
    ("5", {"type": "integer"}, 5),
    ("007", {"type": "integer"}, 7),
    ("3.0", {"type": "integer"}, 3),
    ("3.5", {"type": "integer"}, "3.5"),
    ("3.5", {"type": "number"}, 3.5),
    ("3", {"type": "number"}, 3),
    ("-1e3", {"type": "number"}, -1000.0),
    ("nan", {"type": "number"}, "nan"),
    (" 1e999 ", {"type": "number"}, " 1e999 "),
    ("x", {"type": "number"}, "x"),
    ("9" * 4000, {"type": "integer"}, "9" * 4000),
    ("true", {"type": "boolean"}, True),
    ("False", {"type": "boolean"}, False),
    ("yes", {"type": "boolean"}, "yes"),
    ("true", {"type": "integer"}, "true"),
    ("null", {"type": ["string", "null"]}, None),
    ("null", {"type": "string"}, "null"),
    ("5", {"type": "string"}, "5"),
    ("5", {}, "5"),
    (" 5 ", {"type": "integer"}, 5),
    ('{"a": 1}', {"type": "object"}, {"a": 1}),
    ("{'a': True}", {"type": "object"}, {"a": True}),
    ("[1, 2]", {"type": "array"}, [1, 2]),
    ('["1", "2"]', {"type": "array", "items": {"type": "integer"}}, [1, 2]),
    (" [1, 2 ", {"type": "array"}, " [1, 2 "),
    (' {"a": 1} ', {"type": "object"}, {"a": 1}),
    ('{"a": 1}', {"type": "array"}, '{"a": 1}'),
    ("[1]", {"type": "object"}, "[1]"),
    ('{"a": "1"}', {"properties": {"a": {"type": "integer"}}}, {"a": 1}),
    ('["1"]', {"items": {"type": "integer"}}, [1]),
    ('["1"]', {"type": "array", "items": [{"type": "integer"}]}, ["1"]),
    ("{1}", {"type": "object"}, "{1}"),
    ('{"a": 1}', {"type": "string"}, '{"a": 1}'),
    ("5", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, 5),
    ("None", {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
    ("5", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 5),
    ("00501", {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "00501"),
    ("x", {"oneOf": [{"type": "integer"}, {"type": "boolean"}]}, "x"),
    ("2", {"enum": [1, 2, 3]}, 2),
    ("2", {"enum": ["1", "2"]}, "2"),
    ("2", {"type": ["integer", "string"], "enum": ["2", 5]}, "2"),
    (True, {"type": "string"}, True),
    (0.5, {"type": "string"}, "0.5"),
    ("1", {"enum": [True, 1]}, 1),
    ("null", {"const": None}, None),
    ("3", {"$ref": "#/$defs/count"}, 3),
    ("3", {"$ref": "#/$defs/loop"}, "3"),
    ("3", {"anyOf": [{"$ref": "#/$defs/many"}] * 30}, 3),
    ("3", {"$ref": "http://elsewhere"}, "3"),
    ("3", {"$ref": "$defs/count"}, "3"),
    ("3", {"$ref": "#/$defs/none/type"}, "3"),
    ("3", {"$ref": "#/$defs/count/type"}, "3"),
])  # fmt: skip
def test_a_text_is_read_as_the_narrowest_declared_type(
    text: Any, schema: dict[str, Any], expected: Any
) -> None:
    root = {"$defs": {
        "count": {"type": "integer"},
        "loop": {"$ref": "#/$defs/loop"},
        "many": {"oneOf": [*[{"$ref": "#/$defs/many"}] * 30, {"$ref": "#/$defs/count"}]},
    }}  # fmt: skip
    found = coerce(text, schema, root)
    assert (found, type(found)) == (expected, type(expected))


def test_values_inside_objects_and_lists_are_read_too() -> None:
    schema = {
        "type": "object",
        "properties": {
            "rows": {
                "type": "array",
                "items": {"type": "object", "properties": {"n": {"type": "integer"}}},
            },
            "at": {"type": "object", "properties": {"x": {"type": "number"}}},
            "zip": {"type": "string"},
        },
    }
    given = {"rows": [{"n": "1", "m": "2"}], "at": {"x": "0.5"}, "zip": 501, "more": "3"}
    assert coerce_arguments(given, schema) == {
        "rows": [{"n": 1, "m": "2"}],
        "at": {"x": 0.5},
        "zip": "501",
        "more": "3",  # declared nowhere: as it was written
    }


@pytest.mark.parametrize("schema", [
    None, {}, {"properties": {"a": True}}, {"properties": {"a": {"type": 5, "anyOf": [3]}}},
    {"properties": None}, {"properties": 5}, {"properties": {"a": {"anyOf": 5, "enum": None}}},
    {"$ref": "#/properties/0/x", "properties": {"a": {"items": [1]}}},
])  # fmt: skip
def test_a_schema_that_is_none_changes_nothing(schema: Any) -> None:
    assert coerce_arguments({"a": "1"}, schema) == {"a": "1"}
