"""Tokens, times and caps as people write and read them on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+)([smhdw])")
_COUNT = re.compile(r"(\d[\d_,]*)([kKmMgG]?)")
_FACTORS = {"": 1, "k": 1000, "m": 1_000_000, "g": 1_000_000_000}


def seconds_of(text: str) -> int | None:
    """``90s``, ``15m``, ``24h``, ``30d`` or ``2w`` as seconds; None when it is none.

    A bare number is none: who writes 24 means hours, and who writes 30 means days.
    """
    match = _DURATION.fullmatch(text.strip())
    return None if match is None else int(match[1]) * _UNITS[match[2]]


def duration(seconds: float) -> str:
    """Seconds in the largest unit that divides them: ``1d``, ``90m``."""
    whole = round(seconds)
    for unit in ("w", "d", "h", "m"):
        if whole and whole % _UNITS[unit] == 0:
            return f"{whole // _UNITS[unit]}{unit}"
    return f"{whole}s"


class CapType(click.ParamType[dict[str, Any]]):
    """``TOKENS`` that never renew, or ``TOKENS/WINDOW`` for a rolling window."""

    name = "tokens[/window]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        count, _, window = str(value).partition("/")
        match = _COUNT.fullmatch(count.strip())
        seconds = seconds_of(window) if window else None
        if match is None or (window and not seconds):
            self.fail(
                f"{value!r} is not a cap; write tokens such as 2m, or tokens and a window "
                "with its unit such as 500k/24h",
                param,
                ctx,
            )
        tokens = int(match[1].replace("_", "").replace(",", "")) * _FACTORS[match[2].lower()]
        if seconds is None:
            return {"tokens": tokens, "window": {"kind": "balance"}}
        return {"tokens": tokens, "window": {"kind": "rolling", "seconds": seconds}}


class WhenType(click.ParamType[float]):
    """A date, or a duration from now."""

    name = "date|duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        text = str(value)
        seconds = seconds_of(text)
        if seconds is not None:
            return (datetime.now(UTC) + timedelta(seconds=seconds)).timestamp()
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is neither a date such as 2027-01-31 nor a time such as 30d",
                      param, ctx)  # fmt: skip
        return (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()


class SpanType(click.ParamType[float]):
    """A duration in seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = seconds_of(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration; write for example 90s, 15m, 24h or 30d", param,
                      ctx)  # fmt: skip
        return float(seconds)


def cap_words(cap: dict[str, Any]) -> str:
    """A cap as ``CapType`` reads it."""
    window = cap["window"]
    shown = tokens_words(cap["tokens"])
    return f"{shown}/{duration(window['seconds'])}" if window["kind"] == "rolling" else shown


def tokens_words(tokens: int) -> str:
    """Tokens with the largest unit that loses nothing: ``2m``, ``1500k``, ``1,234``."""
    for unit, factor in (("g", 10**9), ("m", 10**6), ("k", 1000)):
        if tokens and tokens % factor == 0:
            return f"{tokens // factor}{unit}"
    return f"{tokens:,}"


def date_words(at: float | None) -> str:
    """Epoch seconds as a date in UTC, with the time of day unless it is midnight."""
    if at is None:
        return ""
    when = datetime.fromtimestamp(at, UTC)
    midnight = (when.hour, when.minute, when.second) == (0, 0, 0)
    return when.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M")
