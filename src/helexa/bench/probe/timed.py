"""What one timed stream gave."""

from __future__ import annotations

import msgspec

REFUSED = frozenset((429, 503))


class Timed(msgspec.Struct, frozen=True):
    """One request, timed.

    Args:
        status: HTTP status; 0 when none came.
        error: Why it is no good; empty when it is.
        refused: It was told to come back later: neither slow nor failed.
        sent_at: Seconds on the clock of ``time.perf_counter``.
        first_ms: From the request's last byte out to the first non-empty delta of any kind.
        last_ms: To the last one.
        total_ms: To the end of the answer.
        gaps_ms: Between events that carried something.
        tokens: Output tokens by the server's usage, else events counted.
        counted: ``tokens`` is the server's word.
        server_rate: Tokens per second by the server's own clock.
        queue_ms: Wait for a seat as the server reported it.
    """

    status: int = 0
    error: str = ""
    refused: bool = False
    sent_at: float = 0.0
    first_ms: float | None = None
    last_ms: float | None = None
    total_ms: float = 0.0
    gaps_ms: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    tokens: int = 0
    counted: bool = False
    cached: int | None = None
    server_rate: float | None = None
    queue_ms: float | None = None
    text: str = ""
    finish_reason: str | None = None

    @property
    def ok(self) -> bool:
        """Answered to its end."""
        return not self.error and not self.refused

    @property
    def rate(self) -> float | None:
        """Decoded tokens per second: the server's word, else from first to last window."""
        if self.server_rate is not None:
            return self.server_rate
        if self.first_ms is None or self.last_ms is None or self.last_ms <= self.first_ms:
            return None
        return (
            (self.tokens - 1) / (self.last_ms - self.first_ms) * 1000 if self.tokens > 1 else None
        )

    @property
    def mean_gap_ms(self) -> float | None:
        """Mean time between tokens."""
        return None if self.rate is None else 1000 / self.rate
