"""Regular expressions as GBNF.

What a pattern accepts inside a JSON string is written as it stands there: quotes and backslashes
escaped, control characters left out. A pattern without anchors is taken as the whole string,
which is a part of what it means.
"""

from __future__ import annotations

from helexa.neuron.engines.llamacpp.grammar.regex import (
    Chars,
    Choice,
    Edge,
    Item,
    Repeat,
    UnknownPattern,
    parse,
)
from helexa.neuron.engines.llamacpp.grammar.text import class_char, either, literal, repeat

_CLASSES = {"d": "0-9", "w": "a-zA-Z0-9_", "s": " "}
_NOT_PLAIN = '"\\\\\\x7F\\x00-\\x1F'
_NOTHING = '""'
_CONTROLS = 0x20
_ENDLESS = 1 << 32
"""More characters than any string has."""

__all__ = ["UnknownPattern", "pattern_rule"]


def pattern_rule(pattern: str) -> tuple[str, int, int]:
    """GBNF for the inside of a JSON string that matches, and its least and most characters.

    Raises:
        UnknownPattern: No regular expression, or one with look-around or back-references.
    """
    tree = parse(pattern)
    low, high = _width(tree)
    return _choice(tree, first=True, last=True), low, min(high, _ENDLESS)


def _width(item: Item) -> tuple[int, int]:
    """The least and the most characters."""
    if isinstance(item, Chars):
        return 1, 1
    if isinstance(item, Edge):
        return 0, 0
    if isinstance(item, Repeat):
        low, high = _width(item.item)
        times = _ENDLESS if item.high is None else item.high
        return low * item.low, min(high * times, _ENDLESS)
    widths = [[_width(one) for one in option] for option in item.options]
    return (
        min(sum(low for low, _ in option) for option in widths),
        max(sum(high for _, high in option) for option in widths),
    )


def _choice(choice: Choice, *, first: bool, last: bool) -> str:
    """One of the sequences; ``first`` and ``last`` where nothing stands before or behind it."""
    return either(_sequence(list(one), first=first, last=last) for one in choice.options)


def _sequence(items: list[Item], *, first: bool, last: bool) -> str:
    if first and items and items[0] == Edge("^"):
        items = items[1:]
    if last and items and items[-1] == Edge("$"):
        items = items[:-1]
    end = len(items) - 1
    rules = [
        _item(item, first=first and index == 0, last=last and index == end)
        for index, item in enumerate(items)
    ]
    return " ".join(filter(None, rules)) or _NOTHING


def _item(item: Item, *, first: bool, last: bool) -> str:
    if isinstance(item, Edge):
        raise UnknownPattern("an anchor inside it is not supported")
    if isinstance(item, Chars):
        return _chars(item)
    if isinstance(item, Repeat):
        return repeat(f"({_item(item.item, first=False, last=False)})", item.low, item.high)
    return f"({_choice(item, first=first, last=last)})"


def _chars(chars: Chars) -> str:
    if chars.negated:
        return _outside(chars)
    if not chars.classes and len(chars.spans) == 1:
        low, high = chars.spans[0]
        if low == high:
            return literal(_in_json(chr(low)))
    inside = "".join(_CLASSES[name] for name in chars.classes if name.islower())
    extra = []
    for low, high in chars.spans:
        if low == high and chr(low) in '"\\':
            extra.append(literal(_in_json(chr(low))))
        else:
            inside += _span(low, high, negated=False)
    outside = [_CLASSES[name.lower()] for name in chars.classes if name.isupper()]
    options = [f"[{inside}]"] if inside else []
    options += [f"[^{names}{_NOT_PLAIN}]" for names in outside] + extra
    if not options:
        raise UnknownPattern("a class of control characters only is not supported")
    return either(options)


def _outside(chars: Chars) -> str:
    if any(name.isupper() for name in chars.classes):
        raise UnknownPattern("a negated class of negated classes is not supported")
    spans = "".join(_span(low, high, negated=True) for low, high in chars.spans)
    return f"[^{''.join(_CLASSES[name] for name in chars.classes)}{spans}{_NOT_PLAIN}]"


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
