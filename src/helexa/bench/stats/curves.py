"""Curves over concurrency, context and offered load."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

KNEE_FACTOR = 2.0


class Level(msgspec.Struct, frozen=True):
    """One level of concurrency: streams at once, median first token (ms), refused requests."""

    concurrency: int
    first_token_ms: float
    throughput: float | None = None
    refused: int = 0


def knee(levels: Sequence[Level], factor: float = KNEE_FACTOR) -> int | None:
    """The largest level that refuses nobody at no more than ``factor`` × the light first token.

    Levels are looked at from below, and the first that fails ends it: a lucky higher one does
    not count. None without levels.
    """
    ordered = sorted(levels, key=lambda level: level.concurrency)
    if not ordered:
        return None
    light = ordered[0].first_token_ms
    best = None
    for level in ordered:
        if level.refused or level.first_token_ms > factor * light:
            break
        best = level.concurrency
    return best


def flatness(rate_by_context: Mapping[int, float]) -> float | None:
    """How well decoding holds over context: the rate's relative change per doubling of the prompt.

    The slope of log2(rate) over log2(prompt tokens) by least squares; 0 is flat, −0.1 loses
    about 7 % with every doubling. None with fewer than two sizes.
    """
    points = [(math.log2(n), math.log2(r)) for n, r in rate_by_context.items() if n > 0 and r > 0]
    if len(points) < 2:
        return None
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return None
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


def goodput(
    first_token_ms: Sequence[float | None],
    inter_token_ms: Sequence[float | None],
    *,
    first_within_ms: float,
    between_within_ms: float,
) -> float:
    """Share of requests whose first token and token gaps both met the objective.

    Args:
        first_token_ms: Per request; None for one that failed or was refused.
        inter_token_ms: Its mean gap; None when it had fewer than two tokens, which meets any.
    """
    if not first_token_ms:
        return 0.0
    met = sum(
        first is not None and first <= first_within_ms and (gap is None or gap <= between_within_ms)
        for first, gap in zip(first_token_ms, inter_token_ms, strict=True)
    )
    return met / len(first_token_ms)
