"""Bounds as digits: what is inside matches, what is outside does not."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.neuron.engines.llamacpp.grammar.numbers import Bounds, integer_rule, number_rule

_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|(\[[^\]]*\])|([(){}|*+?,0-9]+)|\s+')
PLACES = st.decimals(-999, 999, places=2, allow_nan=False, allow_infinity=False)


def as_regex(rule: str) -> re.Pattern[str]:
    """A rule without names of others, as an expression of Python's."""
    out = []
    for found in _PIECE.finditer(rule):
        text, kind, sign = found.groups()
        out.append(re.escape(text) if text is not None else kind or sign or "")
    return re.compile("".join(out))


def bounds(a: Decimal, b: Decimal, above: bool, below: bool) -> Bounds:
    return Bounds(min(a, b), max(a, b), above, below)


@given(PLACES, PLACES, st.booleans(), st.booleans(), PLACES)
def test_a_number_matches_when_it_is_within(
    a: Decimal, b: Decimal, above: bool, below: bool, value: Decimal
) -> None:
    found = bounds(a, b, above, below)
    rule = number_rule(found)
    for shown in (value, a, b):
        text = f"{shown:f}"
        matches = rule is not None and as_regex(rule).fullmatch(text) is not None
        if shown == 0 and text.startswith("-"):
            continue  # another spelling of a number that has one
        assert matches == found.holds(shown), (rule, text)


@given(st.integers(-5000, 5000), st.integers(-5000, 5000), st.integers(-6000, 6000))
def test_an_integer_matches_when_it_is_within(a: int, b: int, value: int) -> None:
    found = bounds(Decimal(a), Decimal(b), above=False, below=False)
    rule = integer_rule(found)
    assert rule is not None
    for shown in (value, a, b, a - 1, b + 1):
        assert (as_regex(rule).fullmatch(str(shown)) is not None) == found.holds(Decimal(shown))


@given(PLACES, st.booleans(), PLACES)
def test_one_bound_is_enough(low: Decimal, above: bool, value: Decimal) -> None:
    up, down = Bounds(low=low, above=above), Bounds(high=low, below=above)
    for found in (up, down):
        rule = number_rule(found)
        assert rule is not None
        if value != 0:
            matches = as_regex(rule).fullmatch(f"{value:f}") is not None
            assert matches == found.holds(value), (rule, value)


@pytest.mark.parametrize("text", ["9007199254740991", "-9007199254740991", "0", "17"])
def test_the_safe_integers_of_a_client_are_all_there(text: str) -> None:
    safe = Decimal(9007199254740991)
    rule = integer_rule(Bounds(-safe, safe))
    assert rule is not None
    assert as_regex(rule).fullmatch(text)
    assert not as_regex(rule).fullmatch("9007199254740992")


def test_bounds_without_a_number_between_them_have_no_rule() -> None:
    assert integer_rule(Bounds(Decimal("0.2"), Decimal("0.8"))) is None
    assert number_rule(Bounds(Decimal(1), Decimal(1), above=True)) is None
