"""What a model cannot, another one here may: the refusal names it.

Only to who asks the node itself: a gateway knows the whole fleet, and which models a key may use.
"""

from __future__ import annotations

from collections.abc import Iterable

from helexa.core.errors import RequestRefused, VisionUnsupported
from helexa.core.fleet import ModelEntry

_NEEDS = {"embeddings": "embeddings", "rerank": "rerank"}
_MOST_NAMED = 3


def naming(error: RequestRefused, route: str, models: Iterable[ModelEntry]) -> RequestRefused:
    """``error``, with the loaded models that can do what ``route`` asks for."""
    need = "vision" if isinstance(error, VisionUnsupported) else _NEEDS.get(route, "text")
    able = [m.id for m in models if m.status == "loaded" and need in m.capabilities]
    if able:
        error.message += f" Here {' or '.join(repr(name) for name in able[:_MOST_NAMED])} can."
        error.args = (error.message,)
    return error
