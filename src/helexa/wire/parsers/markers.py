"""Finding markers in text that comes in pieces, holding back no more than could begin one."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Markers:
    """A set of fixed texts, searched for together."""

    __slots__ = ("_pattern", "_prefixes", "_width")

    def __init__(self, texts: Iterable[str]) -> None:
        self._prefixes = frozenset(text[:end] for text in texts for end in range(1, len(text)))
        longest = sorted(set(texts), key=len, reverse=True)
        self._width = max(map(len, longest), default=1) - 1
        self._pattern = re.compile("|".join(map(re.escape, longest)) or r"(?!)")

    def find(self, text: str) -> tuple[int, str] | None:
        """Place and text of the first marker."""
        found = self._pattern.search(text)
        return (found.start(), found.group()) if found else None

    def overlap(self, text: str) -> int:
        """How many characters at the end of ``text`` may be the beginning of a marker."""
        for length in range(min(self._width, len(text)), 0, -1):
            if text[-length:] in self._prefixes:
                return length
        return 0
