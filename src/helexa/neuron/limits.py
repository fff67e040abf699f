"""How long a prompt may be, derived from the model, its placement and its speed; never configured.

::

    context = min(model's own maximum, cells a slot has, tokens prefilled in the target time)
    ├──────────────── input ────────────────┼──── output (reserve) ────┤
      a longer prompt is refused               a longer answer is cut

What is advertised, what is enforced and what is reported as servable go through the functions of
this file, so they agree. An operator's cap only ever lowers the result. Pure, but for the
``PrefillRate``, which its model's owner keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from helexa.core.errors import ContextLengthExceeded, HelexaError, InsufficientVram
from helexa.core.fleet import Limit, Servable
from helexa.neuron.engines.base import Plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.settings import ContextLimitSettings

LEAST_CONTEXT = 512
"""A slow host still serves short prompts: speed alone never lowers a limit further."""
RESERVE_PART = 4
"""The output reserve is at most a quarter of the context, so that small contexts keep an input."""
STEP = 256
STEADY = 0.1
TEMPLATE_TOKENS = 128
"""Tokens a template may add beyond the bytes of the request: markers, a default system prompt."""
MINIMAL_PROMPT = 1
_RETRY_AFTER_S = 10.0


def derive(
    facts: ModelFacts,
    plan: Plan,
    settings: ContextLimitSettings,
    prefill_tok_s: float,
    max_prompt_tokens: int | None = None,
) -> Limit:
    """The limit of one placement (tokens).

    Args:
        prefill_tok_s: ``PrefillRate.tok_s``: measured, or the bootstrap value.
        max_prompt_tokens: The operator's clamp (``NEURON_MAX_PROMPT_TOKENS``).

    Returns:
        ``context = input + output``; ``output`` is the longest answer, whatever the prompt, so
        that it fits beside the longest one. A request that asks for more is lowered to it. A
        model that makes vectors or scores answers nothing, so all of its context is input.
    """
    fits = min(facts.context_native or plan.context, plan.context)
    context = fits
    if settings.enabled:
        reachable = int(settings.target_prefill_latency_secs * prefill_tok_s) // STEP * STEP
        context = min(fits, max(LEAST_CONTEXT, reachable))
    answers = "text" in facts.capabilities and not plan.rerank
    output = min(settings.output_reserve_tokens, context // RESERVE_PART) if answers else 0
    prompt = context - output
    if max_prompt_tokens is not None:
        prompt = min(prompt, max_prompt_tokens)
    return Limit(context=prompt + output, input=prompt, output=output)


def steady(advertised: Limit, derived: Limit) -> Limit:
    """Keep what is advertised while the derived context is within a tenth of it: a limit that
    moves with every measurement helps nobody. Lower fits are adopted by a new ``derive``."""
    near = abs(derived.context - advertised.context) <= STEADY * advertised.context
    return advertised if near else derived


def check_prompt(prompt_tokens: int, limit: Limit) -> ContextLengthExceeded | None:
    """The refusal of a prompt that is too long, or None."""
    if prompt_tokens <= limit.input:
        return None
    return ContextLengthExceeded(prompt_tokens, limit.input)


def needs_count(most: int, limit_input: int, grant: int | None, longest: int | None = None) -> bool:
    """Whether a prompt must be counted before it is admitted.

    A token is at least one byte, so a short enough text can exceed neither the limit nor the
    grant, and the engine's first progress event is the count.

    Args:
        most: Tokens that it cannot exceed.
        grant: Tokens granted by the gateway; None is unlimited.
        longest: The same of the longest of several inputs, to each of which the limit applies.
    """
    single = most if longest is None else longest
    return single > limit_input or (grant is not None and most > grant)


class FreeMemory(msgspec.Struct, frozen=True):
    """Live free memory of the places a model uses, and the floor of each (MiB per index)."""

    free_mb: Mapping[int, int]
    floor_mb: Mapping[int, int]


def floors(
    totals_mb: Mapping[int, int], settings: ContextLimitSettings, min_free_mb: int | None = None
) -> dict[int, int]:
    """The free memory below which a placement stops taking work.

    ``min_free_floor_mb``, but at most a twentieth of a small place (half of what planning leaves
    free there), so that a model that was allowed to load is allowed to serve.

    Args:
        totals_mb: Size of each place.
        min_free_mb: The operator's clamp (``NEURON_MIN_FREE_VRAM_MB``), taken as it is.
    """
    return {
        index: max(min(settings.min_free_floor_mb, total // 20), min_free_mb or 0)
        for index, total in totals_mb.items()
    }


def check_memory(memory: FreeMemory) -> InsufficientVram | None:
    """The refusal while a place is below its floor, or None."""
    for index, floor in sorted(memory.floor_mb.items()):
        free = memory.free_mb.get(index, floor)
        if free < floor:
            where = "host memory" if index < 0 else f"memory on device {index}"
            return InsufficientVram(
                f"Only {free} MiB of {where} are free, {floor} MiB must be. Something else on the "
                "host uses it; ask again, or ask another node.",
                retry_after_s=_RETRY_AFTER_S,
                free_mb=free,
                floor_mb=floor,
            )
    return None


def check_request(prompt_tokens: int, limit: Limit, memory: FreeMemory) -> HelexaError | None:
    """The check every request meets before admission: length, then free memory."""
    return check_prompt(prompt_tokens, limit) or check_memory(memory)


def servable(limit: Limit, memory: FreeMemory) -> Servable:
    """Whether a minimal request would be accepted now, by the check requests meet."""
    refusal = check_request(MINIMAL_PROMPT, limit, memory)
    if refusal is None:
        return Servable()
    return Servable(ok=False, reason=refusal.code, detail=refusal.message)


@dataclass(slots=True)
class PrefillRate:
    """Tokens per second of uncached prefill: recent tokens over recent seconds.

    Both sums fade by half every ``half_life`` tokens, so one long prompt outweighs many short
    ones and one stall is forgotten. Prompts under ``least_tokens`` say more about overhead than
    about speed and are ignored.

    Args:
        bootstrap: The rate while nothing is measured.
    """

    bootstrap: float
    least_tokens: int = 64
    half_life: int = 32_768
    _tokens: float = 0.0
    _seconds: float = 0.0

    @property
    def measured(self) -> bool:
        """Whether anything was observed."""
        return self._seconds > 0

    @property
    def tok_s(self) -> float:
        """The rate now."""
        return self._tokens / self._seconds if self.measured else self.bootstrap

    def observe(self, tokens: int, seconds: float) -> float | None:
        """One prompt's uncached tokens took ``seconds`` in the engine; the rate after it, or None
        where it says nothing new."""
        if tokens < self.least_tokens or seconds <= 0:
            return None
        faded = 0.5 ** (tokens / self.half_life)
        self._tokens = self._tokens * faded + tokens
        self._seconds = self._seconds * faded + seconds
        return self._tokens / self._seconds
