"""Per-key limits that are not tokens: requests per minute, and requests open at once.

One seat is taken per request and given back once, on whatever path the request ends.
"""

from __future__ import annotations

from collections.abc import Callable

from helexa.core.errors import RateLimitExceeded
from helexa.core.principal import Principal


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


class _KeyState:
    """``due`` is the time at which a steady sender's next request would come (GCRA)."""

    __slots__ = ("due", "open")

    def __init__(self) -> None:
        self.open = 0
        self.due = 0.0


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
        self._check_open(principal, state)
        self._check_rate(principal, state)
        state.open += 1
        return Seat(state)

    def open(self, principal: Principal) -> int:
        """Requests this limited key has open now."""
        state = self._states.get(principal.key_id)
        return 0 if state is None else state.open

    def _check_open(self, principal: Principal, state: _KeyState) -> None:
        most = principal.max_concurrent
        if most is not None and state.open >= most:
            raise RateLimitExceeded(
                f"This key has {state.open} requests open and may have {most}. "
                "Wait for one to end.",
                retry_after_s=1.0,
                limited="requests",
            )

    def _check_rate(self, principal: Principal, state: _KeyState) -> None:
        # A full minute's worth may come at once; then one every ``step`` seconds.
        rate = principal.requests_per_minute
        if rate is None:
            return
        now, step = self._now(), 60.0 / rate
        due = max(state.due, now)
        wait = due + step - 60.0 - now
        if wait > 1e-9:
            raise RateLimitExceeded(
                f"This key may send {rate} requests per minute.",
                retry_after_s=round(wait, 3),
                limited="requests",
            )
        state.due = due + step
