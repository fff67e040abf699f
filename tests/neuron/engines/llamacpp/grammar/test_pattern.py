from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.neuron.engines.llamacpp.grammar.gbnf import expanded

from helexa.neuron.engines.llamacpp.grammar import Grammar
from helexa.neuron.engines.llamacpp.grammar.formats import FORMATS
from helexa.neuron.engines.llamacpp.grammar.pattern import UnknownPattern, pattern_rule

ONE = st.sampled_from(
    ["a", "b", "1", ".", r"\d", r"\W", r"\x61", r"\u0062", r"\.", "-", "[ab]", "[^a]", "[^0-9a]",
     r"[\d.]", r"[\D]", "[-a]", "[a-]", "[.-1]"]
)  # fmt: skip
PATTERNS = st.recursive(
    ONE,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{1,}", "{0,2}", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
        inner.map(lambda one: f"(?<name>{one})"),
    ),
    max_leaves=8,
)


def holds(pattern: str, text: str) -> bool:
    """Whether the grammar lets ``text`` through."""
    return re.fullmatch(expanded(Grammar(), pattern_rule(pattern)[0]), text) is not None


@given(PATTERNS, st.lists(st.text("ab1.-", max_size=6), max_size=8))
def test_a_grammar_lets_through_what_the_pattern_matches(pattern: str, texts: list[str]) -> None:
    python = re.compile(pattern.replace("(?<name>", "("))
    for text in texts:
        matches = python.fullmatch(text) is not None
        assert holds(pattern, text) == matches, (pattern, text)
        _, least, most = pattern_rule(pattern)
        assert not matches or least <= len(text) <= most


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^(a|b)$", ["a", "b"], ["", "ab"]),
        ("^a$|^b$", ["a", "b"], ["ab"]),
        ("a|", ["a", ""], ["b"]),
        ("a{,3}", ["a{,3}"], ["aaa"]),
        ("x{", ["x{"], ["x"]),
        ("(?P<word>a)", ["a"], ["b"]),
        ("[^]", ["a", "]"], ["", "aa"]),
        (r"[\]]", ["]"], ["a"]),
        (FORMATS["ipv4"], ["127.0.0.1"], ["256.0.0.1"]),
    ],
)
def test_patterns_are_read_as_ecma_262_writes_them(
    pattern: str, yes: list[str], no: list[str]
) -> None:
    assert [text for text in yes if not holds(pattern, text)] == []
    assert [text for text in no if holds(pattern, text)] == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(?=a)b", "look-around"),
        ("(?<!a)b", "look-around"),
        (r"(a)\1", "back-references"),
        (r"\bword", "word boundaries"),
        (r"\p{L}", "properties of Unicode"),
        ("(?i)a", "flags"),
        ("a(^b)", "an anchor"),
        ("a$b", "an anchor"),
        ("[]", "a class of nothing"),
        ("[\x01-\x02]", "control characters"),
        (r"[^\D]", "negated"),
        (r"\A", "means nothing"),
        *((one, "it cannot be read") for one in ("(a", "a)", "[a", "[b-a]", "a{2,1}", "*", "a**")),
        ("(" * 100_000, "too deeply"),
    ],
)
def test_what_a_grammar_cannot_hold_is_refused_by_name(pattern: str, why: str) -> None:
    with pytest.raises(UnknownPattern, match=why):
        pattern_rule(pattern)
