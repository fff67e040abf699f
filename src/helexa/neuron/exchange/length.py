"""Does a prompt fit? Exact where it matters, and free of charge where it cannot matter."""

from __future__ import annotations

from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.grants import GrantGate
from helexa.neuron.limits import TEMPLATE_TOKENS, check_prompt, needs_count
from helexa.neuron.registry.served import ServedModel


async def prompt_tokens(
    model: ServedModel, route: str, body: bytes, asked: EngineRequest, gate: GrantGate
) -> tuple[int, bool]:
    """Tokens to reserve for the prompt, and whether the count is exact.

    Raises:
        ContextLengthExceeded: The prompt is longer than the advertised input limit.
    """
    size, limit = len(asked.body), model.limit.input
    if route != "chat" or not needs_count(size, limit, gate.granted):
        return min(size + TEMPLATE_TOKENS, limit), False
    count = await model.engine.count(model.address, body, model.served)
    refusal = check_prompt(count, model.limit)
    if refusal is not None:
        model.rejected_too_long += 1
        raise refusal
    return count, True
