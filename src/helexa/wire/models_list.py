"""``/v1/models`` in OpenAI's and in Anthropic's shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.core.fleet import Limit

MOST_PAGED = 1000
"""Models on one page of Anthropic's shape, and also on one that names no ``limit``: clients that
never turn the page see them all."""


class Location(msgspec.Struct, frozen=True):
    """Where a model is, and what it takes there (MiB; None while unknown)."""

    node: str
    status: str
    vram_estimate_mb: int | None = None


class ListedModel(msgspec.Struct, frozen=True):
    """One model that the fleet can serve, warm or cold.

    Args:
        created: Epoch seconds.
        cost: USD per million tokens by kind; None is unpriced.
    """

    id: str
    created: int = 0
    loaded: bool = False
    feasible_on: tuple[str, ...] = ()
    locations: tuple[Location, ...] = ()
    capabilities: tuple[str, ...] = ()
    limit: Limit | None = None
    cost: dict[str, float] | None = None
    tool_call: bool = False
    reasoning: bool = False


def openai_list(models: Iterable[ListedModel]) -> dict[str, object]:
    """The body of ``GET /v1/models``."""
    return {"object": "list", "data": [openai_entry(model) for model in models]}


def openai_entry(model: ListedModel) -> dict[str, object]:
    """The body of ``GET /v1/models/{id}``, and an element of the list."""
    entry: dict[str, object] = {
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "helexa",
        "loaded": model.loaded,
        "feasible_on": list(model.feasible_on),
        "locations": [msgspec.to_builtins(place) for place in model.locations],
        "capabilities": list(model.capabilities),
        "tool_call": model.tool_call,
        "reasoning": model.reasoning,
    }
    if model.limit is not None:
        entry["limit"] = msgspec.to_builtins(model.limit)
        entry["max_model_len"] = model.limit.context
        entry["max_input_tokens"] = model.limit.input
        entry["max_output_tokens"] = model.limit.output
    if model.cost is not None:
        entry["cost"] = model.cost
    return entry


class Page(msgspec.Struct, frozen=True):
    """Which models a client of the Messages API wants: at most ``limit`` behind ``after`` or right
    before ``before``, both ids."""

    limit: int = MOST_PAGED
    after: str | None = None
    before: str | None = None


def anthropic_list(models: Sequence[ListedModel], page: Page | None = None) -> dict[str, object]:
    """The body of ``GET /v1/models`` for a client of the Messages API.

    Raises:
        InvalidRequestBody: The page is to begin or end at a model that is not listed.
    """
    page = page or Page()
    start = 0 if page.after is None else _place(models, page.after, "after_id") + 1
    end = len(models) if page.before is None else _place(models, page.before, "before_id")
    found = models[start:end]
    shown = found[: page.limit] if page.before is None else found[-page.limit :]
    return {
        "data": [anthropic_entry(model) for model in shown],
        "has_more": len(shown) < len(found),
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
    }


def _place(models: Sequence[ListedModel], wanted: str, param: str) -> int:
    for place, model in enumerate(models):
        if model.id == wanted:
            return place
    raise InvalidRequestBody(
        f"{param} is {wanted[:80]!r}, which is not in the list (any more); ask without it.",
        param=param,
    )


def anthropic_entry(model: ListedModel) -> dict[str, object]:
    """One model; strict SDKs need ``lifecycle``, ``display_name`` and ``created_at``."""
    entry: dict[str, object] = {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
    }
    if model.limit is not None:
        entry["max_input_tokens"] = model.limit.input
        entry["max_tokens"] = model.limit.output
    return entry
