"""Vectors and scores of real models, held against an encoder written out by hand."""

from __future__ import annotations

import base64
import json
import math
import os
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.neuron.engines.driving import Case, running

from helexa.core.errors import ContextLengthExceeded, InvalidRequestBody, UnsupportedOperation
from helexa.neuron.engines.http import ask
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.llamacpp.scores import probable
from helexa.neuron.engines.vectors import Prepared
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio

TEXTS = ["a cat", "the dog sat on a mat", "x", "numbers 1 2 3 and signs ; !"]


@pytest.fixture(scope="module")
async def embedder(
    tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Case]:
    facts = inspect(tiny_models / "embedder/embedder.gguf", "tiny/embedder")
    async with running(LlamaCpp(os.environ), facts, tmp_path_factory.mktemp("s"), {}) as case:
        yield case


@pytest.fixture(scope="module")
async def reranker(
    tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Case]:
    facts = inspect(tiny_models / "reranker/reranker.gguf", "tiny/reranker")
    async with running(LlamaCpp(os.environ), facts, tmp_path_factory.mktemp("s"), {}) as case:
        yield case


async def whole(case: Case, route: str, **body: Any) -> dict[str, Any]:
    exchange = await case.send(body, route=route)
    await exchange.finish()
    found: dict[str, Any] = json.loads(exchange.request.cleaner.whole())
    return found


async def vectors(case: Case, given: Any, **more: Any) -> list[Any]:
    found = await whole(case, "embeddings", input=given, **more)
    assert [item["index"] for item in found["data"]] == list(range(len(found["data"])))
    return [item["embedding"] for item in found["data"]]


def by_hand(path: Path, tokens: list[int]) -> Any:
    """BERT with mean pooling, one text, in numpy."""
    import gguf
    import numpy as np

    tensors = {t.name: np.asarray(t.data, dtype=np.float64) for t in gguf.GGUFReader(path).tensors}
    heads = 2

    def linear(name: str, rows: Any) -> Any:
        return rows @ tensors[name + ".weight"].T + tensors[name + ".bias"]

    def norm(name: str, rows: Any) -> Any:
        rows = rows - rows.mean(-1, keepdims=True)
        rows /= np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-12)
        return rows * tensors[name + ".weight"] + tensors[name + ".bias"]

    def attend(block: str, rows: Any) -> Any:
        q, k, v = (
            linear(f"{block}attn_{part}", rows).reshape(len(rows), heads, -1).swapaxes(0, 1)
            for part in "qkv"
        )
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        return linear(block + "attn_output", mixed.swapaxes(0, 1).reshape(len(rows), -1))

    def gelu(rows: Any) -> Any:
        return 0.5 * rows * (1 + np.tanh(np.sqrt(2 / np.pi) * (rows + 0.044715 * rows**3)))

    rows = tensors["token_embd.weight"][tokens] + tensors["token_types.weight"][0]
    rows = norm("token_embd_norm", rows + tensors["position_embd.weight"][: len(tokens)])
    for layer in range(2):
        block = f"blk.{layer}."
        rows = norm(block + "attn_output_norm", rows + attend(block, rows))
        rest = linear(block + "ffn_down", gelu(linear(block + "ffn_up", rows)))
        rows = norm(block + "layer_output_norm", rows + rest)
    mean = rows.mean(0)
    return mean / np.linalg.norm(mean)


async def test_mean_pooling_is_the_mean_over_all_tokens(embedder: Case) -> None:
    for text in TEXTS:
        asked = {"content": text, "add_special": True}
        tokens = (await ask(embedder.address, "POST", "/tokenize", asked)).json()["tokens"]
        (given,) = await vectors(embedder, text)
        assert given == pytest.approx(by_hand(embedder.facts.path, tokens).tolist(), abs=5e-3)


async def test_a_batch_has_a_vector_per_input_in_their_order(embedder: Case) -> None:
    many = [f"{text} {index}" for index in range(8) for text in TEXTS]
    together = await vectors(embedder, many)
    assert len(together) == len(many)
    for text, vector in zip(many[:6], together, strict=False):
        assert (await vectors(embedder, text))[0] == pytest.approx(vector, abs=1e-3)
    assert await vectors(embedder, [many[1], many[0]]) == [
        pytest.approx(together[1], abs=1e-3), pytest.approx(together[0], abs=1e-3),
    ]  # fmt: skip


async def test_base64_holds_the_same_vector_as_little_endian_floats(embedder: Case) -> None:
    (plain,) = await vectors(embedder, "a cat")
    (packed,) = await vectors(embedder, "a cat", encoding_format="base64")
    assert isinstance(packed, str)
    unpacked = array("f", base64.b64decode(packed))
    assert list(unpacked) == pytest.approx(plain, abs=1e-6)


async def test_the_count_before_is_the_usage_after(embedder: Case) -> None:
    batches: list[Any] = [TEXTS, "a cat", [[2, 5, 3], [2, 7, 8, 3]], [2, 5, 3], ["Ünïcode 東京"]]
    for given in batches:
        request = embedder.clean("embeddings", {"input": given})
        counted = await embedder.engine.count_cleaned(embedder.address, request, embedder.served)
        found = await whole(embedder, "embeddings", input=given)
        assert found["usage"]["prompt_tokens"] == counted
        assert request.longest is not None
        assert request.most is not None
        assert counted <= request.most
        assert request.longest <= request.most


async def test_an_input_that_is_too_long_is_named(embedder: Case) -> None:
    for given, path in ((["a", "b " * 600], "input[1]"), ("b " * 600, "input")):
        request = embedder.clean("embeddings", {"input": given})
        assert (request.longest or 0) > embedder.plan.context
        with pytest.raises(ContextLengthExceeded) as refused:
            await embedder.engine.count_cleaned(embedder.address, request, embedder.served)
        assert (refused.value.param, refused.value.extras["max"]) == (path, 512)
        assert refused.value.extras["prompt_len"] == 602


async def test_an_empty_input_is_named(embedder: Case) -> None:
    with pytest.raises(InvalidRequestBody) as refused:
        embedder.clean("embeddings", {"input": ["a", ""]})
    assert refused.value.param == "input[1]"


async def test_a_token_id_that_nobody_has_is_no_other_token(embedder: Case) -> None:
    for given, path in (([5, 2**40], "input"), ([[5], [2**32 + 5]], "input[1]"), ([-1], "input")):
        with pytest.raises(InvalidRequestBody, match="does not exist") as refused:
            embedder.clean("embeddings", {"input": given})
        assert refused.value.param == path


async def test_more_inputs_than_fit_in_memory_are_refused(embedder: Case) -> None:
    embedder.clean("embeddings", {"input": ["a"] * 2048})
    embedder.clean("embeddings", {"input": [5] * 3000})  # one text
    for given in (["a"] * 2049, [[5]] * 2049):
        with pytest.raises(InvalidRequestBody, match="at most 2048") as refused:
            embedder.clean("embeddings", {"input": given})
        assert refused.value.param == "input"


async def test_a_model_without_answers_says_that_it_does_not_chat(embedder: Case) -> None:
    for body in ({"messages": [{"role": "user", "content": "hi"}]},):
        with pytest.raises(UnsupportedOperation):
            embedder.clean("chat", body)
    with pytest.raises(UnsupportedOperation):
        embedder.clean("completions", {"prompt": "hi"})
    assert embedder.facts.capabilities == ("embeddings",)


async def test_an_embedder_takes_its_longest_input_in_one_piece(embedder: Case) -> None:
    assert (embedder.plan.context, embedder.plan.batch) == (512, 512)
    long = "b " * 510
    found = await whole(embedder, "embeddings", input=[long, long])
    assert found["usage"]["prompt_tokens"] == 2 * 512


DOCUMENTS = ["a cat", "a dog", "the sky is blue", "cat"]


async def test_documents_are_ranked_as_they_are_scored_alone(reranker: Case) -> None:
    found = await whole(reranker, "rerank", query="cat", documents=DOCUMENTS)
    scores = {result["index"]: result["relevance_score"] for result in found["results"]}
    assert sorted(scores) == [0, 1, 2, 3]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for index, document in enumerate(DOCUMENTS):
        alone = await whole(reranker, "rerank", query="cat", documents=[document])
        assert alone["results"][0]["relevance_score"] == pytest.approx(scores[index], abs=1e-3)
    other = await whole(reranker, "rerank", query="blue", documents=DOCUMENTS)
    assert other["results"][0]["relevance_score"] != found["results"][0]["relevance_score"]


async def test_scores_are_probabilities_of_what_the_models_head_computes(reranker: Case) -> None:
    found = await whole(reranker, "rerank", query="cat", documents=DOCUMENTS)
    asked = {"model": reranker.served.model_id, "query": "cat", "documents": DOCUMENTS}
    answer = await ask(reranker.address, "POST", "/v1/rerank", asked)
    logits = {r["index"]: r["relevance_score"] for r in json.loads(answer.body)["results"]}
    for result in found["results"]:
        score = result["relevance_score"]
        assert 0 < score < 1
        assert math.log(score / (1 - score)) == pytest.approx(logits[result["index"]], abs=1e-3)


def test_scores_that_are_probabilities_already_stay_as_they_are() -> None:
    prepared = Prepared(None, [1])
    assert probable(prepared, "qwen3") is prepared
    amend = probable(prepared, "bert").amend
    assert amend is not None
    answer = {"results": [{"relevance_score": logit} for logit in (-800.0, 0.0, 800.0)]}
    amend(answer)
    assert [r["relevance_score"] for r in answer["results"]] == [0, 0.5, 1]


async def test_top_n_keeps_the_best_and_documents_come_on_request(reranker: Case) -> None:
    every = await whole(reranker, "rerank", query="cat", documents=DOCUMENTS)
    asked = {"query": "cat", "documents": [{"text": text} for text in DOCUMENTS]}
    best = await whole(reranker, "rerank", **asked, top_n=2, return_documents=True)
    assert [r["index"] for r in best["results"]] == [r["index"] for r in every["results"][:2]]
    for result in best["results"]:
        assert result["document"] == {"text": DOCUMENTS[result["index"]]}
    assert all("document" not in result for result in every["results"])
    for more in (9, 2**64):
        assert len((await whole(reranker, "rerank", **asked, top_n=more))["results"]) == 4


async def test_pairs_are_counted_before_as_they_are_after(reranker: Case) -> None:
    request = reranker.clean("rerank", {"query": "cat", "documents": DOCUMENTS})
    counted = await reranker.engine.count_cleaned(reranker.address, request, reranker.served)
    found = await whole(reranker, "rerank", query="cat", documents=DOCUMENTS)
    assert found["usage"]["prompt_tokens"] == counted
    request = reranker.clean("rerank", {"query": "cat", "documents": ["a", "b " * 600]})
    with pytest.raises(ContextLengthExceeded) as refused:
        await reranker.engine.count_cleaned(reranker.address, request, reranker.served)
    assert refused.value.param == "documents[1]"


async def test_a_reranker_has_nothing_but_scores(reranker: Case) -> None:
    assert reranker.facts.capabilities == ("rerank",)
    for route, body in (("chat", {"messages": [{"role": "user", "content": "hi"}]}),
                        ("embeddings", {"input": "x"}),
                        ("completions", {"prompt": "x"})):  # fmt: skip
        with pytest.raises(UnsupportedOperation):
            reranker.clean(route, body)
    with pytest.raises(InvalidRequestBody) as refused:
        reranker.clean("rerank", {"query": "", "documents": ["a"]})
    assert refused.value.param == "query"
