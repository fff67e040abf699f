"""A device's memory as a picture: what is used, what a model would take, what stays free.

::

    ▕█████▓▓▓▓▓▓▓▓▒▒▒░╱╱··       ▏        fits
    ▕█████▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▓▏▓▓▓▓▓▓  what stands beyond the edge is too much
"""

from __future__ import annotations

from typing import NamedTuple

import click

from helexa.core.outlook import MemoryUse

WIDTH = 48
ABREAST = 3
"""Parts on a line of the legend."""

_KINDS = (
    ("in use", "█", "bright_black"),
    ("weights", "▓", "blue"),
    ("KV", "▒", "cyan"),
    ("prompt cache", "░", "green"),
    ("working memory", "╱", "yellow"),
    ("left free", "·", None),
)


class Part(NamedTuple):
    """One kind of memory (MiB) and how it is drawn."""

    name: str
    mb: int
    glyph: str
    colour: str | None


def parts_of(use: MemoryUse) -> list[Part]:
    """The parts from left to right; what is left free is the headroom that remains."""
    used = use.total_mb - use.free_mb
    left = max(0, min(use.headroom_mb, use.free_mb - use.needed_mb))
    sizes = (used, use.weights_mb, use.kv_mb, use.prompt_cache_mb, use.other_mb, left)
    return [Part(name, mb, glyph, colour)
            for (name, glyph, colour), mb in zip(_KINDS, sizes, strict=True)]  # fmt: skip


def cells_of(parts: list[Part], scale: float) -> list[tuple[Part, int]]:
    """Cells of each part; edges are rounded, so that the sum is right, and what is there shows."""
    found, at, edge = [], 0.0, 0
    for part in parts:
        at += part.mb
        upto = max(round(at * scale), edge + (1 if part.mb else 0))
        found.append((part, upto - edge))
        edge = upto
    return found


def lines_of(use: MemoryUse) -> list[str]:
    """The bar and its legend, on as few lines as a narrow terminal does not break."""
    parts = parts_of(use)
    whole = sum(part.mb for part in parts)
    scale = WIDTH / max(1, use.total_mb, whole)
    edge = round(use.total_mb * scale)
    cells = [(part, n) for part, n in cells_of(parts, scale) for _ in range(n)]
    drawn = [click.style(part.glyph, fg=part.colour) for part, _ in cells]
    drawn += [" "] * (edge - len(drawn))
    bar = "▕" + "".join(drawn[:edge]) + "▏" + "".join(drawn[edge:])
    legend = [f"{click.style(p.glyph, fg=p.colour)} {p.name} {size(p.mb)}" for p in parts if p.mb]
    rows = [legend[at : at + ABREAST] for at in range(0, len(legend), ABREAST)]
    return [f"{bar}  {_sum(use)}", *("   ".join(row) for row in rows)]


def _sum(use: MemoryUse) -> str:
    over = use.needed_mb - use.usable_mb
    needs = f"needs {size(use.needed_mb)}, {size(use.free_mb)} of {size(use.total_mb)} free"
    return f"{needs}: {click.style(f'{size(over)} short', fg='red')}" if over > 0 else needs


def size(mb: float) -> str:
    """MiB as people read them."""
    return f"{mb:.0f} MiB" if mb < 1000 else f"{mb / 1024:.1f} GiB"
