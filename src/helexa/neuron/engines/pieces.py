"""The many inputs of one embeddings or rerank request, asked of the engine a few at a time.

::

    2,048 inputs ─▶ 64 │ 64 │ 64 │ …   one after the other, between them others have their turn
                                └─ the client leaves: the rest is never asked, the first are billed

An engine that was given all of them goes on computing for whoever has left: of 1,500 inputs
llama.cpp computed half, and kept the seat so long, after its client had left early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from helexa.neuron.engines.base import EngineRequest, Meter, Served, Several
from helexa.neuron.engines.request import Json
from helexa.neuron.engines.vectors import Amend, PlainCleaner, Prepared

PIECE_INPUTS, PIECE_TOKENS = 64, 8192
"""More slots than engines have, and a second or so of a slow one: tokens by the bytes of texts."""

_encode = msgspec.json.encode


class _Result(msgspec.Struct):
    relevance_score: float


def embeddings(path: str, body: Json, served: Served, prepared: Prepared) -> EngineRequest:
    """One request, or ``several`` with a few inputs each."""
    whole = partial(_vectors, served)
    return _request(path, body, served, prepared, ("input", "data"), whole)


def rerank(path: str, body: Json, served: Served, prepared: Prepared) -> EngineRequest:
    """One request, or ``several`` with a few documents each; only all together have a best one."""
    whole = partial(_ranking, served, body.get("top_n"))
    return _request(path, body, served, prepared, ("documents", "results"), whole, "top_n")


def _request(
    path: str,
    body: Json,
    served: Served,
    prepared: Prepared,
    names: tuple[str, str],
    whole: Callable[[Sequence[Any], Meter, str | None], bytes],
    *of_all: str,
) -> EngineRequest:
    """Args:
    names: The members of what comes in and what goes out.
    of_all: Members that mean all inputs together.
    """
    into, out = names
    asked = _one(path, body, served, prepared.amend, prepared.sizes)
    spans = list(_spans(prepared.sizes))
    if len(spans) == 1:
        return asked
    common = {name: value for name, value in body.items() if name not in of_all}
    requests = tuple(
        _one(
            path,
            common | {into: body[into][start:stop]},
            served,
            partial(_numbered, out, start, prepared.amend),
            prepared.sizes[start:stop],
        )
        for start, stop in spans
    )
    return msgspec.structs.replace(asked, several=Several(requests, out, whole))


def _one(
    path: str, body: Json, served: Served, amend: Amend | None, sizes: list[int]
) -> EngineRequest:
    return EngineRequest(
        "POST",
        path,
        _encode(body),
        PlainCleaner(served, amend),
        stream=False,
        events=False,
        most=sum(sizes),
        longest=max(sizes),
    )


def _spans(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Half-open ranges of inputs, each within both bounds or a single one."""
    start = tokens = 0
    for index, size in enumerate(sizes):
        full = index - start == PIECE_INPUTS or tokens + size > PIECE_TOKENS
        if full and index > start:
            yield start, index
            start, tokens = index, 0
        tokens += size
    yield start, len(sizes)


def _numbered(items: str, first: int, amend: Amend | None, answer: dict[str, Any]) -> None:
    """Items are numbered on from the piece before."""
    for item in answer[items]:
        item["index"] += first
    if amend is not None:
        amend(answer)


def _vectors(served: Served, items: Sequence[Any], meter: Meter, why: str | None) -> bytes:  # noqa: ARG001
    return _list(served, "data", items, meter)


def _ranking(
    served: Served, best: int | None, items: Sequence[Any], meter: Meter, why: str | None  # noqa: ARG001
) -> bytes:  # fmt: skip
    scores = [msgspec.json.decode(item, type=_Result).relevance_score for item in items]
    order = sorted(range(len(items)), key=lambda index: -scores[index])
    return _list(served, "results", [items[index] for index in order[:best]], meter)


def _list(served: Served, name: str, items: Sequence[Any], meter: Meter) -> bytes:
    usage = {"prompt_tokens": meter.prompt, "total_tokens": meter.prompt}
    return _encode({"object": "list", "model": served.model_id, "usage": usage, name: items})
