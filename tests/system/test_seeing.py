"""Models that see, through the whole stack: client, gateway, node, llama.cpp."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import anthropic
import pytest
from tests.acp.editor import opened
from tests.neuron.system.conftest import SPARK, until
from tests.pictures import BLUE, JPEG, RED, WEBP, data_url, png
from tests.system.kinds import (
    EMBEDDER,
    RERANKER,
    SEER,
    Json,
    answer,
    asked,
    logprobs,
    refused,
    stack_of_kinds,
    tokens,
    wait_for,
)
from tests.system.rig import CHAT, Stack, StartStack


@pytest.fixture(scope="module")
def stack(make_stack: StartStack, tiny_models: Path) -> Stack:
    return stack_of_kinds(make_stack, tiny_models)


def test_a_cold_model_that_sees_is_loaded_with_its_projector_and_listed_as_such(
    stack: Stack,
) -> None:
    stack.node.post("/models/unload", {"model_id": SEER})  # another test may have woken it
    asleep = until(lambda: (e := stack.get(f"/v1/models/{SEER}"))["loaded"] is False and e)
    assert "vision" in asleep["capabilities"]
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
