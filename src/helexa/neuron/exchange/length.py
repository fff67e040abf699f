"""Does a prompt fit? Exact where it matters, and free of charge where it cannot matter.

It matters when the bytes could exceed the limit, the grant, or one slot's share of the KV cells:
a loose bound would keep cells from others. What is counted is what the engine will get.
"""

from __future__ import annotations

from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.grants import GrantGate
from helexa.neuron.limits import TEMPLATE_TOKENS, check_prompt, needs_count
from helexa.neuron.registry.served import ServedModel

COUNTED = frozenset(("chat", "completions"))


async def prompt_tokens(
    model: ServedModel, route: str, asked: EngineRequest, gate: GrantGate
) -> tuple[int, bool]:
    """Tokens to reserve for the prompt, and whether the count is exact.

    Raises:
        ContextLengthExceeded: The prompt is longer than the advertised input limit.
    """
    size, limit = len(asked.body), model.limit.input
    share = model.plan.kv_cells // model.plan.slots
    exact = needs_count(size, min(limit, share), gate.granted)
    if route not in COUNTED or not exact:
        return min(size + TEMPLATE_TOKENS, limit), False
    count = await model.engine.count_cleaned(model.address, asked, model.served)
    refusal = check_prompt(count, model.limit)
    if refusal is not None:
        model.rejected_too_long += 1
        raise refusal
    return count, True
