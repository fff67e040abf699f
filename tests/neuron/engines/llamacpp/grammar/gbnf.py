"""Grammars as expressions of Python's, where they do not come back to themselves."""

from __future__ import annotations

import re

from helexa.neuron.engines.llamacpp.grammar import Grammar

_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|(\[(?:[^\]\\]|\\.)*\])|([a-z]+\d*)|(\S)')


def expanded(grammar: Grammar, body: str) -> str:
    """A rule that does not come back to itself, as an expression of Python's."""
    out = []
    for literal, kind, name, sign in _PIECE.findall(body):
        if name:
            out.append(f"(?:{expanded(grammar, grammar.rules[name])})")
        elif kind or sign:
            out.append(kind or sign)
        else:
            out.append(re.escape(literal.replace('\\"', '"')))
    return "".join(out)
