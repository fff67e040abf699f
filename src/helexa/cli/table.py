"""Tables and bars of plain text; columns that say nothing are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

_EIGHTHS = " ▏▎▍▌▋▊▉"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], align: str = "", *, keep: int = 1
) -> list[str]:
    """Lines of a table.

    Args:
        heads: One per column.
        align: One of ``<`` and ``>`` per column; ``<`` for those that are missing.
        keep: How many columns stay even when they are empty.
    """
    used = [i for i in range(len(heads)) if i < keep or any(row[i] for row in rows)]
    widths = {i: max(len(heads[i]), *(len(row[i]) for row in rows), 0) for i in used}
    sides: dict[int, str] = {i: align[i] if i < len(align) else "<" for i in used}
    return [
        "  ".join(f"{row[i]:{sides[i]}{widths[i]}}" for i in used).rstrip()
        for row in (heads, *rows)
    ]


def bar(value: float, most: float, width: int, glyphs: Literal["blocks", "ascii"]) -> str:
    """``value`` as a bar of at most ``width`` cells; anything above 0 shows something."""
    if most <= 0 or value <= 0 or width <= 0:
        return ""
    if glyphs == "ascii":
        return "#" * max(1, round(value / most * width))
    eighths = max(1, round(value / most * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
