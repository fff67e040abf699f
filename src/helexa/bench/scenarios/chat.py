"""Streams: one, a second turn, many at once, many as they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from helexa.bench.probe.arrivals import poisson
from helexa.bench.probe.timed import Timed
from helexa.bench.row import Result
from helexa.bench.scenarios.base import SHORT_PROMPT, Asked, everywhere, single, together
from helexa.bench.stats.curves import goodput
from helexa.bench.targets.base import Surveyed


class Chat:
    """``chat:<prompt tokens>``: one stream on an idle target."""

    def __init__(self, tokens: int) -> None:
        self.name = f"chat:{tokens}"
        self._tokens = tokens

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Ask once."""
        timed = await asked.target.prober.ask(asked.body(asked.prompt(self._tokens)))
        return single(timed, prompt_asked=self._tokens, cap=asked.cap)


class Prefix:
    """``prefix:<tokens>``: the second turn of a conversation whose first turn was just had."""

    def __init__(self, tokens: int) -> None:
        self.name = f"prefix:{tokens}"
        self._tokens = tokens

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """The first turn is not measured; what is new in the second is one line."""
        messages = asked.prompt(self._tokens)
        first = await asked.target.prober.ask(asked.body(messages))
        if not first.ok:
            return single(first, prompt_asked=self._tokens, cap=asked.cap)
        messages += [
            {"role": "assistant", "content": first.text or "Once upon a time."},
            {"role": "user", "content": "Go on with the story."},
        ]
        second = await asked.target.prober.ask(asked.body(messages))
        return single(second, prompt_asked=self._tokens, cap=asked.cap)


class Concurrency:
    """``concurrency:<n>``: n streams of equal length that start at once."""

    def __init__(self, streams: int) -> None:
        self.name = f"concurrency:{streams}"
        self._streams = streams

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Their prompts differ in their words, so that none rides on another's cache."""
        bodies = [asked.body(asked.prompt(SHORT_PROMPT, str(i))) for i in range(self._streams)]
        started = time.perf_counter()
        timed = await asyncio.gather(*(asked.target.prober.ask(body) for body in bodies))
        wall_ms = (time.perf_counter() - started) * 1000
        return together(timed, prompt_asked=SHORT_PROMPT, cap=asked.cap, wall_ms=wall_ms)


class Poisson:
    """``poisson:<rate>``: requests arrive at a seeded pace, whether earlier ones are done or not.

    A closed loop slows down with its target and hides its queues; this one does not.
    """

    REQUESTS = 30
    FIRST_WITHIN_MS = 1000.0
    BETWEEN_WITHIN_MS = 100.0

    def __init__(self, rate: float) -> None:
        self.name = f"poisson:{rate:g}"
        self._rate = rate

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Anywhere."""
        return everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Every request is sent when it is due."""
        times = poisson(self._rate, self.REQUESTS, sum(asked.seed.encode()))
        started = time.perf_counter()

        async def one(i: int, at: float) -> Timed:
            await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
            return await asked.target.prober.ask(asked.body(asked.prompt(SHORT_PROMPT, str(i))))

        timed = await asyncio.gather(*(one(i, at) for i, at in enumerate(times)))
        wall_ms = (time.perf_counter() - started) * 1000
        result = together(
            timed, prompt_asked=SHORT_PROMPT, cap=asked.cap, wall_ms=wall_ms, goodput=self._good
        )
        return msgspec.structs.replace(result, concurrency=0)

    def _good(self, timed: Sequence[Timed]) -> float:
        return goodput(
            [t.first_ms if t.ok else None for t in timed],
            [t.mean_gap_ms for t in timed],
            first_within_ms=self.FIRST_WITHIN_MS,
            between_within_ms=self.BETWEEN_WITHIN_MS,
        )
