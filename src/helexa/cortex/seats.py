"""Per-key limits that are not tokens: requests per minute, and requests open at once.

One seat is taken per request and given back once, on whatever path the request ends. The minute
is any sixty seconds, not one of the clock: the time of the request that counts longest decides::

      ├── the last ``rate`` requests that were let in ──┤  now
      t₀                                                   └ refused while now < t₀ + 60
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from helexa.core.errors import RateLimitExceeded
from helexa.core.principal import Principal

MINUTE_S: Final = 60.0
OPEN_RETRY_S: Final = 1.0
"""Nobody knows when a request of the same key will end."""


class Seat:
    """A request's place under its key's limits; ``release`` may be called any number of times."""

    __slots__ = ("_state",)

    def __init__(self, state: _KeyState | None) -> None:
        self._state = state

    def release(self) -> None:
        """Give the seat back."""
        state, self._state = self._state, None
        if state is not None:
            state.open -= 1


class RequestRoom(NamedTuple):
    """What is left of a key's minute, as ``x-ratelimit-…-requests`` tells it.

    Args:
        reset_s: Seconds until nothing of it is used any more.
    """

    limit: int
    remaining: int
    reset_s: float


class _KeyState:
    """``times``: of the requests let in that may still count, at most as many as are allowed."""

    __slots__ = ("open", "times")

    def __init__(self) -> None:
        self.open = 0
        self.times: deque[float] = deque()


class KeySeats:
    """Who has how many requests open; grows with the key table only.

    Args:
        now: Monotonic seconds.
    """

    __slots__ = ("_free", "_now", "_states")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._states: dict[str, _KeyState] = {}
        self._free = Seat(None)

    def take(self, principal: Principal) -> Seat:
        """A seat for one request of this key.

        Raises:
            RateLimitExceeded: Too many open requests, or too many in the last minute.
        """
        if principal.max_concurrent is None and principal.requests_per_minute is None:
            return self._free
        state = self._states.get(principal.key_id)
        if state is None:
            state = self._states[principal.key_id] = _KeyState()
        most = principal.max_concurrent
        if most is not None and state.open >= most:
            raise RateLimitExceeded(
                f"This key has {state.open} requests open and may have {most}. "
                "Wait for one to end.",
                retry_after_s=OPEN_RETRY_S,
                limited="requests",
            )
        if principal.requests_per_minute is not None:
            self._count(state.times, principal.requests_per_minute)
        state.open += 1
        return Seat(state)

    def open(self, principal: Principal) -> int:
        """Requests this limited key has open now."""
        state = self._states.get(principal.key_id)
        return 0 if state is None else state.open

    def room(self, principal: Principal) -> RequestRoom | None:
        """What is left of the key's minute; None when its requests are not limited."""
        rate = principal.requests_per_minute
        if rate is None:
            return None
        state, now = self._states.get(principal.key_id), self._now()
        if state is None:
            return RequestRoom(rate, rate, 0.0)
        times = state.times
        _forget(times, now)
        reset = times[-1] + MINUTE_S - now if times else 0.0
        return RequestRoom(rate, max(0, rate - len(times)), reset)

    def _count(self, times: deque[float], rate: int) -> None:
        now = self._now()
        _forget(times, now)
        if len(times) >= rate:
            # More than one too many only after the limit was lowered.
            wait = times[len(times) - rate] + MINUTE_S - now
            raise RateLimitExceeded(
                f"This key may send {rate} requests per minute.",
                retry_after_s=math.ceil(wait * 1000) / 1000,
                limited="requests",
            )
        times.append(now)


def _forget(times: deque[float], now: float) -> None:
    while times and now - times[0] >= MINUTE_S:
        times.popleft()
