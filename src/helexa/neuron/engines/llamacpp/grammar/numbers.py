"""Numbers between bounds, as GBNF over their decimal digits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from helexa.neuron.engines.llamacpp.grammar.text import either, literal

_MOST_DIGITS = 16  # of an integer: 2^53 has as many
_FRACTION = 15
_NONZERO = '"0"{0,4} [1-9] [0-9]{0,4}'
_TAIL = '("." [0-9]{1,15})?'


@dataclass(frozen=True, slots=True)
class Bounds:
    """``low ≤ x ≤ high``; None is no bound, the flags leave the bound itself out."""

    low: Decimal | None = None
    high: Decimal | None = None
    above: bool = False
    below: bool = False

    @property
    def free(self) -> bool:
        """No bound at all."""
        return self.low is None and self.high is None

    def holds(self, value: Decimal) -> bool:
        """Whether ``value`` is inside."""
        low, high = self.low, self.high
        fits = low is None or (value > low if self.above else value >= low)
        return fits and (high is None or (value < high if self.below else value <= high))


@lru_cache(256)  # the same few bounds come again and again
def integer_rule(bounds: Bounds) -> str | None:
    """Integers within; None when there is none."""
    low, high = bounds.low, bounds.high
    first = None if low is None else _ceil(low, bounds.above)
    last = None if high is None else _floor(high, bounds.below)
    if first is not None and last is not None and first > last:
        return None
    parts = []
    if first is None or first < 0:
        top = -min(last, -1) if last is not None else 1
        parts += ['"-" ' + p for p in _naturals(top, None if first is None else -first)]
    if last is None or last >= 0:
        parts += _naturals(max(first or 0, 0), last)
    return either(parts)


@lru_cache(256)
def number_rule(bounds: Bounds) -> str | None:
    """Decimal numbers within, to 15 places; None when there is none."""
    low, high = bounds.low, bounds.high
    parts: list[str] = []
    zero = Decimal(0)
    if low is None or low < 0:
        negative = Bounds(
            zero if high is None or high >= 0 else -high,
            None if low is None else -low,
            above=high is None or high >= 0 or bounds.below,
            below=bounds.above,
        )
        parts += ['"-" ' + p for p in _magnitudes(negative)]
    if high is None or high >= 0:
        inner = low is not None and low >= 0
        parts += _magnitudes(
            Bounds(low if inner else zero, high, bounds.above and inner, bounds.below)
        )
    return either(parts) if parts else None


def _magnitudes(bounds: Bounds) -> list[str]:
    """Non-negative numbers within; ``low`` is given."""
    low, high = bounds.low or Decimal(0), bounds.high
    if high is not None and (low > high or (low == high and (bounds.above or bounds.below))):
        return []
    first = int(low)
    if high is None:
        return [*_around(first, bounds), *(p + " " + _TAIL for p in _naturals(first + 1, None))]
    last = int(high)
    parts = _around(first, bounds)
    if last > first:
        if last > first + 1:
            parts += [p + " " + _TAIL for p in _naturals(first + 1, last - 1)]
        parts += _around(last, bounds)
    return parts


def _around(whole: int, bounds: Bounds) -> list[str]:
    """Numbers whose integer part is ``whole``, within.

    ::

        whole.bottom ≤ x ≤ whole.top   with both as digits of one width
        digits strictly between them may be followed by any; the bounds' own only by some
    """
    low, high = bounds.low or Decimal(0), bounds.high
    parts = [literal(str(whole))] if bounds.holds(Decimal(whole)) else []
    places = max(1, _places(low), _places(high))
    scale = 10**places
    bottom = int((low - whole) * scale) if low > whole else 0
    open_top = high is None or high >= whole + 1
    top = scale if high is None or open_top else int((high - whole) * scale)
    rest = _FRACTION - places
    free = f" [0-9]{{0,{rest}}}" if rest > 0 else ""
    start = literal(f"{whole}.")
    parts += [f"{start} {p}{free}" for p in _padded(bottom + 1, top - 1, places)]
    digits = literal(f"{bottom:0{places}}")
    strict = bounds.above and low >= whole
    if bottom < top:
        parts.append(f"{start} {digits} {_NONZERO}" if strict else f"{start} {digits}{free}")
    if top < scale and not bounds.below and not (bottom == top and strict):
        parts.append(f'{start} {literal(f"{top:0{places}}")} "0"{{0,2}}')
    return parts


def _naturals(low: int, high: int | None) -> list[str]:
    """Natural numbers without leading zeros; without ``high``, of up to 16 digits."""
    if high is None:
        digits = max(_MOST_DIGITS, len(str(low)))
        parts = _naturals(low, 10 ** len(str(low)) - 1)
        if digits > len(str(low)):
            parts.append(f"[1-9] [0-9]{{{len(str(low))},{digits - 1}}}")
        return parts
    parts = []
    for width in range(len(str(low)), len(str(high)) + 1):
        start = max(low, 10 ** (width - 1) if width > 1 else 0)
        parts += _padded(start, min(high, 10**width - 1), width)
    return parts


def _padded(low: int, high: int, width: int) -> list[str]:
    """Digit strings of ``width`` between two numbers, both included."""
    if low > high:
        return []
    return _digits(f"{low:0{width}}", f"{high:0{width}}")


def _digits(low: str, high: str) -> list[str]:
    if low == high:
        return [literal(low)]
    shared = next(i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a != b)
    start = literal(low[:shared]) + " " if shared else ""
    a, b, rest = low[shared], high[shared], len(low) - shared - 1
    if rest == 0:
        return [f"{start}[{a}-{b}]"]
    parts = []
    full_low, full_high = set(low[shared + 1 :]) == {"0"}, set(high[shared + 1 :]) == {"9"}
    if not full_low:
        parts += [f'{start}"{a}" {p}' for p in _digits(low[shared + 1 :], "9" * rest)]
        a = chr(ord(a) + 1)
    above = b if full_high else chr(ord(b) - 1)
    if a <= above:
        parts.append(f"{start}[{a}-{above}] [0-9]{{{rest}}}")
    if not full_high:
        parts += [f'{start}"{b}" {p}' for p in _digits("0" * rest, high[shared + 1 :])]
    return parts


def _places(value: Decimal | None) -> int:
    if value is None:
        return 0
    exponent = value.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _ceil(value: Decimal, above: bool) -> int:
    whole = int(value.to_integral_value(rounding="ROUND_CEILING"))
    return whole + 1 if above and whole == value else whole


def _floor(value: Decimal, below: bool) -> int:
    whole = int(value.to_integral_value(rounding="ROUND_FLOOR"))
    return whole - 1 if below and whole == value else whole
