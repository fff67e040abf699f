"""Models that embed and rank, through the whole stack: client, gateway, node, llama.cpp."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from array import array
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from tests.neuron.system.conftest import SPARK, until
from tests.pictures import png
from tests.system.kinds import (
    EMBEDDER,
    RERANKER,
    SEER,
    Json,
    asked,
    refused,
    stack_of_kinds,
    tokens,
)
from tests.system.rig import CHAT, Stack, StartStack


@pytest.fixture(scope="module")
def stack(make_stack: StartStack, tiny_models: Path) -> Stack:
    return stack_of_kinds(make_stack, tiny_models)


# ── embedding ───────────────────────────────────────────────────────────────────────────────

TEXTS = ["a cat", "the dog sat on a mat", "x", "a cat"]


def test_vectors_come_in_the_order_of_their_inputs_as_sdks_ask_for_them(stack: Stack) -> None:
    with stack.sdk() as sdk:
        packed = sdk.embeddings.create(model=EMBEDDER, input=TEXTS)  # asks for base64
        floats = sdk.embeddings.create(model=EMBEDDER, input=TEXTS, encoding_format="float")
        alone = [sdk.embeddings.create(model=EMBEDDER, input=text) for text in TEXTS]
    assert [item.index for item in packed.data] == [0, 1, 2, 3]
    for many, plain, one in zip(packed.data, floats.data, alone, strict=True):
        assert many.embedding == pytest.approx(plain.embedding, abs=1e-5)
        assert many.embedding == pytest.approx(one.data[0].embedding, abs=1e-3)
    assert packed.data[0].embedding == pytest.approx(packed.data[3].embedding, abs=1e-3)
    assert packed.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    raw = httpx.post(
        f"{stack.url}/v1/embeddings",
        json={"model": EMBEDDER, "input": "x", "encoding_format": "base64", "dimensions": 8},
        headers={"authorization": "Bearer sk-open"},
        timeout=60,
    ).json()
    assert len(array("f", base64.b64decode(raw["data"][0]["embedding"]))) == 8


def test_embeddings_are_billed_to_the_token_and_never_beyond_a_cap(stack: Stack) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    with stack.sdk("sk-meter") as sdk:
        usage = sdk.embeddings.create(model=EMBEDDER, input=TEXTS).usage
    assert stack.settled("sk-meter")["spent_tokens"] - before == usage.prompt_tokens > 0
    tight = stack.settled("sk-tight")["spent_tokens"]
    many = {"model": EMBEDDER, "input": ["a b c d e f g h"] * 200}  # 10 tokens each
    error = refused(stack, "/v1/embeddings", many, 429, "sk-tight")
    assert error["code"] == "insufficient_quota"
    assert stack.settled("sk-tight")["spent_tokens"] == tight


def test_an_input_that_is_empty_or_too_long_is_named(stack: Stack) -> None:
    path = "/v1/embeddings"
    error = refused(stack, path, {"model": EMBEDDER, "input": ["a", "b " * 600]})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "input[1]")
    assert (error["prompt_len"], error["max"]) == (602, 512)
    error = refused(stack, path, {"model": EMBEDDER, "input": ["a", ""]})
    assert (error["code"], error["param"]) == ("invalid_request_body", "input[1]")
    error = refused(stack, path, {"model": EMBEDDER, "input": "a", "dimensions": 65})
    assert (error["code"], error["param"]) == ("invalid_request_body", "dimensions")
    limit = stack.get(f"/v1/models/{EMBEDDER}")["limit"]
    assert (limit["input"], limit["output"]) == (512, 0)


MANY = [f"a cat and {index} dogs" for index in range(100)]


def test_many_inputs_are_answered_like_few_and_billed_exactly(stack: Stack) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    with stack.sdk("sk-meter") as sdk:
        found = sdk.embeddings.create(model=EMBEDDER, input=MANY)
        alone = sdk.embeddings.create(model=EMBEDDER, input=MANY[77])
        ids = sdk.embeddings.create(model=EMBEDDER, input=[[index + 5] * 3 for index in range(70)])
    assert [item.index for item in found.data] == list(range(100))
    assert found.data[77].embedding == pytest.approx(alone.data[0].embedding, abs=1e-3)
    assert (len(ids.data), ids.usage.total_tokens) == (70, 210)
    spent = stack.settled("sk-meter")["spent_tokens"] - before
    assert spent == found.usage.prompt_tokens + alone.usage.prompt_tokens + 210


def test_leaving_many_inputs_behind_ends_their_work_and_what_was_computed_is_billed(
    stack: Stack,
) -> None:
    """Where the engine had them all it went on, with a seat, for nobody."""
    body = {"model": EMBEDDER, "input": ["a b c d e f g h " * 40] * 1500}
    before = stack.settled("sk-meter")["spent_tokens"]
    left = threading.Event()

    def ask() -> None:
        with stack.client("sk-meter") as client, contextlib.suppress(httpx.HTTPError):
            open_until(client, body, left)

    asking = threading.Thread(target=ask)
    asking.start()
    computed = until(lambda: sum(r.get("prompt", 0) for r in stack.node.get("/requests")
                                 if r["state"] == "prefill"))  # fmt: skip
    left.set()
    asking.join(60)
    until(lambda: stack.node.figures(EMBEDDER)["in_flight"] == 0)
    spent = stack.settled("sk-meter")["spent_tokens"] - before
    assert computed <= spent < 1500 * 322


def open_until(client: httpx.Client, body: Json, left: threading.Event) -> None:
    """Ask, and hang up when ``left`` is set."""
    request = client.build_request("POST", "/v1/embeddings", json=body)
    with socket.create_connection((client.base_url.host, client.base_url.port or 80)) as sock:
        lines = [f"{name}: {value}" for name, value in request.headers.items()]
        sock.sendall("\r\n".join(["POST /v1/embeddings HTTP/1.1", *lines, "", ""]).encode())
        sock.sendall(request.read())
        left.wait(60)


def test_a_model_that_does_not_embed_names_one_that_does(stack: Stack) -> None:
    for model in (SPARK, RERANKER):
        error = refused(stack, "/v1/embeddings", {"model": model, "input": "x"})
        assert error["code"] == "unsupported_operation"
        assert f"Use '{EMBEDDER}'" in error["message"]
    error = refused(
        stack, CHAT, {"model": EMBEDDER, "messages": [{"role": "user", "content": "x"}]}
    )
    assert error["code"] == "unsupported_operation"
    assert SPARK in error["message"]


# ── ranking ─────────────────────────────────────────────────────────────────────────────────

DOCUMENTS = ["a cat", "a dog", "the sky is blue", "cat"]


def rank(stack: Stack, **body: Any) -> Json:
    with stack.client(timeout=60) as client:
        found = client.post("/v1/rerank", json={"model": RERANKER, "query": "cat", **body})
    assert found.status_code == 200, found.text
    out: Json = found.json()
    return out


def test_documents_come_back_best_first_with_the_scores_they_have_alone(stack: Stack) -> None:
    found = rank(stack, documents=DOCUMENTS)
    assert found["model"] == RERANKER
    scores = {r["index"]: r["relevance_score"] for r in found["results"]}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    alone = [rank(stack, documents=[text]) for text in DOCUMENTS]
    for index, one in enumerate(alone):
        assert one["results"][0]["relevance_score"] == pytest.approx(scores[index], abs=1e-3)
    total = sum(one["usage"]["prompt_tokens"] for one in alone)
    assert found["usage"]["prompt_tokens"] == total
    best = rank(stack, documents=DOCUMENTS, top_n=2, return_documents=True)
    assert [r["index"] for r in best["results"]] == list(scores)[:2]
    assert best["results"][0]["document"] == {"text": DOCUMENTS[best["results"][0]["index"]]}


def test_many_documents_are_ranked_together_and_come_back_as_they_were_given(stack: Stack) -> None:
    documents = [{"text": f"{n} dogs" if n != 88 else "cat", "id": n} for n in range(100)]
    every = rank(stack, documents=documents)["results"]
    assert sorted(r["index"] for r in every) == list(range(100))
    scores = [r["relevance_score"] for r in every]
    assert scores == sorted(scores, reverse=True)
    best = rank(stack, documents=documents, top_n=5, return_documents=True)["results"]
    assert [r["index"] for r in best] == [r["index"] for r in every[:5]]
    assert best[0]["document"] == documents[best[0]["index"]]


def test_coheres_second_route_is_the_first(stack: Stack) -> None:
    body = {"model": RERANKER, "query": "cat", "documents": DOCUMENTS}
    with stack.client() as client:
        found = client.post("/v2/rerank", json=body)
    assert found.json()["results"] == rank(stack, documents=DOCUMENTS)["results"]
    assert stack.node.post("/v2/rerank", body).status_code == 200


def test_a_rerank_is_billed_and_a_document_that_is_too_long_is_named(stack: Stack) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    body = {"model": RERANKER, "query": "cat", "documents": DOCUMENTS}
    with stack.client("sk-meter") as client:
        usage = client.post("/v1/rerank", json=body).json()["usage"]
    assert stack.settled("sk-meter")["spent_tokens"] - before == usage["prompt_tokens"] > 0
    error = refused(stack, "/v1/rerank", {**body, "documents": ["a", "b " * 600]})
    assert (error["code"], error["param"]) == ("context_length_exceeded", "documents[1]")
    error = refused(stack, "/v1/rerank", {**body, "query": ""})
    assert error["param"] == "query"


def test_a_model_that_does_not_rank_names_one_that_does(stack: Stack) -> None:
    for model in (SPARK, EMBEDDER):
        body = {"model": model, "query": "a", "documents": ["b"]}
        error = refused(stack, "/v1/rerank", body)
        assert error["code"] == "unsupported_operation"
        assert f"Use '{RERANKER}'" in error["message"]


def test_a_sdk_meets_these_refusals_as_bad_requests(stack: Stack) -> None:
    with stack.sdk(retries=2) as sdk, pytest.raises(openai.BadRequestError) as wrong:
        sdk.embeddings.create(model=SPARK, input="x")
    assert wrong.value.code == "unsupported_operation"
    assert json.loads(wrong.value.response.content)["error"]["param"] == "model"


def test_a_node_that_is_asked_itself_names_what_it_has_loaded(stack: Stack) -> None:
    tokens(stack, asked())  # it is awake by now, or wakes
    for path, body, code, name in (
        ("/v1/embeddings", {"model": SPARK, "input": "x"}, "unsupported_operation", EMBEDDER),
        ("/v1/rerank", {"model": SPARK, "query": "a", "documents": ["b"]}, "unsupported_operation",
         RERANKER),
        (CHAT, {**asked(), "model": EMBEDDER}, "unsupported_operation", SPARK),
        (CHAT, asked(png(), model=SPARK), "vision_unsupported", SEER),
    ):  # fmt: skip
        found = stack.node.post(path, body)
        assert found.status_code == 400
        error = found.json()["error"]
        assert error["code"] == code
        assert f"'{name}'" in error["message"]
