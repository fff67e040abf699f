"""GBNF as text: literals, character classes, repetitions, and the rules of JSON itself."""

from __future__ import annotations

from collections.abc import Iterable
from math import isqrt

_MOST_REPEATS = 1000  # llama.cpp refuses far longer ones, and compiles each repeat into a rule
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

# Lone surrogates are not text; whitespace is bounded, or a weak model never comes back from it.
BASE: dict[str, str] = {
    "ws": '| " " | "\\n" [ \\t]{0,20}',
    "char": '[^"\\\\\\x7F\\x00-\\x1F] | "\\\\" (["\\\\/bfnrt] | "u" unit)',
    "unit": "[0-9a-cA-CefEF] hex hex hex | [dD] [0-7] hex hex",
    "hex": "[0-9a-fA-F]",
    "plain": '[^"\\\\\\x7F\\x00-\\x1F]',
    "string": '"\\"" char* "\\""',
    "int": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "number": '"-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "object": '"{" ws (pair ("," ws pair)*)? "}"',
    "pair": 'string ws ":" ws value ws',
    "array": '"[" ws (value ws ("," ws value ws)*)? "]"',
    "value": "object | array | string | number | boolean | null",
}
_NEEDS: dict[str, tuple[str, ...]] = {
    "char": ("unit",),
    "unit": ("hex",),
    "string": ("char",),
    "object": ("ws", "pair"),
    "pair": ("string", "ws", "value"),
    "array": ("ws", "value"),
    "value": ("object", "array", "string", "number", "boolean", "null"),
}


def literal(text: str) -> str:
    """``text`` as a quoted GBNF literal."""
    out = []
    for char in text:
        code = ord(char)
        if char in _ESCAPED:
            out.append(_ESCAPED[char])
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02X}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def either(options: Iterable[str]) -> str:
    """One of the expressions; in parentheses when there are several."""
    listed = list(dict.fromkeys(options))
    return listed[0] if len(listed) == 1 else "(" + " | ".join(listed) + ")"


def repeat(item: str, low: int, high: int | None) -> str:
    """``item`` from ``low`` to ``high`` times (None: without end), in blocks where that is much.

    ::

        low ≤ n ≤ high   =   block{l, h} item{0, rest},   block = item{size}
    """
    item = f"({item})" if " " in item and not _closed(item) else item
    if high is None:
        return item + "*" if low == 0 else _blocks(item, low) + " " + item + "*"
    if high <= _MOST_REPEATS:
        return f"{item}{{{low},{high}}}" if high else '""'
    spare = high - low
    size = max(2, isqrt(spare))
    most = (spare - 1) // size  # a rest of one block or less stays for single items
    begin = _blocks(item, low) + " " if low else ""
    rest = spare - most * size
    return f"{begin}({item}{{{size}}}){{0,{most}}} {item}{{0,{rest}}}"


def _closed(item: str) -> bool:
    """One bracketed class or one group: repeats bind to all of it."""
    pairs = {"[": "]", "(": ")"}
    if item[0] not in pairs or item[-1] != pairs[item[0]]:
        return False
    if item[0] == "[":
        return "]" not in item[1:-1].replace("\\]", "")
    depth = 0
    for index, char in enumerate(item):
        depth += (char == "(") - (char == ")")
        if depth == 0:
            return index == len(item) - 1
    return False


def _blocks(item: str, times: int) -> str:
    if times <= _MOST_REPEATS:
        return f"{item}{{{times}}}"
    size = isqrt(times)
    rest = times - times // size * size
    return f"({item}{{{size}}}){{{times // size}}}" + (f" {item}{{{rest}}}" if rest else "")


def until(grammar: Grammar, mark: str) -> str:
    """A rule for any text up to and with the first ``mark``.

    One rule for each part of the mark that has been read; what follows leads to the longest part
    that the text now ends with, or begins anew.
    """
    names = [grammar.name() for _ in mark]
    for read, name in enumerate(names):
        options = []
        for char in dict.fromkeys(mark):
            text = mark[:read] + char
            ends = next(n for n in range(len(text), -1, -1) if text.endswith(mark[:n]))
            step = literal(char)
            options.append(step if ends == len(mark) else f"{step} {names[ends]}")
        others = "".join(class_char(char) for char in dict.fromkeys(mark))
        grammar.rules[name] = " | ".join([*options, f"[^{others}] {names[0]}"])
    return names[0]


def class_char(char: str) -> str:
    """A character inside a GBNF class."""
    if char in "\\]^-[":
        return "\\" + char if char in "\\][" else f"\\x{ord(char):02X}"
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02X}"
    return char


class Grammar:
    """Rules by name; the base rules come along when they are used."""

    def __init__(self) -> None:
        self.rules: dict[str, str] = {}
        self._named: dict[str, str] = {}
        self._fresh = 0

    def use(self, name: str) -> str:
        """A base rule, with what it needs; returns its name."""
        if name not in self.rules:
            self.rules[name] = BASE[name]
            for needed in _NEEDS.get(name, ()):
                self.use(needed)
        return name

    def name(self) -> str:
        """A rule name that is free."""
        self._fresh += 1
        return f"r{self._fresh}"

    def add(self, body: str) -> str:
        """A rule with ``body``, new unless there is one; returns its name."""
        name = self._named.get(body)
        if name is None:
            name = self._named[body] = self.name()
            self.rules[name] = body
        return name

    def render(self, root: str) -> str:
        """The grammar's text with ``root`` as its start."""
        lines = [f"root ::= {root}"]
        lines += [f"{name} ::= {body}" for name, body in self.rules.items()]
        return "\n".join(lines) + "\n"
