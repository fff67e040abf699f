"""What a chain of calls waits for, what it goes on with, and what is said meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from helexa.core.errors import ServiceUnavailable
from helexa.neuron.admission.ticket import Standing

T = TypeVar("T")


class Waiting(Generic[T]):
    """Goes on when a future has its result; ``drop`` it, and it does not.

    Args:
        then: Gets the result.
        failed: Gets what the future or ``then`` raises.
    """

    __slots__ = ("_failed", "_future", "_then")

    def __init__(
        self,
        future: asyncio.Future[T],
        then: Callable[[T], object],
        failed: Callable[[Exception], object],
    ) -> None:
        self._future = future
        self._then: Callable[[T], object] | None = then
        self._failed = failed
        future.add_done_callback(self._done)

    def drop(self) -> None:
        """Nobody waits any more; idempotent."""
        self._then = None
        self._future.cancel()

    def _done(self, future: asyncio.Future[T]) -> None:
        then, self._then = self._then, None
        try:
            if then is not None:
                then(future.result())
            elif not future.cancelled():
                future.exception()  # seen by nobody, which is nothing to complain of
        except asyncio.CancelledError:
            self._failed(ServiceUnavailable("The node is shutting down.", retry_after_s=5))
        except Exception as error:  # noqa: BLE001  # the edge
            self._failed(error)


def keep_alive(standing: Standing | None) -> bytes:
    """A comment for a reader who waits, with its place in the queue if it has one."""
    if standing is None:
        return b": keep-alive\n\n"
    eta = b"" if standing.eta_s is None else b", about %d s" % max(1, round(standing.eta_s))
    return b": keep-alive, place %d in the queue%b\n\n" % (standing.place, eta)
