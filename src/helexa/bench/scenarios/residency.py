"""What loading costs: from cold, and in exchange for another model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec

from helexa.bench.row import Result
from helexa.bench.scenarios.base import SHORT_PROMPT, Asked, everywhere, single
from helexa.bench.targets.base import Surveyed, TargetDown

ASK_BACK_S = 10.0


class Cold:
    """``cold``: unload, a timed load, and the first answer after it."""

    name = "cold"

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Where models can be loaded on command."""
        return kind == "neuron" and everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """The model is loaded again whatever happens, also to the sweep."""
        async with _left_as_found(asked, asked.model):
            return await _exchange(asked, asked.model, asked.model)


class Swap:
    """``swap``: another model goes, this one comes and answers."""

    name = "swap"

    def fits(self, kind: str, model: Surveyed, others: Sequence[str]) -> bool:
        """Where models can be loaded on command and there are two."""
        return kind == "neuron" and bool(others) and everywhere(kind, model, others)

    async def run(self, asked: Asked) -> Result:
        """Timed from the first unload to the first token; both are loaded again at the end."""
        other, target = asked.others[0], asked.target
        async with _left_as_found(asked, other, asked.model):
            try:
                await target.unload(asked.model)
                await target.load(other)
                result = await _exchange(asked, other, asked.model)
            except TargetDown as error:
                result = Result(ok=False, error=str(error), failed=1, output_cap=asked.cap)
            await _restore(asked, other)
            return result


async def _exchange(asked: Asked, goes: str, comes: str) -> Result:
    target = asked.target
    started = time.perf_counter()
    try:
        await target.unload(goes)
        await target.load(comes)
    except TargetDown as error:
        await _restore(asked, comes)
        return Result(ok=False, error=str(error), failed=1, output_cap=asked.cap)
    load_ms = (time.perf_counter() - started) * 1000
    timed = await target.prober.ask(asked.body(asked.prompt(SHORT_PROMPT)))
    result = single(timed, prompt_asked=SHORT_PROMPT, cap=asked.cap)
    return msgspec.structs.replace(result, load_ms=load_ms)


async def _restore(asked: Asked, model: str) -> None:
    """Leave the target as it was found; what it will not do now, its operator sees anyway."""
    try:
        await asked.target.load(model)
    except TargetDown:
        return


@asynccontextmanager
async def _left_as_found(asked: Asked, *models: str) -> AsyncIterator[None]:
    """Whoever stops a sweep does not want to lose the models that it had taken away just then.

    The target is told to load them, and not waited for: a stop does not take minutes.
    """
    try:
        yield
    except asyncio.CancelledError:
        with contextlib.suppress(TimeoutError):
            await asyncio.shield(asyncio.wait_for(_ask_back(asked, models), ASK_BACK_S))
        raise


async def _ask_back(asked: Asked, models: Sequence[str]) -> None:
    for model in models:
        with contextlib.suppress(TargetDown):
            await asked.target.load(model, wait=False)
