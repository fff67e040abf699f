"""What a serving process does once for its event loop: descriptors, collector, lag."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource


def raise_descriptor_limit() -> int:
    """Raise ``RLIMIT_NOFILE`` to its hard limit and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def freeze_heap() -> None:
    """Take what start-up allocated out of the collector's sight: it will never be garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


class LoopLag:
    """How late the loop runs what is due: seconds, the last reading and the worst since asked."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every: float = 0.25) -> None:
        self._loop = loop
        self._every = every
        self._due = 0.0
        self._worst = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self.last = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._loop.time() + self._every
        self._handle = self._loop.call_at(self._due, self._measure)

    def stop(self) -> None:
        """Stop measuring."""
        if self._handle is not None:
            self._handle.cancel()

    def worst(self) -> float:
        """The worst lag since the last call."""
        worst, self._worst = max(self._worst, self.last), 0.0
        return worst

    def _measure(self) -> None:
        self.last = max(0.0, self._loop.time() - self._due)
        self._worst = max(self._worst, self.last)
        self.start()
