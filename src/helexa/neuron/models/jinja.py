"""A chat template taken apart without running it.

A template is a program from a stranger. What it can do is read here from its text, in one pass
whose time is linear in its length; nothing is rendered and no template engine is involved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["text", "code"]
_CLOSING = {"{%": "%}", "{{": "}}"}


class Piece(NamedTuple):
    """``text`` between the tags, or the ``code`` of a statement or an expression."""

    kind: Kind
    content: str


def pieces(source: str) -> Iterator[Piece]:
    """Text and code of a template in order; comments are left out.

    A tag ends at the first closing mark that is not inside a string, as in Jinja's own lexer;
    one that is never closed ends the template.
    """
    at = 0
    while True:
        start = source.find("{", at)
        while start >= 0 and source[start : start + 2] not in ("{%", "{{", "{#"):
            start = source.find("{", start + 1)
        if start < 0:
            yield Piece("text", source[at:])
            return
        if start > at:
            yield Piece("text", source[at:start])
        opening = source[start : start + 2]
        if opening == "{#":
            end = source.find("#}", start + 2)
            if end < 0:
                return
        else:
            end = _end_of_code(source, start + 2, _CLOSING[opening])
            if end < 0:
                return
            yield Piece("code", source[start + 2 : end])
        at = end + 2


def without_comments(source: str) -> str:
    """A template without its comments; one that is never closed ends it."""
    kept, at = [], 0
    while (start := source.find("{#", at)) >= 0:
        kept.append(source[at:start])
        end = source.find("#}", start + 2)
        if end < 0:
            return "".join(kept)
        at = end + 2
    return "".join([*kept, source[at:]])


def _end_of_code(source: str, at: int, closing: str) -> int:
    """Where ``closing`` stands outside strings and brackets; -1 when nowhere."""
    quote, depth = "", 0
    while at < len(source):
        letter = source[at]
        if quote:
            if letter == "\\":
                at += 1
            elif letter == quote:
                quote = ""
        elif letter in "'\"":
            quote = letter
        elif not depth and letter == closing[0] and source.startswith(closing, at):
            return at
        elif letter in "{[(":
            depth += 1
        elif letter in ")]}" and depth:
            depth -= 1
        at += 1
    return -1


def literals(code: str) -> list[str]:
    """The strings in a piece of code, as written (escapes untouched)."""
    return _split(code)[1]


def without_strings(code: str) -> str:
    """Code with every string emptied, so that names in it are names."""
    return _split(code)[0]


def _split(code: str) -> tuple[str, list[str]]:
    outside: list[str] = []
    inside: list[str] = []
    at, start, quote = 0, 0, ""
    while at < len(code):
        letter = code[at]
        if not quote and letter in "'\"":
            outside.append(code[start:at] + "''")
            quote, start = letter, at + 1
        elif quote and letter == "\\":
            at += 1
        elif quote and letter == quote:
            inside.append(code[start:at])
            quote, start = "", at + 1
        at += 1
    if not quote:
        outside.append(code[start:])
    return "".join(outside), inside
