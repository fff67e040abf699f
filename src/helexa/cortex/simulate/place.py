"""One loaded model on one simulated node: seats, serial prefill, decode, and a KV cache.

The cache holds pieces of prompts; those of running requests are pinned, the others go least
recently used first, in blocks, a prompt's end before its beginning. A request is prefilled when
its prompt and its answer fit beside what runs; until then it waits, first come first served.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from helexa.cortex.routing.ask import Ask
from helexa.cortex.simulate.fleet import NodeSpec
from helexa.cortex.simulate.trace import Asked

BLOCK = 16
"""Tokens that are evicted together."""


@dataclass(slots=True, eq=False)
class Run:
    """One request of the trace and what became of it; times in simulated seconds."""

    asked: Asked
    ask: Ask
    place: Place | None = None
    cached: int = 0
    first_at: float = 0.0
    ended_at: float = 0.0
    cold: bool = False
    refused: bool = False

    @property
    def first_s(self) -> float:
        """From its arrival to its first token."""
        return self.first_at - self.asked.at


class Place:
    """A model on a node."""

    def __init__(self, spec: NodeSpec, model: str, since: float = 0.0) -> None:
        self.spec = spec
        self.node = spec.name
        self.model = model
        self.since = since
        self.last_used = since
        self.queue: deque[Run] = deque()
        self.prefilling: Run | None = None
        self.prefilled_at = 0.0
        self.running: dict[Run, float] = {}
        """Requests that decode, and when each will be done; in that order."""
        self.free = spec.kv_tokens
        self.idle_tokens = 0
        self._idle: OrderedDict[int, int] = OrderedDict()
        self._pinned: dict[int, list[int]] = {}
        """Tokens of the piece, requests that run with it, tokens of answers behind it."""

    @property
    def busy(self) -> int:
        """Requests that are here."""
        return len(self.queue) + len(self.running) + (self.prefilling is not None)

    def fits(self, run: Run) -> bool:
        """Whether it can ever run here."""
        return run.asked.tokens + run.asked.output <= self.spec.kv_tokens

    def cached(self, run: Run) -> int:
        """Tokens of its prompt that need not be computed now."""
        found = 0
        for point, (_, tokens) in zip(run.ask.points, run.asked.prompt, strict=True):
            here = tokens if point in self._pinned else self._idle.get(point, 0)
            found += min(here, tokens)
            if here < tokens:
                break
        return found

    def need(self, run: Run) -> int:
        """Tokens of memory that it takes beside what runs."""
        pieces = zip(run.ask.points, run.asked.prompt, strict=True)
        new = sum([tokens for point, (_, tokens) in pieces if point not in self._pinned])
        return new + run.asked.output

    def begin(self, now: float) -> Run | None:
        """Start the next prefill if it can start; its end is ``prefilled_at``."""
        if self.prefilling is not None or not self.queue:
            return None
        run = self.queue[0]
        need = self.need(run)
        if len(self.running) >= self.spec.seats or self.free + self.idle_tokens < need:
            return None
        self.queue.popleft()
        run.cached = self.cached(run)
        self._pin(run)
        self._make_room(need)
        self.free -= need
        self.prefilling = run
        self.prefilled_at = now + max(1, run.asked.tokens - run.cached) / self.spec.prefill
        self.last_used = now
        return run

    def first(self, run: Run, now: float) -> float:
        """Its prefill is done; returns when its answer will be."""
        self.prefilling = None
        run.first_at = now
        end = self.running[run] = now + run.asked.output / self.spec.decode
        return end

    def end(self, run: Run, now: float) -> None:
        """Its answer is done: what it had may be evicted now, its end first."""
        del self.running[run]
        run.ended_at = self.last_used = now
        more = run.asked.output
        pieces = zip(run.ask.points, run.asked.prompt, strict=True)
        for point, (_, tokens) in reversed(list(pieces)):
            pinned = self._pinned[point]
            pinned[1] -= 1
            pinned[2] += more
            more = 0
            if not pinned[1]:
                del self._pinned[point]
                self._idle[point] = tokens + pinned[2]
                self.idle_tokens += tokens + pinned[2]

    def _pin(self, run: Run) -> None:
        for point, (_, tokens) in zip(run.ask.points, run.asked.prompt, strict=True):
            pinned = self._pinned.get(point)
            if pinned is not None:
                pinned[1] += 1
                continue
            here = self._idle.pop(point, 0)
            self.idle_tokens -= here
            self.free += here  # what of it is used again is taken again as part of the need
            self._pinned[point] = [tokens, 1, 0]

    def _make_room(self, need: int) -> None:
        while self.free < need:
            point, tokens = next(iter(self._idle.items()))
            taken = min(tokens, -(-(need - self.free) // BLOCK) * BLOCK)
            self.free += taken
            self.idle_tokens -= taken
            if taken == tokens:
                self._idle.popitem(last=False)
            else:
                self._idle[point] = tokens - taken
