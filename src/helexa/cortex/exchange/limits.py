"""``x-ratelimit-…`` lines as OpenAI sends them, for keys that have such limits.

https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers
"""

from __future__ import annotations

import math

from helexa.core.principal import Principal
from helexa.cortex.ledger.base import Ledger
from helexa.cortex.seats import KeySeats

_RESET_TOKENS = b"x-ratelimit-reset-tokens"


def limit_lines(principal: Principal, seats: KeySeats, ledger: Ledger, given: bytes) -> bytes:
    """Header lines: limit, what remains, and seconds until nothing of it is used any more.

    Args:
        given: Lines that the answer has already; a refusal knows better when to come again.
    """
    lines = b""
    minute = seats.room(principal) if principal.requests_per_minute is not None else None
    if minute is not None:
        lines = (
            b"x-ratelimit-limit-requests: %d\r\n"
            b"x-ratelimit-remaining-requests: %d\r\n"
            b"x-ratelimit-reset-requests: %ds\r\n"
        ) % (minute.limit, minute.remaining, math.ceil(minute.reset_s))
    room = ledger.room(principal)
    if room is not None:
        lines += b"x-ratelimit-limit-tokens: %d\r\nx-ratelimit-remaining-tokens: %d\r\n" % (
            room.limit,
            room.remaining,
        )
        if room.reset_s is not None and _RESET_TOKENS not in given:
            lines += b"x-ratelimit-reset-tokens: %ds\r\n" % math.ceil(room.reset_s)
    return lines
