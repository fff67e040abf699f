"""Models that see, embed and rank, through the whole stack: client, gateway, node, llama.cpp."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
from array import array
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.acp.editor import opened
from tests.neuron.system.conftest import SPARK, until
from tests.pictures import BLUE, JPEG, RED, WEBP, data_url, part, png
from tests.system.rig import CHAT, Stack, StartStack

SEER, EMBEDDER, RERANKER = "tiny/vision", "tiny/embedder", "tiny/reranker"
Json = dict[str, Any]

MODELS = """
[[models]]
id = "{id}"
harness = "llamacpp"
source = "{file}"
"""


@pytest.fixture(scope="module")
def stack(make_stack: StartStack, tiny_models: Path) -> Stack:
    """A gateway over a node with one model of each kind; the one that sees is asleep."""
    files = {
        f"tiny/{kind}": tiny_models / kind / f"{kind}.gguf"
        for kind in ("vision", "embedder", "reranker")
    }
    models = "".join(MODELS.format(id=name, file=file) for name, file in files.items())
    found = make_stack(models=models)
    for name in (EMBEDDER, RERANKER):
        found.node.load(name, source=str(files[name]))
        wait_for(found, name)
    until(lambda: found.get(f"/v1/models/{SEER}").get("capabilities"))  # its node has looked
    return found


def wait_for(stack: Stack, name: str) -> Json:
    """The model's entry, once the gateway knows it as loaded."""
    entry: Json = until(lambda: (e := stack.get(f"/v1/models/{name}")).get("loaded") and e)
    return entry


def asked(*images: bytes | str, text: str = "What is it?", **more: Any) -> Json:
    """A chat request with images behind its text."""
    content: list[Json] = [{"type": "text", "text": text}, *(part(image) for image in images)]
    members: Json = {"model": SEER, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    return {"messages": [{"role": "user", "content": content}], **members, **more}


def answer(stack: Stack, body: Json, key: str = "sk-open") -> Json:
    with stack.client(key, timeout=60) as client:
        found = client.post(CHAT, json=body)
    assert found.status_code == 200, found.text
    out: Json = found.json()
    return out


def tokens(stack: Stack, body: Json) -> int:
    return int(answer(stack, body)["usage"]["prompt_tokens"])


def logprobs(stack: Stack, *images: bytes | str) -> list[float]:
    found = answer(stack, asked(*images, logprobs=True))
    return [token["logprob"] for token in found["choices"][0]["logprobs"]["content"]]


def refused(stack: Stack, path: str, body: Json, status: int = 400, key: str = "sk-open") -> Json:
    with stack.client(key, timeout=60) as client:
        found = client.post(path, json=body)
    assert found.status_code == status, found.text
    error: Json = found.json()["error"]
    return error


# ── seeing ──────────────────────────────────────────────────────────────────────────────────


def test_a_cold_model_that_sees_is_loaded_with_its_projector_and_listed_as_such(
    stack: Stack,
) -> None:
    asleep = stack.get(f"/v1/models/{SEER}")
    assert ("vision" in asleep["capabilities"], asleep["loaded"]) == (True, False)
    assert tokens(stack, asked(png())) > tokens(stack, asked())
    entry = wait_for(stack, SEER)
    assert {"text", "vision", "tools"} <= set(entry["capabilities"])
    assert stack.get(f"/v1/models/{EMBEDDER}")["capabilities"] == ["embeddings"]
    assert stack.get(f"/v1/models/{RERANKER}")["capabilities"] == ["rerank"]
    assert "vision" not in stack.get(f"/v1/models/{SPARK}")["capabilities"]


def test_another_image_changes_the_answers_probabilities_and_the_same_one_does_not(
    stack: Stack,
) -> None:
    red, blue = logprobs(stack, png(colour=RED)), logprobs(stack, png(colour=BLUE))
    assert red != pytest.approx(blue, abs=0.02)
    assert logprobs(stack, png(colour=RED)) == pytest.approx(red, abs=0.02)
    both = logprobs(stack, png(colour=RED), png(colour=BLUE))
    assert both != pytest.approx(logprobs(stack, png(colour=BLUE), png(colour=RED)), abs=0.02)


def test_an_image_costs_its_tokens_in_every_dialect_and_in_the_count_before(stack: Stack) -> None:
    image = base64.b64encode(png(224, 112)).decode()
    source: Any = {"type": "base64", "media_type": "image/png", "data": image}
    turn: Any = {"role": "user", "content": [{"type": "text", "text": "What is it?"},
                                             {"type": "image", "source": source}]}  # fmt: skip
    cost = tokens(stack, asked(png(224, 112)))
    assert cost == tokens(stack, asked()) + 34
    with anthropic.Anthropic(base_url=stack.url, api_key="sk-open", max_retries=0) as client:
        said = client.messages.create(model=SEER, max_tokens=4, messages=[turn])
        counted = client.messages.count_tokens(model=SEER, messages=[turn])
    assert said.usage.input_tokens + (said.usage.cache_read_input_tokens or 0) == cost
    assert counted.input_tokens == cost
    words = {"type": "input_text", "text": "What is it?"}
    seen = {"type": "input_image", "image_url": data_url(png(224, 112)), "detail": "auto"}
    item: Any = {"role": "user", "content": [words, seen]}
    with stack.sdk() as sdk:
        made = sdk.responses.create(model=SEER, max_output_tokens=4, input=[item], store=False)
    assert made.usage is not None
    assert made.usage.input_tokens == cost


def test_a_streamed_answer_about_an_image_is_metered_and_settled(stack: Stack) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    with stack.sdk("sk-meter") as sdk:
        body = asked(png())
        chunks = list(
            sdk.chat.completions.create(
                model=SEER,
                messages=body["messages"],
                max_tokens=4,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == tokens(stack, body)
    assert stack.settled("sk-meter")["spent_tokens"] - before == usage.total_tokens


def test_a_budget_pays_for_what_an_image_is_and_not_for_its_bytes(stack: Stack) -> None:
    """A few kilobytes that are 1,600 tokens exceed a cap of 900; megabytes that are few do not."""
    small = png(1120, 1120)
    assert len(small) < 12_000
    error = refused(stack, CHAT, asked(small), 429, "sk-tight")
    assert error["code"] == "insufficient_quota"
    assert stack.settled("sk-tight")["spent_tokens"] == 0
    large = png(56, 56) + bytes(3_000_000)  # decoders stop at the image's end
    found = answer(stack, asked(large, max_tokens=1), "sk-tight")
    assert stack.settled("sk-tight")["spent_tokens"] == found["usage"]["total_tokens"] < 100


def test_an_image_that_does_not_fit_the_context_says_how_long_the_prompt_is(stack: Stack) -> None:
    error = refused(stack, CHAT, asked(*[png(1400, 1400, (9, index, 9)) for index in range(8)]))
    assert error["code"] == "context_length_exceeded"
    assert error["prompt_len"] > 8 * 2500
    assert error["max"] == stack.get(f"/v1/models/{SEER}")["limit"]["input"]


def test_a_model_that_cannot_see_names_one_that_can_in_every_dialect(stack: Stack) -> None:
    error = refused(stack, CHAT, asked(png(), model=SPARK))
    assert (error["code"], error["param"]) == ("vision_unsupported", "messages[0].content[1]")
    assert f"Use '{SEER}'" in error["message"]
    block = {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "AA=="},
    }
    turn = {"role": "user", "content": [block]}
    error = refused(stack, "/v1/messages", {"model": SPARK, "max_tokens": 1, "messages": [turn]})
    assert "`messages[0].content[0]`" in error["message"]
    assert SEER in error["message"]
    item = {"role": "user", "content": [{"type": "input_image", "image_url": data_url(png())}]}
    error = refused(stack, "/v1/responses", {"model": SPARK, "input": [item]})
    assert error["code"] == "vision_unsupported"
    assert SEER in error["message"]


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("https://example.org/a.png", "unsupported_parameter", "is not fetched here"),
        ("http://127.0.0.1:1/a.png", "unsupported_parameter", "is not fetched here"),
        ("file:///etc/passwd", "unsupported_parameter", "is not fetched here"),
        (data_url(WEBP, "image/webp"), "unsupported_parameter", "Send png, jpeg, gif or bmp"),
        (data_url(b"%PDF-1.7", "application/pdf"), "invalid_request_body", "not an image"),
        (data_url(png()[:-9]), "invalid_request_body", "is cut off"),
        ("data:image/png;base64,!", "invalid_request_body", "not valid base64"),
    ],
    ids=["https", "http", "file", "webp", "pdf", "cut", "base64"],
)  # fmt: skip
def test_what_is_no_image_here_is_refused_by_its_path(
    stack: Stack, url: str, code: str, words: str
) -> None:
    error = refused(stack, CHAT, asked(png(), url))
    assert (error["code"], error["param"]) == (code, "messages[0].content[2].image_url.url")
    assert words in error["message"]


def test_images_of_tool_results_are_seen(stack: Stack) -> None:
    def told(colour: tuple[int, int, int]) -> Json:
        source = {"type": "base64", "media_type": "image/png",
                  "data": base64.b64encode(png(colour=colour)).decode()}  # fmt: skip
        result = {"type": "tool_result", "tool_use_id": "a",
                  "content": [{"type": "image", "source": source}]}  # fmt: skip
        use = {"type": "tool_use", "id": "a", "name": "shot", "input": {}}
        messages = [{"role": "user", "content": "Look."}, {"role": "assistant", "content": [use]},
                    {"role": "user", "content": [result]}]  # fmt: skip
        body = {"model": SEER, "max_tokens": 6, "temperature": 0, "messages": messages}
        with stack.client(timeout=60) as client:
            found: Json = client.post("/v1/messages", json=body).json()
        return found

    red, blue = told(RED), told(BLUE)
    assert red["content"] != blue["content"]
    assert red["usage"] != {}
    shown = [{"type": "input_image", "image_url": data_url(JPEG, "image/jpeg")}]
    outputs = [{"type": "function_call", "call_id": "a", "name": "shot", "arguments": "{}"},
               {"type": "function_call_output", "call_id": "a", "output": shown}]  # fmt: skip
    body = {"model": SEER, "input": outputs, "max_output_tokens": 2}
    with stack.client(timeout=60) as client:
        assert client.post("/v1/responses", json=body).json()["status"] == "incomplete"


@pytest.mark.anyio
async def test_a_picture_in_an_editors_prompt_is_seen(stack: Stack, tmp_path: Path) -> None:
    import acp

    work = tmp_path / "work"
    work.mkdir()
    config = tmp_path / "config.toml"
    config.write_text(
        f'[[endpoints]]\nname = "here"\nbase_url = "{stack.url}/v1"\nwire_api = "chat"\n'
        f'default_model = "{SEER}"\nmax_tokens = 4\napi_key = "sk-open"\n'
    )
    used = []
    async with opened(
        "", tmp_path, work, HELEXA_ACP_CONFIG_PATH=str(config), HELEXA_ACP_MAX_TOKENS=""
    ) as session:
        picture = base64.b64encode(png(560, 560)).decode()
        await session.prompt("look", acp.image_block(picture, "image/png"))
        assert "cannot answer" not in session.editor.text()
        used += [u.used for u in session.editor.updates if u.session_update == "usage_update"]
    assert used[0] > 400 + 100


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
