"""What a request cost, in tokens, and where its time went."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True):
    """Token counts of one request; integers, never negative.

    ``cached`` is a part of ``prompt``; ``reasoning`` is a part of ``completion``. With several
    choices ``completion`` is their sum.
    """

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Billed tokens: prompt (cached included) + completion."""
        return self.prompt + self.completion


class Timings(msgspec.Struct, frozen=True, omit_defaults=True):
    """The ``timings`` member of a usage chunk: tokens, and milliseconds as floats."""

    prompt_n: int = 0
    cache_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0
