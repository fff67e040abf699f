"""A failure that comes again with every try, said as often as it helps.

What is tried twice a second while a disk is full would fill what is left of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from helexa.core.logging import Logger

AGAIN_S = 60.0
"""So long a failure that goes on is not said again."""


class Recurring:
    """One kind of failure: said at its beginning, once a minute, and when it is over.

    Args:
        what: The event of its lines; the error is their ``why``.
        over: The event that says that it has passed.
        now: Seconds, of a clock that never steps.

    Attributes:
        error: The last one, while it goes on; since ``began`` by that clock.
    """

    __slots__ = ("_log", "_now", "_over", "_said", "_what", "began", "error")

    def __init__(
        self, log: Logger, what: str, over: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._what = what
        self._over = over
        self._now = now
        self._said: float | None = None
        self.error: str | None = None
        self.began = 0.0

    def failed(self, error: object) -> None:
        """It has failed, perhaps again."""
        now = self._now()
        if self.error is None:
            self.began = now
        self.error = str(error)
        if self._said is None or now - self._said >= AGAIN_S:
            self._said = now
            self._log.error(self._what, why=self.error)

    def succeeded(self) -> None:
        """It has not failed this time."""
        if self._said is not None:
            self._said = self.error = None
            self._log.info(self._over)
