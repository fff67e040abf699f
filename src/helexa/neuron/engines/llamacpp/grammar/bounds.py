"""Bounds that llama.cpp's own compiler of schemas can be given; found by trying, 2026.10.

::

    {"minLength": 5, "maxLength": 2}    ─▶  x{5,2}, counted down past zero: it never ends
    {"minimum": 9007199254740991}       ─▶  the same, for want of digits above so many
    {"minimum": -1e40}                  ─▶  the process ends

Each of these takes the engine from everybody, so what is not surely sane is left out.
"""

from __future__ import annotations

import math
from typing import Any

_COUNTS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_LOW, _HIGH = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")
_MOST_LEAST = 1000
"""A least count is written out; the engine refuses some thousands."""
_MOST_COUNT = 2**31 - 1
_MOST_NUMBER = 2**53 - 1
_MOST_ALONE = 10**15
"""A bound without the other one needs digits to spare."""


def sane_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without the bounds of its own that no engine should see; pure."""
    odd: set[str] = set()
    for low, high in _COUNTS:
        odd |= _odd_counts(schema, low, high)
    odd |= _odd_numbers(schema)
    return {name: value for name, value in schema.items() if name not in odd}


def _odd_counts(schema: dict[str, Any], low: str, high: str) -> set[str]:
    odd = {
        name
        for name, most in ((low, _MOST_LEAST), (high, _MOST_COUNT))
        if name in schema and not (type(schema[name]) is int and 0 <= schema[name] <= most)
    }
    if low in schema and high in schema and not odd and schema[low] > schema[high]:
        odd = {low, high}
    return odd


def _odd_numbers(schema: dict[str, Any]) -> set[str]:
    odd = {name for name in (*_LOW, *_HIGH) if name in schema and not _number(schema[name])}
    lows = {name: schema[name] for name in _LOW if name in schema and name not in odd}
    highs = {name: schema[name] for name in _HIGH if name in schema and name not in odd}
    if lows and highs:
        least = max(value + (name != "minimum") for name, value in lows.items())
        most = min(value - (name != "maximum") for name, value in highs.items())
        return odd | set(lows) | set(highs) if math.ceil(least) > math.floor(most) else odd
    return odd | {name for name, value in (lows | highs).items() if abs(value) >= _MOST_ALONE}


def _number(value: object) -> bool:
    """Whether it is one, and one that the engine reads as it stands."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) and abs(value) <= _MOST_NUMBER
