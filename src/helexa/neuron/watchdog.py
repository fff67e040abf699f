"""When an engine counts as stuck: work is running and nothing of it has moved for too long.

Progress is any event of any request, a prompt's progress included. The deadline is four times the
predicted time of one prefill chunk, at least a minute; of vectors and scores nothing is heard
before all of them are there, so while such a request runs it is four times its own. The decision
only; who owns the engine's process looks at it and kills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

CHUNKS = 4.0
LEAST_S = 60.0
PICTURE_S = 600.0
"""A picture is encoded in one step without a sign of life; on a CPU that can take minutes."""


def deadline_s(step_tokens: int, prefill_tok_s: float, least_s: float = LEAST_S) -> float:
    """Seconds without progress after which an engine is stuck; pure."""
    return max(least_s, CHUNKS * step_tokens / max(prefill_tok_s, 1e-3))


def least_s(watched_s: float, *, encodes_on_cpu: bool) -> float:
    """The shortest deadline of an engine; pure.

    Args:
        watched_s: As set by the operator.
        encodes_on_cpu: Pictures are encoded by the CPU there.
    """
    return max(watched_s, PICTURE_S) if encodes_on_cpu else watched_s


@dataclass(slots=True)
class Watchdog:
    """Watches one engine.

    Args:
        clock: Monotonic seconds.
        chunk_tokens: Tokens of one prefill chunk.
        prefill_tok_s: The present rate; asked at every look.
        least_s: Shortest deadline.

    Attributes:
        moved: Set by whoever sees an event of a running request, at every one: the engine sent it
            at about the time of the next look.
    """

    clock: Callable[[], float]
    chunk_tokens: int
    prefill_tok_s: Callable[[], float]
    least_s: float = LEAST_S
    moved: bool = False
    _running: dict[object, int] = field(default_factory=dict)
    _last: float = 0.0

    def begin(self, request: object, silent_tokens: int = 0) -> None:
        """A request was handed to the engine, which reads so many tokens at most without a word."""
        if not self._running:
            self.moved, self._last = False, self.clock()
        self._running[request] = silent_tokens

    def end(self, request: object) -> None:
        """A request has left the engine, which is progress too; idempotent."""
        if request in self._running:
            self.moved = True
            del self._running[request]

    def restarted(self) -> None:
        """The engine is a new process: its old requests are gone."""
        self._running.clear()

    def expired(self) -> bool:
        """Whether the engine is stuck; to be asked several times a second."""
        now = self.clock()
        if self.moved:
            self.moved, self._last = False, now
        if not self._running:
            return False
        step = max(self.chunk_tokens, *self._running.values())
        return now - self._last >= deadline_s(step, self.prefill_tok_s(), self.least_s)
