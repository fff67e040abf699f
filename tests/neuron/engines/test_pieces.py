"""Many inputs, a few at a time: every one once, in order, within both bounds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neuron.engines.specimens import GGUF, served_by

from helexa.core.errors import InvalidRequestBody
from helexa.neuron.engines import pieces, vectors
from helexa.neuron.engines.base import EngineRequest, Meter, Plan, Served
from helexa.neuron.engines.request import Json

MANY = pieces.PIECE_INPUTS + 6
PLAN = Plan(context=512, slots=4, kv_cells=2048, embeddings=True)


def served(*, ranks: bool = False) -> Served:
    found = served_by(msgspec.structs.replace(GGUF, embedding_dim=8))
    return msgspec.structs.replace(found, plan=msgspec.structs.replace(PLAN, rerank=ranks))


def embeddings(given: Any, **more: Any) -> EngineRequest:
    body: Json = {"model": "org/model", "input": given, **more}
    model = served()
    return pieces.embeddings("/e", body, model, vectors.prepare_embeddings(body, model))


def rerank(documents: list[Any], **more: Any) -> EngineRequest:
    body: Json = {"model": "org/model", "query": "q", "documents": documents, **more}
    model = served(ranks=True)
    return pieces.rerank("/r", body, model, vectors.prepare_rerank(body, model))


def requests(asked: EngineRequest) -> list[Json]:
    several = asked.several
    found = (asked,) if several is None else several.requests
    return [msgspec.json.decode(request.body) for request in found]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=150))
def test_every_input_is_asked_once_in_order_and_few_at_a_time(sizes: list[int]) -> None:
    given = [f"{index:04d}" + "x" * size for index, size in enumerate(sizes)]
    asked = embeddings(given)
    found = [request["input"] for request in requests(asked)]
    assert [text for few in found for text in few] == given
    for few in found:
        assert len(few) <= pieces.PIECE_INPUTS
        tokens = sum(len(text) + vectors.EXTRA_TOKENS for text in few)
        assert len(few) == 1 or tokens <= pieces.PIECE_TOKENS
    assert asked.most == sum(len(text) + vectors.EXTRA_TOKENS for text in given)


def engine_answer(texts: list[str], first: float = 0.0) -> bytes:
    rows = [{"index": i, "embedding": [first + i] + [0.0] * 7} for i in range(len(texts))]
    return msgspec.json.encode({"data": rows, "usage": {"prompt_tokens": 2 * len(texts)}})


def test_vectors_of_pieces_are_numbered_on_and_shortened_like_others() -> None:
    asked = embeddings([f"t{index}" for index in range(MANY)], dimensions=2)
    assert asked.several is not None
    items: list[Any] = []
    for request in asked.several.requests:
        request.cleaner.feed(engine_answer(msgspec.json.decode(request.body)["input"], 1.0))
        items += msgspec.json.decode(request.cleaner.whole())["data"]
    found = msgspec.json.decode(asked.several.whole(items, Meter(prompt=140), None))
    assert [row["index"] for row in found["data"]] == list(range(MANY))
    assert {len(row["embedding"]) for row in found["data"]} == {2}
    assert found["usage"] == {"prompt_tokens": 140, "total_tokens": 140}
    assert found["model"] == "org/model"


def test_the_best_documents_are_the_best_of_all_pieces() -> None:
    documents: list[Any] = [{"text": f"d{index}", "id": index} for index in range(MANY)]
    asked = rerank(documents, top_n=3, return_documents=True)
    assert asked.several is not None
    items: list[msgspec.Raw] = []
    for number, request in enumerate(asked.several.requests):
        body = msgspec.json.decode(request.body)
        assert "top_n" not in body
        scores = [{"index": i, "relevance_score": float(i - 100 * number)}
                  for i in range(len(body["documents"]))]  # fmt: skip
        request.cleaner.feed(msgspec.json.encode({"results": scores, "usage": {"total_tokens": 1}}))
        members = msgspec.json.decode(request.cleaner.whole(), type=dict[str, msgspec.Raw])
        items += msgspec.json.decode(members["results"], type=list[msgspec.Raw])
    found = msgspec.json.decode(asked.several.whole(items, Meter(prompt=5), None))
    best = pieces.PIECE_INPUTS - 1
    assert [result["index"] for result in found["results"]] == [best, best - 1, best - 2]
    assert found["results"][0]["document"] == {"text": f"d{best}", "id": best}


def test_few_inputs_are_one_request() -> None:
    for asked in (
        embeddings("a"),
        embeddings([1, 2, 3]),
        embeddings(["a"] * pieces.PIECE_INPUTS),
        rerank(["a"]),
    ):
        assert asked.several is None
    assert len(requests(embeddings([[1]] * (pieces.PIECE_INPUTS + 1)))) == 2


def test_documents_are_read_by_the_members_that_are_asked_for() -> None:
    document = {"title": "A", "text": "b", "id": "7"}
    for fields, text in ((None, "b"), (["text"], "b"), (["title", "text"], "A\nb")):
        asked = rerank([document, "plain"], rank_fields=fields)
        (body,) = requests(asked)
        assert body["documents"] == [text, "plain"]
        assert "rank_fields" not in body


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"documents": []}, "documents"),
        ({"documents": "a"}, "documents"),
        ({"documents": ["a", 5]}, "documents[1]"),
        ({"documents": [{"title": "a"}]}, "documents[0]"),
        ({"documents": [{"text": 5}]}, "documents[0]"),
        ({"documents": ["a"], "rank_fields": []}, "rank_fields"),
        ({"documents": ["a"], "rank_fields": "text"}, "rank_fields"),
    ],
)
def test_documents_that_cannot_be_read_are_refused_by_their_path(body: Json, param: str) -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        rerank(**body)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("given", "words"), [([[]], "is empty"), ([[1], ["a"]], "a string among"), ([], "is empty")]
)
def test_what_is_wrong_with_token_ids_is_said(given: Any, words: str) -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        embeddings(given)
    assert words in refused.value.message
