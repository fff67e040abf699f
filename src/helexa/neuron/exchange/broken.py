"""What became of an engine that broke off an answer, and what its caller is told."""

from __future__ import annotations

import asyncio

from helexa.core.errors import (
    HelexaError,
    ModelRecovering,
    ServiceUnavailable,
    UpstreamConnectionError,
    UpstreamTimeout,
)
from helexa.neuron.engines.http import ask
from helexa.neuron.registry.served import ServedModel

END_KNOWN_S = 1.0
"""So soon the end of a process is known, as a rule, after its connections broke."""
_LOOKS = 50


async def broken_off(model: ServedModel, *, spoken: bool) -> HelexaError:
    """Why an answer is not complete.

    Args:
        spoken: The caller has some of it.
    """
    name = f"The engine of {model.model_id}"
    if spoken:
        return UpstreamConnectionError(f"{name} stopped before the answer was complete.")
    if await _survives(model):
        return ServiceUnavailable(
            f"{name} broke off its answer, and is still running.", retry_after_s=1
        )
    return ModelRecovering(f"{name} is restarting.", retry_after_s=2)


async def _survives(model: ServedModel) -> bool:
    """Whether the same process answers; its end may take a moment to be noticed."""
    process, life = model.process, model.process.life
    for _ in range(_LOOKS):
        if process.address is None or process.life != life:
            return False
        await asyncio.sleep(END_KNOWN_S / _LOOKS)
    try:
        address = process.address
        if address is not None:
            await ask(address, "GET", "/health")  # whatever it answers
        return address is not None
    except UpstreamTimeout:
        return True  # busy, and there
    except HelexaError:
        return False
