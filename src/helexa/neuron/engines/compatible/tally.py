"""What one request has cost, read off an OpenAI-compatible engine's chunks.

Three kinds of engines, from the one that says most: the tokens themselves with each chunk
(``token_ids``), their number so far (``continuous_usage_stats``), or nothing before the end, when
a chunk with something in it is taken for one token.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from helexa.neuron.engines.base import Meter
from helexa.neuron.engines.compatible.chunks import (
    Choice,
    ChoiceState,
    Chunk,
    ChunkUsage,
    Metrics,
)

_NO_TOKENS = (b"", b"null", b"[]")


class Tally:
    """Counts into one meter.

    Args:
        clock: Monotonic seconds, for engines that do not say how long they took.
        guess: Prompt tokens until the engine says how many there are.
        continuous: Usage comes with every chunk.

    Attributes:
        told: The engine has said what the prompt has cost.
    """

    def __init__(self, clock: Callable[[], float], *, guess: int, continuous: bool) -> None:
        self.meter = Meter()
        self.told = False
        self._continuous = continuous
        self._guess = guess
        self._clock = clock
        self._first_at: float | None = None

    def begin(self, chunk: Chunk, choices: list[Choice]) -> None:
        """What a chunk says of the prompt, before its choices are looked at."""
        if chunk.usage is not None:
            self._prompt(chunk.usage)
        elif chunk.prompt_token_ids:
            self._prompt_is(tokens_in(chunk.prompt_token_ids))
        elif choices and choices[0].prompt_token_ids:
            self._prompt_is(tokens_in(choices[0].prompt_token_ids))
        if choices and not self.meter.prompt_known:
            self._know(self._guess)

    def end(self, chunk: Chunk, choices: list[Choice]) -> None:
        """What a chunk says of the whole answer, behind its choices."""
        if chunk.usage is not None and not (self._continuous and choices):
            self._total(chunk.usage)
        if chunk.metrics is not None:
            self._timed(chunk.metrics)

    def fresh(
        self, choice: Choice, state: ChoiceState, usage: ChunkUsage | None, *, carries: bool
    ) -> int:
        """Take the tokens that a chunk has brought; how many.

        Args:
            carries: There is some of the answer in it.
        """
        if self._continuous and usage is not None:
            fresh = (usage.completion_tokens or 0) - state.taken
            details = usage.completion_tokens_details
            if details is not None and details.reasoning_tokens is not None:
                self.meter.reasoning += details.reasoning_tokens - state.thought
                state.thought = details.reasoning_tokens
        elif choice.token_ids is not None:
            fresh = len(choice.token_ids)
        else:
            fresh = 1 if carries else 0
        if fresh:
            self.take(state, fresh)
        return fresh

    def take(self, state: ChoiceState, fresh: int) -> None:
        """Count so many more tokens of a choice."""
        now = self._clock()
        if self._first_at is None:
            self._first_at = now
        self.meter.predicted_ms = (now - self._first_at) * 1000
        state.taken += fresh
        self.meter.output += fresh

    def own_reasoning(self, state: ChoiceState, fresh: int) -> None:
        """Reasoning tokens of an engine that does not count them: those of its deltas, with what
        was held back before."""
        state.pending += fresh
        if state.kind == "reasoning":
            self.meter.reasoning += state.pending
        if state.kind:
            state.pending = 0

    def _know(self, prompt: int) -> None:
        self.meter.prompt = self.meter.prompt_processed = prompt
        self.meter.prompt_known = True

    def _prompt_is(self, tokens: int) -> None:
        if tokens:
            self.told = True
            self._know(tokens)

    def _prompt(self, usage: ChunkUsage) -> None:
        details = usage.prompt_tokens_details
        self.told = True
        self._know(usage.prompt_tokens)
        if details is not None and details.cached_tokens is not None:
            self.meter.cached = details.cached_tokens

    def _total(self, usage: ChunkUsage) -> None:
        """The engine's last word on all choices."""
        meter, details = self.meter, usage.completion_tokens_details
        if usage.completion_tokens is not None:
            meter.output = usage.completion_tokens
        if details is not None and details.reasoning_tokens is not None:
            meter.reasoning = details.reasoning_tokens
        meter.reasoning = min(meter.reasoning, meter.output)

    def _timed(self, metrics: Metrics) -> None:
        if metrics.time_to_first_token_ms is not None:
            self.meter.prompt_ms = metrics.time_to_first_token_ms
        if metrics.generation_time_ms is not None:
            self.meter.predicted_ms = metrics.generation_time_ms


def tokens_in(ids: msgspec.Raw) -> int:
    """How many token ids; not decoded, since a long prompt has very many."""
    raw = bytes(ids)
    return 0 if raw in _NO_TOKENS else raw.count(b",") + 1
