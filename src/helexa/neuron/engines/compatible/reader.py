"""The seam for engines that hand their model's text over as it is.

What such an engine calls content may be thoughts and calls in the model's own markers. A
``Reader`` takes the text of one choice piece by piece and gives back what it means; ``wire``
parses, this says when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Delta = dict[str, Any]
"""A delta of clean chat with one member: ``content``, ``reasoning_content`` or ``tool_calls``."""

CallId = Callable[[int], str]
"""The id of a choice's n-th call, for calls that have none."""


class Reader(Protocol):
    """Reads the text of one choice."""

    def feed(self, text: str) -> list[Delta]:
        """What ``text`` adds; empty while it may still become a marker."""

    def thought(self, text: str) -> list[Delta]:
        """What a piece adds that the engine itself calls reasoning."""

    def end(self) -> list[Delta]:
        """What was held back, when the choice has ended."""


MakeReader = Callable[[CallId], Reader]
"""A fresh reader for each choice of one answer."""
