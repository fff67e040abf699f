"""Regular expressions as GBNF, by way of Python's own parser of them.

What a pattern accepts inside a JSON string is written as it stands there: quotes and backslashes
escaped, control characters left out. A pattern without anchors is taken as the whole string,
which is a part of what it means.
"""

from __future__ import annotations

import re
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

from helexa.neuron.engines.llamacpp.grammar.text import class_char, either, literal, repeat

_DIGIT, _WORD, _SPACE = "0-9", "a-zA-Z0-9_", " "
_NOT_PLAIN = '"\\\\\\x7F\\x00-\\x1F'
_ANY = f"[^{_NOT_PLAIN}]"
_CATEGORIES = {
    codes.CATEGORY_DIGIT: (_DIGIT, False),
    codes.CATEGORY_NOT_DIGIT: (_DIGIT, True),
    codes.CATEGORY_WORD: (_WORD, False),
    codes.CATEGORY_NOT_WORD: (_WORD, True),
    codes.CATEGORY_SPACE: (_SPACE, False),
    codes.CATEGORY_NOT_SPACE: (_SPACE, True),
}
_GROUP_NAME = re.compile(r"\(\?<(?=[A-Za-z_])")
_CONTROLS = 0x20


class UnknownPattern(ValueError):
    """A construct that a grammar cannot hold; the message names it."""


def pattern_rule(pattern: str) -> tuple[str, int, int]:
    """GBNF for the inside of a JSON string that matches, and its least and most characters.

    Raises:
        UnknownPattern: No regular expression, or one with look-around or back-references.
    """
    try:
        tree = parser.parse(_GROUP_NAME.sub("(?P<", pattern))
    except (re.error, RecursionError) as error:
        raise UnknownPattern(f"it cannot be read: {error}") from None
    low, high = tree.getwidth()
    return _sequence(list(tree)) or '""', int(low), int(high)


def _sequence(items: list[tuple[Any, Any]]) -> str:
    if items and items[0] == (codes.AT, codes.AT_BEGINNING):
        items = items[1:]
    if items and items[-1] == (codes.AT, codes.AT_END):
        items = items[:-1]
    return " ".join(filter(None, (_item(code, value) for code, value in items)))


def _item(code: Any, value: Any) -> str:
    if code is codes.LITERAL:
        return literal(_in_json(chr(value)))
    if code is codes.ANY:
        return _ANY
    if code is codes.NOT_LITERAL:
        return f"[^{_escape(value)}{_NOT_PLAIN}]"
    if code is codes.IN:
        return _class(value)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        low, high, inner = value
        body = _sequence(list(inner)) or '""'
        return repeat(f"({body})", low, None if high is codes.MAXREPEAT else high)
    if code is codes.SUBPATTERN:
        _, add, drop, inner = value
        if add or drop:
            raise UnknownPattern("flags inside it are not supported")
        return f"({_sequence(list(inner)) or chr(34) * 2})"
    if code is codes.BRANCH:
        return either([_sequence(list(branch)) or '""' for branch in value[1]])
    raise UnknownPattern(f"{str(code).lower()} is not supported")


def _class(members: list[tuple[Any, Any]]) -> str:
    negated = members[0][0] is codes.NEGATE
    inside: list[str] = []
    outside: list[str] = []
    extra: list[str] = []
    for code, value in members[1:] if negated else members:
        if code is codes.CATEGORY:
            chars, inverse = _CATEGORIES[value]
            (outside if inverse else inside).append(chars)
        elif code is codes.LITERAL and not negated and chr(value) in '"\\':
            extra.append(literal(_in_json(chr(value))))
        else:
            low, high = value if code is codes.RANGE else (value, value)
            inside.append(_span(low, high, negated))
    if negated:
        if outside:
            raise UnknownPattern("a negated class of negated classes is not supported")
        return f"[^{''.join(inside)}{_NOT_PLAIN}]"
    options = [f"[{''.join(inside)}]"] if "".join(inside) else []
    options += [f"[^{chars}{_NOT_PLAIN}]" for chars in outside] + extra
    if not options:
        raise UnknownPattern("a class of control characters only is not supported")
    return either(options)


def _span(low: int, high: int, negated: bool) -> str:
    """A range of a class; without what a JSON string cannot hold as it is."""
    if negated:
        return _escape(low) if low == high else f"{_escape(low)}-{_escape(high)}"
    parts = []
    start = max(low, _CONTROLS)
    for barrier in (ord('"'), ord("\\"), 0x7F):
        if start <= barrier <= high:
            parts.append((start, barrier - 1))
            start = barrier + 1
    parts.append((start, high))
    spans = [(a, b) for a, b in parts if a <= b]
    return "".join(_escape(a) if a == b else f"{_escape(a)}-{_escape(b)}" for a, b in spans)


def _escape(code: int) -> str:
    return class_char(chr(code))


def _in_json(char: str) -> str:
    """A character as it stands inside a JSON string."""
    short = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if char in short:
        return short[char]
    return f"\\u{ord(char):04x}" if ord(char) < _CONTROLS else char
