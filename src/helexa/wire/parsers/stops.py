"""Stop strings, for engines that do not look for them themselves."""

from __future__ import annotations

from collections.abc import Iterable

from helexa.wire.parsers.markers import Markers


class StopText:
    """Lets text through up to the first of the client's stop strings.

    Args:
        stops: As the client sent them; empty ones stop nothing.
    """

    __slots__ = ("_held", "_markers", "hit")

    def __init__(self, stops: Iterable[str]) -> None:
        self._markers = Markers([stop for stop in stops if stop])
        self._held = ""
        self.hit: str | None = None

    def feed(self, text: str) -> str:
        """What may go on; nothing after a hit."""
        if self.hit is not None:
            return ""
        held = self._held + text
        found = self._markers.find(held)
        if found is not None:
            at, self.hit = found
            self._held = ""
            return held[:at]
        keep = len(held) - self._markers.overlap(held)
        self._held = held[keep:]
        return held[:keep]

    def end(self) -> str:
        """What was held back and is no stop string now."""
        held, self._held = self._held, ""
        return held
