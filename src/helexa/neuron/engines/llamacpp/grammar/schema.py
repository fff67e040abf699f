"""JSON Schema, keyword by keyword, as rules of a grammar.

::

    schema ─▶ $ref, allOf, siblings of anyOf are merged away ─▶ one rule for each kind of value

A keyword that says nothing about the value is passed over, one that cannot be held is refused
with its path, and a schema that nothing satisfies is refused too.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from helexa.neuron.engines.llamacpp.grammar import objects
from helexa.neuron.engines.llamacpp.grammar.formats import FORMATS
from helexa.neuron.engines.llamacpp.grammar.merge import Uncompilable, disjoint, merge, types_of
from helexa.neuron.engines.llamacpp.grammar.numbers import Bounds, integer_rule, number_rule
from helexa.neuron.engines.llamacpp.grammar.pattern import UnknownPattern, pattern_rule
from helexa.neuron.engines.llamacpp.grammar.readings import Readings, TooManyReadings
from helexa.neuron.engines.llamacpp.grammar.shape import check_shape
from helexa.neuron.engines.llamacpp.grammar.text import Grammar, literal, repeat

__all__ = ["Uncompilable", "compile_schema"]

Json = dict[str, Any]

_SILENT = frozenset((
    "$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "$vocabulary", "title",
    "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
    "contentEncoding", "contentMediaType", "format", "strict", "nullable", "markdownDescription",
    "enumDescriptions", "discriminator", "xml", "externalDocs", "additionalItems",
    "unevaluatedProperties",
))  # fmt: skip
_HELD = frozenset((
    "type", "properties", "required", "additionalProperties", "minProperties", "maxProperties",
    "patternProperties", "propertyNames", "items", "prefixItems", "minItems", "maxItems",
    "uniqueItems", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "pattern", "minLength",
    "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "unevaluatedItems",
))  # fmt: skip
_DEEPEST = 64


def compile_schema(grammar: Grammar, schema: Any, path: str) -> str:
    """Add ``schema`` to ``grammar``; the name of the rule that matches its values.

    Args:
        path: Of the schema in the request, for refusals.

    Raises:
        Uncompilable: With the path of the keyword.
    """
    check_shape(schema, path)
    try:
        return _compiled(Compiler(grammar, schema, path))
    except TooManyReadings:
        return _compiled(Compiler(grammar, schema, path, telling_first=True))


def multiplies(schema: Any) -> bool:
    """Whether a grammar of ``schema``, in the order of its properties, has too many readings; also
    where that cannot be told, because it has what is not compiled here."""
    try:
        _compiled(Compiler(Grammar(), schema, ""))
    except Uncompilable:
        return True
    return False


def _compiled(compiler: Compiler) -> str:
    rule = compiler.visit(compiler.document, compiler.path)
    compiler.readings.check()
    return rule


class Compiler:
    """One schema document on its way into one grammar.

    Args:
        path: Of the document in the request.
        telling_first: Properties that tell alternatives apart are written before the others,
            whatever their order in the schema.
    """

    def __init__(
        self, grammar: Grammar, document: Any, path: str, *, telling_first: bool = False
    ) -> None:
        self.grammar = grammar
        self.document = document
        self.path = path
        self.telling_first = telling_first
        self.readings = Readings()
        self._refs: dict[str, str] = {}
        self._depth = 0

    def visit(self, schema: Any, path: str) -> str:
        """The name of a rule for ``schema``."""
        if schema is True:
            return self.grammar.use("value")
        if not isinstance(schema, dict):
            kind = "accepts nothing" if schema is False else "is not a schema"
            raise Uncompilable(path, f"{kind}")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Uncompilable(path, "is nested too deeply")
        try:
            return self._visit(schema, path)
        finally:
            self._depth -= 1

    def _visit(self, schema: Json, path: str) -> str:
        for name, value in schema.items():
            if name not in _HELD and name not in _SILENT and not name.startswith("x-"):
                raise Uncompilable(f"{path}.{name}", "is a keyword that cannot be enforced")
            if name == "unevaluatedProperties" and isinstance(value, dict):
                raise Uncompilable(f"{path}.{name}", "can be enforced as a boolean only")
        if "$ref" in schema:
            return self._reference(schema, path)
        if "allOf" in schema:
            return self._all_of(schema, path)
        for name in ("anyOf", "oneOf"):
            if name in schema:
                return self._one_of(schema, name, path)
        if "enum" in schema or "const" in schema:
            return self._literals(schema, path)
        kinds = types_of(schema, path)
        if kinds is None:
            return self.grammar.use("value")
        rules = [self._typed(kind, schema, path) for kind in kinds]
        return rules[0] if len(rules) == 1 else self._either(rules, path)

    def _either(self, rules: list[str], path: str) -> str:
        rule = self.grammar.add(" | ".join(rules))
        self.readings.note_either(rule, rules, path)
        return rule

    # ── references and combinations ─────────────────────────────────────────────────────────

    def resolve(self, reference: Any, path: str) -> Any:
        """What a ``$ref`` of this document points at."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Uncompilable(f"{path}.$ref", "points outside of this schema")
        found = self.document
        for part in reference[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise Uncompilable(f"{path}.$ref", f"points at {reference}, which is not there")
        return found

    def _reference(self, schema: Json, path: str) -> str:
        target = self.resolve(schema["$ref"], path)
        rest = {k: v for k, v in schema.items() if k != "$ref" and k not in _SILENT}
        if rest:
            return self.visit(merge(target, rest, path), path)
        reference = schema["$ref"]
        if reference not in self._refs:
            # Named before it is visited: what refers to itself finds the name.
            name = self._refs[reference] = self.grammar.name()
            self.grammar.rules[name] = ""
            self.grammar.rules[name] = self.visit(target, path)
            self.readings.note_either(name, [self.grammar.rules[name]], path)
            if self.grammar.rules[name] == name:
                raise Uncompilable(f"{path}.$ref", "refers to nothing but itself")
        return self._refs[reference]

    def _all_of(self, schema: Json, path: str) -> str:
        merged: Any = {k: v for k, v in schema.items() if k != "allOf"}
        for index, part in enumerate(schema["allOf"]):
            here = f"{path}.allOf[{index}]"
            while isinstance(part, dict) and set(part) - _SILENT == {"$ref"}:
                part = self.resolve(part["$ref"], here)  # noqa: PLW2901
            merged = merge(merged, part, here)
        return self.visit(merged, path)

    def _one_of(self, schema: Json, name: str, path: str) -> str:
        options = schema[name]
        if not isinstance(options, list) or not options:
            raise Uncompilable(f"{path}.{name}", "must be a list of schemas")
        base = {k: v for k, v in schema.items() if k != name and k not in _SILENT}
        full = []
        for index, option in enumerate(options):
            here = f"{path}.{name}[{index}]"
            if base and isinstance(option, dict) and "$ref" in option:
                option = merge(self.resolve(option["$ref"], here), option, here, drop="$ref")  # noqa: PLW2901
            full.append((merge(base, option, here) if base else option, here))
        if name == "oneOf":
            self._exclusive([self._plain(option, here) for option, here in full], path)
        return self._either([self.visit(option, here) for option, here in full], f"{path}.{name}")

    def _plain(self, option: Any, path: str) -> Any:
        seen = 0
        while isinstance(option, dict) and "$ref" in option and seen < _DEEPEST:
            option, seen = self.resolve(option["$ref"], path), seen + 1
        return option

    def _exclusive(self, options: list[Any], path: str) -> None:
        for index, option in enumerate(options):
            if not all(disjoint(option, other) for other in options[:index]):
                raise Uncompilable(
                    f"{path}.oneOf", "has branches that may hold at once; use anyOf, or tell them "
                    "apart by a required property with a const"
                )  # fmt: skip

    # ── values ──────────────────────────────────────────────────────────────────────────────

    def _literals(self, schema: Json, path: str) -> str:
        name = "const" if "const" in schema else "enum"
        values = [schema["const"]] if name == "const" else schema["enum"]
        if not isinstance(values, list):
            raise Uncompilable(f"{path}.enum", "must be a list")
        if name == "const" and "enum" in schema and schema["const"] not in schema["enum"]:
            values = []
        fitting = [value for value in values if _fits(value, schema, path)]
        if not fitting:
            raise Uncompilable(f"{path}.{name}", "leaves no value")
        texts = [json.dumps(value, ensure_ascii=False) for value in fitting]
        rule = self.grammar.add(" | ".join(dict.fromkeys(map(literal, texts))))
        self.readings.note_texts(rule, texts)
        return rule

    def _typed(self, kind: str, schema: Json, path: str) -> str:
        if kind in ("boolean", "null"):
            return self.grammar.use(kind)
        if kind in ("integer", "number"):
            return self._numeric(kind, schema, path)
        if kind == "string":
            return self._string(schema, path)
        if kind == "array":
            return self._array(schema, path)
        return objects.object_rule(self, schema, path)

    def _numeric(self, kind: str, schema: Json, path: str) -> str:
        if schema.get("multipleOf", 1) != 1 or ("multipleOf" in schema and kind == "number"):
            raise Uncompilable(f"{path}.multipleOf", "cannot be enforced")
        bounds = _bounds(schema, path)
        if bounds.free:
            return self.grammar.use("int" if kind == "integer" else "number")
        rule = integer_rule(bounds) if kind == "integer" else number_rule(bounds)
        if rule is None:
            raise Uncompilable(f"{path}.minimum", "and maximum leave no value")
        return self.grammar.add(rule)

    def _string(self, schema: Json, path: str) -> str:
        low, high = count(schema, "minLength", path) or 0, count(schema, "maxLength", path)
        form = schema.get("format")
        pattern = schema.get("pattern", FORMATS.get(form) if isinstance(form, str) else None)
        if pattern is not None:
            return self._pattern(pattern, low, high, f"{path}.pattern")
        if not low and high is None:
            return self.grammar.use("string")
        if high is not None and high < low:
            raise Uncompilable(f"{path}.maxLength", "is below minLength")
        return self.grammar.add(_quoted(repeat(self.grammar.use("char"), low, high)))

    def _pattern(self, pattern: Any, low: int, high: int | None, path: str) -> str:
        try:
            if not isinstance(pattern, str):
                raise UnknownPattern("it is not a string")
            rule, least, most = pattern_rule(pattern)
        except UnknownPattern as error:
            raise Uncompilable(path, f"cannot be enforced: {error}") from None
        if low > least or (high is not None and high < most):
            raise Uncompilable(path, "cannot be enforced together with minLength or maxLength")
        return self.grammar.add(_quoted(rule))

    def _array(self, schema: Json, path: str) -> str:
        low, high = count(schema, "minItems", path) or 0, count(schema, "maxItems", path)
        if schema.get("uniqueItems") and (high is None or high > 1):
            raise Uncompilable(f"{path}.uniqueItems", "cannot be enforced")
        tuple_ = isinstance(schema.get("items"), list)  # as drafts before 2020 wrote prefixItems
        first: list[Any] = schema["items"] if tuple_ else schema.get("prefixItems") or []
        rest: Any = schema.get("additionalItems", True) if tuple_ else schema.get("items", True)
        if schema.get("unevaluatedItems") is False and "items" not in schema:
            rest = False
        if high is not None and high < low:
            raise Uncompilable(f"{path}.maxItems", "is below minItems")
        heads = [self.visit(s, f"{path}.prefixItems[{i}]") for i, s in enumerate(first)]
        heads = heads[:high] if high is not None else heads
        if rest is False or (high is not None and high <= len(heads)):
            if low > len(heads):
                raise Uncompilable(f"{path}.minItems", "is more than there are items")
            rule = self._row(heads, low, None)
            self.readings.note_array(rule, heads)
            return rule
        item = self.visit(rest, f"{path}.items")
        rule = self._row(heads, low, (item, None if high is None else high - len(heads)))
        self.readings.note_array(rule, [*heads, item])
        return rule

    def _row(self, heads: list[str], low: int, rest: tuple[str, int | None] | None) -> str:
        """``[`` heads, then items ``]``; heads beyond ``low`` are optional from the end."""
        self.grammar.use("ws")
        tail = ""
        if rest is not None:
            least, most = max(0, low - len(heads)), rest[1]
            more = f'ws "," ws {rest[0]}'
            if heads:
                tail = " " + repeat(f"({more})", least, most)
            else:
                again = repeat(f"({more})", max(0, least - 1), None if most is None else most - 1)
                tail = f"{rest[0]} {again}"
                tail = f"({tail})?" if least == 0 else tail
        body = tail
        for index in range(len(heads) - 1, -1, -1):
            comma = 'ws "," ws ' if index else ""
            body = f"{comma}{heads[index]}{' ' + body if body.strip() else ''}"
            if index >= low:
                body = f"({body})?"
        return self.grammar.add(f'"[" ws {body} ws "]"')


def count(schema: Json, name: str, path: str) -> int | None:
    """A keyword that counts.

    Raises:
        Uncompilable: It does not.
    """
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value % 1:
        raise Uncompilable(f"{path}.{name}", "must be a whole number, 0 or more")
    return int(value)


def _quoted(rule: str) -> str:
    return f'"\\"" {rule} "\\""'


def _bounds(schema: Json, path: str) -> Bounds:
    numbers: dict[str, Decimal] = {}
    flags = {}
    for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        value = schema.get(name)
        if isinstance(value, bool):
            flags[name] = value  # draft 4: a switch beside the bound
        elif isinstance(value, (int, float)):
            numbers[name] = Decimal(repr(value))
        elif value is not None:
            raise Uncompilable(f"{path}.{name}", "must be a number")
    low, above = numbers.get("minimum"), flags.get("exclusiveMinimum", False)
    high, below = numbers.get("maximum"), flags.get("exclusiveMaximum", False)
    if "exclusiveMinimum" in numbers and (low is None or numbers["exclusiveMinimum"] >= low):
        low, above = numbers["exclusiveMinimum"], True
    if "exclusiveMaximum" in numbers and (high is None or numbers["exclusiveMaximum"] <= high):
        high, below = numbers["exclusiveMaximum"], True
    return Bounds(low, high, above, below)


def _fits(value: Any, schema: Json, path: str) -> bool:
    """Whether a listed value satisfies the keywords beside the list."""
    kinds = types_of(schema, path) if "type" in schema else None
    if kinds is not None and not any(_is(value, kind) for kind in kinds):
        return False
    if isinstance(value, str):
        low, high = count(schema, "minLength", path) or 0, count(schema, "maxLength", path)
        return low <= len(value) and (high is None or len(value) <= high)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _bounds(schema, path).holds(Decimal(repr(value)))
    return True


_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,), "boolean": (bool,), "null": (type(None),), "array": (list,),
    "object": (dict,), "number": (int, float), "integer": (int,),
}  # fmt: skip


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _PYTHON[kind])
