"""Objects: declared properties in their order, optional ones left out, further keys at the end.

::

    "{" a ("," b)? ("," c)? … "}"   with a required; without one, the first that is there starts
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from helexa.neuron.engines.llamacpp.grammar.merge import Uncompilable
from helexa.neuron.engines.llamacpp.grammar.pattern import UnknownPattern, pattern_rule
from helexa.neuron.engines.llamacpp.grammar.readings import Member, Readings
from helexa.neuron.engines.llamacpp.grammar.text import Grammar, class_char, literal, repeat

Json = dict[str, Any]

_MOST_KEYS = 1_000_000


class Visitor(Protocol):
    """What compiles the schemas of members."""

    grammar: Grammar
    readings: Readings
    telling_first: bool

    def visit(self, schema: Any, path: str) -> str:
        """The name of a rule for ``schema``."""


def object_rule(compiler: Visitor, schema: Json, path: str) -> str:
    """A rule for the objects of ``schema``.

    Raises:
        Uncompilable: With the path of the keyword.
    """
    grammar = compiler.grammar
    grammar.use("ws")
    properties, required = _declared(schema, path)
    if compiler.telling_first:
        properties = _telling_first(properties, required)
    extra = _further(compiler, schema, properties, path)
    low, high = _sizes(schema, path)
    if not properties and extra is None and not _closed(schema):
        extra = f'{_key_rule(grammar, ())} ws ":" ws {grammar.use("value")}'
    if not properties:
        rule = _map_rule(grammar, extra, low, high, path)
        compiler.readings.note_object(rule, {}, _value_of(extra))
        return rule
    if low > len(required):
        raise Uncompilable(f"{path}.minProperties", "can be enforced without properties only")
    if high is not None and (high < len(properties) or extra is not None):
        raise Uncompilable(f"{path}.maxProperties", "can be enforced without properties only")
    declared = {
        name: Member(name in required, compiler.visit(value, f"{path}.properties.{name}"))
        for name, value in properties.items()
    }
    members = [
        (f'{literal(json.dumps(name, ensure_ascii=False))} ws ":" ws {one.rule}', one.needed)
        for name, one in declared.items()
    ]
    rule = grammar.add(f'"{{" ws {_members(grammar, members, extra)} ws "}}"')
    compiler.readings.note_object(rule, declared, _value_of(extra))
    return rule


def _value_of(member: str | None) -> str | None:
    """The rule after the colon."""
    return None if member is None else member.rpartition(" ")[2]


def _declared(schema: Json, path: str) -> tuple[Json, set[str]]:
    """Properties, and which are required; a required one that is not declared is added."""
    properties = dict(schema.get("properties") or {})
    required = schema.get("required") or []
    beyond = schema.get("additionalProperties", True)
    for name in required:
        if name not in properties:
            if beyond is False:
                raise Uncompilable(f"{path}.required", f"asks for {name!r}, which is not allowed")
            properties[name] = beyond
    return properties, set(required)


def _telling_first(properties: Json, required: set[str]) -> Json:
    """The same, those with constants first that must be there."""

    def tells(name: str) -> bool:
        value = properties[name]
        constant = isinstance(value, dict) and ("const" in value or "enum" in value)
        return constant and name in required

    return {name: properties[name] for name in sorted(properties, key=lambda n: not tells(n))}


def _closed(schema: Json) -> bool:
    return schema.get("additionalProperties") is False


def _further(compiler: Visitor, schema: Json, properties: Json, path: str) -> str | None:
    """A member that is not declared; None where there are none."""
    named = schema.get("propertyNames")
    patterns = schema.get("patternProperties")
    extra = schema.get("additionalProperties")
    if named in (None, True, {}) and not patterns:
        if extra is None or extra is False:
            return None
        value = compiler.visit(extra, f"{path}.additionalProperties")
        return f'{_key_rule(compiler.grammar, properties)} ws ":" ws {value}'
    word = "patternProperties" if patterns else "propertyNames"
    if properties or (patterns and (len(patterns) > 1 or named)):
        raise Uncompilable(f"{path}.{word}", "can be enforced alone only")
    beyond: Any
    if patterns:
        ((pattern, beyond),) = patterns.items()
    else:
        pattern = _name_pattern(named, path)
        beyond = True if extra is None else extra
        if beyond is False:
            return None
    try:
        key = pattern_rule(pattern)[0]
    except UnknownPattern as error:
        raise Uncompilable(f"{path}.{word}", f"cannot be enforced: {error}") from None
    return f'"\\"" {key} "\\"" ws ":" ws {compiler.visit(beyond, f"{path}.{word}")}'


def _name_pattern(named: Any, path: str) -> str:
    known = isinstance(named, dict) and set(named) - {"type", "description"} == {"pattern"}
    if not known or not isinstance(named["pattern"], str):
        raise Uncompilable(f"{path}.propertyNames", "can be enforced as a pattern only")
    return str(named["pattern"])


def _sizes(schema: Json, path: str) -> tuple[int, int | None]:
    low, high = schema.get("minProperties") or 0, schema.get("maxProperties")
    for name, value in (("minProperties", low), ("maxProperties", high)):
        if value is not None and (not isinstance(value, int) or not 0 <= value < _MOST_KEYS):
            raise Uncompilable(f"{path}.{name}", "must be a whole number, 0 or more")
    return low, high


def _map_rule(grammar: Grammar, extra: str | None, low: int, high: int | None, path: str) -> str:
    """An object of any keys; a key may come twice, so that more than one cannot be asked for."""
    if low > 1 or (low and extra is None):
        raise Uncompilable(f"{path}.minProperties", "of more than 1 cannot be enforced")
    if extra is None or high == 0:
        return grammar.add('"{" ws "}"')
    pair = grammar.add(extra)
    more = repeat(f'(ws "," ws {pair})', 0, None if high is None else high - 1)
    body = f"{pair} {more}"
    return grammar.add(f'"{{" ws {body if low else f"({body})?"} ws "}}"')


def _members(grammar: Grammar, members: list[tuple[str, bool]], extra: str | None) -> str:
    """All members in order; from the back, so that each rule is written once.

    ``after[i]`` is what may follow once a member has been written, ``first[i]`` what may be when
    none has.
    """
    more = ""
    start = ""
    if extra is not None:
        pair = grammar.add(extra)
        more = grammar.add(f'(ws "," ws {pair})*')
        start = grammar.add(f"({pair} {more})?")
    for text, needed in reversed(members):
        member = grammar.add(text)
        with_it = f"{member} {more}".rstrip()
        start = with_it if needed else (f"({with_it} | {start})" if start else f"({with_it})?")
        following = f'ws "," ws {with_it}'
        # ``more`` again behind an absent member: what comes later may still come.
        more = grammar.add(following if needed else _absent(following, more))
        start = grammar.add(start)
    return start


def _absent(following: str, more: str) -> str:
    return f"{following} | {more}" if more else f"({following})?"


def _key_rule(grammar: Grammar, taken: Iterable[str]) -> str:
    """A key as a JSON string, none of those that are taken; without escapes, which could spell
    one of them in another way."""
    names = [name for name in taken if name.isprintable() and '"' not in name and "\\" not in name]
    if not names:
        return grammar.use("string")
    return f'"\\"" {_other_than(grammar, sorted(names))}'


def _other_than(grammar: Grammar, names: list[str]) -> str:
    """The rest of a key, its closing quote included, that is none of ``names``."""
    grammar.use("plain")
    heads: dict[str, list[str]] = {}
    for name in names:
        if name:
            heads.setdefault(name[0], []).append(name[1:])
    options = [f"{literal(head)} {_other_than(grammar, rest)}" for head, rest in heads.items()]
    others = "".join(class_char(head) for head in heads)
    options.append(f'[^{others}"\\\\\\x7F\\x00-\\x1F] plain* "\\""')
    if "" not in names:
        options.append('"\\""')
    return grammar.add(" | ".join(options))
