"""Reads regular expressions as JSON Schema means them, those of ECMA-262, into a small tree.

::

    Choice ─▶ sequences of   Chars │ Edge │ Repeat of one item │ Choice (a group)

What a grammar cannot hold (look-around, back-references, word boundaries, properties of Unicode)
is refused by name; so is what only other languages know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

_QUANTIFIER = re.compile(r"([*+?])|\{(\d+)(,?)(\d*)\}")
_OPENED = re.compile(r"\?(?::|P?<(?![=!])[^>]*>)")  # also as Python writes names
_HEX = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}")
_CONTROL = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13, "0": 0}
_FOREIGN = {
    "p": "properties of Unicode", "P": "properties of Unicode", "b": "word boundaries",
    "B": "word boundaries", "k": "back-references",
} | dict.fromkeys("123456789", "back-references")  # fmt: skip


class UnknownPattern(ValueError):
    """A construct that a grammar cannot hold; the message names it."""


@dataclass(frozen=True, slots=True)
class Chars:
    """One character.

    Args:
        spans: Code points, first and last.
        classes: Letters as after a backslash: ``d``, ``W``.
        negated: None of these.
    """

    spans: tuple[tuple[int, int], ...] = ()
    classes: tuple[str, ...] = ()
    negated: bool = False


ANY = Chars((), (), negated=True)


@dataclass(frozen=True, slots=True)
class Edge:
    """The beginning or the end of the text."""

    side: Literal["^", "$"]


@dataclass(frozen=True, slots=True)
class Repeat:
    """An item, from ``low`` to ``high`` times; None is without end."""

    item: Item
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these sequences."""

    options: tuple[tuple[Item, ...], ...]


Item = Chars | Edge | Repeat | Choice


def parse(pattern: str) -> Choice:
    """The tree of a pattern.

    Raises:
        UnknownPattern: It is none, or one that a grammar cannot hold.
    """
    reader = _Reader(pattern)
    try:
        found = reader.choice()
    except RecursionError:
        raise UnknownPattern("it is nested too deeply") from None
    if reader.at < len(pattern):
        raise UnknownPattern("it cannot be read: a ) without its (")
    return found


@dataclass(slots=True)
class _Reader:
    """Goes through a pattern once, from the left."""

    text: str
    at: int = field(default=0, init=False)

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _next(self) -> str:
        char = self._peek()
        if not char:
            raise UnknownPattern("it cannot be read: it ends too soon")
        self.at += 1
        return char

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self.text, self.at)
        if found is not None:
            self.at = found.end()
        return found

    def choice(self) -> Choice:
        """Up to the closing parenthesis, or the end."""
        options: list[tuple[Item, ...]] = []
        items: list[Item] = []
        while (char := self._peek()) not in ("", ")"):
            if char == "|":
                self.at += 1
                options.append(tuple(items))
                items = []
            else:
                items.append(self._quantified(self._item()))
        return Choice((*options, tuple(items)))

    def _item(self) -> Item:
        char = self._next()
        if char == "^":
            return Edge("^")
        if char == "$":
            return Edge("$")
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == ".":
            return ANY
        if char in "*+?":
            raise UnknownPattern("it cannot be read: nothing to repeat")
        return self._escaped() if char == "\\" else _char(ord(char))

    def _group(self) -> Choice:
        if self._peek() == "?" and self._take(_OPENED) is None:
            word = self.text[self.at + 1 : self.at + 3]
            look = word[:1] in ("=", "!") or word in ("<=", "<!")
            what = "look-around is" if look else "flags inside it are"
            raise UnknownPattern(f"{what} not supported")
        inner = self.choice()
        if self._next() != ")":
            raise UnknownPattern("it cannot be read: a ( without its )")
        return inner

    def _quantified(self, item: Item) -> Item:
        found = self._take(_QUANTIFIER)
        if found is None:
            return item
        if isinstance(item, Edge):
            raise UnknownPattern("it cannot be read: nothing to repeat")
        sign, low, comma, high = found.groups()
        if self._peek() == "?":  # as few as possible: the same texts
            self.at += 1
        if self._take(_QUANTIFIER) is not None:
            raise UnknownPattern("it cannot be read: a repeat of a repeat")
        if sign:
            return Repeat(item, int(sign == "+"), 1 if sign == "?" else None)
        least = int(low)
        most = int(high) if high else None if comma else least
        if most is not None and most < least:
            raise UnknownPattern("it cannot be read: a repeat from more to less")
        return Repeat(item, least, most)

    def _escaped(self, *, in_class: bool = False) -> Chars:
        """What follows a backslash."""
        found = self._take(_HEX)
        if found is not None:
            return _char(int(next(filter(None, found.groups())), 16))
        char = self._next()
        if char in "dDwWsS":
            return Chars((), (char,))
        if char in _CONTROL:
            return _char(_CONTROL[char])
        if char == "c" and self._peek().isascii() and self._peek().isalpha():
            return _char(ord(self._next()) % 32)
        if in_class and char == "b":
            return _char(8)
        if char in _FOREIGN:
            raise UnknownPattern(f"{_FOREIGN[char]} are not supported")
        if char.isalnum():
            raise UnknownPattern(f"it cannot be read: \\{char} means nothing")
        return _char(ord(char))

    def _class(self) -> Chars:
        negated = self._peek() == "^"
        self.at += negated
        spans: list[tuple[int, int]] = []
        classes: list[str] = []
        while self._peek() != "]":
            member = self._member()
            ranged = self._peek() == "-" and self.text[self.at + 1 : self.at + 2] not in ("]", "")
            if member.classes or not ranged:
                spans += member.spans
                classes += member.classes
                continue
            self.at += 1
            last = self._member()
            if last.classes or last.spans < member.spans:
                raise UnknownPattern("it cannot be read: a range that is none")
            spans.append((member.spans[0][0], last.spans[0][1]))
        self.at += 1
        if not (negated or spans or classes):
            raise UnknownPattern("a class of nothing matches nothing")
        return Chars(tuple(spans), tuple(classes), negated)

    def _member(self) -> Chars:
        char = self._next()
        return self._escaped(in_class=True) if char == "\\" else _char(ord(char))


def _char(code: int) -> Chars:
    return Chars(((code, code),))
