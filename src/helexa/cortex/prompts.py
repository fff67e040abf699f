"""The prompt that a model's template makes of a request, asked of a node that has the model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from helexa.core.errors import HelexaError
from helexa.cortex.fleet.fleet import Fleet
from helexa.wire.bodies import UNREADABLE

TIMEOUT_S = 5.0


class _Rendered(msgspec.Struct):
    prompt: str


def prompt_of(fleet: Fleet) -> Callable[[str, bytes], Awaitable[str | None]]:
    """A function from a concrete model id and a chat request's body to its prompt.

    It returns None when no node has the model any more, or the one that has it does not say.
    """

    async def ask(model: str, body: bytes) -> str | None:
        for node in fleet.snapshot().reachable:
            api = fleet.api(node.name)
            state = node.models.get(model)
            if api is None or state is None or not state.ready:
                continue
            try:
                answer = await api.post(f"/models/{model}/render", body, TIMEOUT_S)
                if answer.status == 200:
                    return msgspec.json.decode(answer.body, type=_Rendered).prompt
            except (HelexaError, *UNREADABLE):
                continue
        return None

    return ask
