"""Does a prompt fit? Exact where it matters, and free of charge where it cannot matter.

It matters when the prompt could exceed the limit, the grant, or one slot's share of the KV cells:
a loose bound would keep cells from others. What is counted is what the engine will get. Of several
inputs (embeddings, rerank) each has to fit the limit, and all together the grant.
"""

from __future__ import annotations

import msgspec

from helexa.core.errors import ContextLengthExceeded
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.grants import GrantGate
from helexa.neuron.limits import TEMPLATE_TOKENS, check_prompt, needs_count
from helexa.neuron.registry.served import ServedModel
from helexa.wire.translation import restated


def uncounted(model: ServedModel, asked: EngineRequest, gate: GrantGate) -> int | None:
    """Tokens to reserve for a prompt that need not be counted; None for one that is to be."""
    limit = model.limit.input
    share = min(limit, model.plan.kv_cells // model.plan.slots)
    most = len(asked.body) + TEMPLATE_TOKENS if asked.most is None else asked.most
    countable = asked.events or asked.longest is not None
    if countable and needs_count(most, share, gate.granted, asked.longest):
        return None
    return min(most, limit)


async def counted(model: ServedModel, asked: EngineRequest, key_id: str) -> int:
    """Tokens of the prompt, exactly.

    Raises:
        ContextLengthExceeded: The prompt, or one of its inputs, is longer than the advertised
            input limit.
    """
    try:
        count = await model.count(asked, key_id)
    except ContextLengthExceeded:
        model.rejected_too_long += 1
        raise
    refusal = check_prompt(count, model.limit) if asked.longest is None else None
    if refusal is not None:
        model.rejected_too_long += 1
        raise refusal
    return count


async def sized(
    model: ServedModel, asked: EngineRequest, gate: GrantGate, key_id: str
) -> EngineRequest:
    """The request with the size of each of its several prompts. Where there is a grant they are
    counted: what a loose bound keeps for the last prompt is lacking in the answer to the first.

    Raises:
        ContextLengthExceeded: One of them is too long; ``param`` says which.
    """
    if asked.several is None:
        return asked
    sizes: list[int] = []
    for index, request in enumerate(asked.several.requests):
        size = uncounted(model, request, gate) if gate.granted is None else None
        if size is None:
            try:
                size = await counted(model, request, key_id)
            except ContextLengthExceeded as error:
                raise restated(error, {"messages": f"prompt[{index}]"}) from None
        sizes.append(size)
    several = msgspec.structs.replace(asked.several, sizes=tuple(sizes))
    return msgspec.structs.replace(asked, several=several)
