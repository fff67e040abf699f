"""A model that sees, at a real llama.cpp: an image costs what it is, and is seen."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.neuron.engines.driving import HOST, Case, as_json, running
from tests.pictures import BLUE, GIF, GREEN, JPEG, RED, bmp, data_url, part, png

from helexa.core.errors import HelexaError, InvalidRequestBody
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.engines.llamacpp.planning import make_plan
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.models.inspect import inspect

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


@pytest.fixture(scope="module")
def facts(tiny_models: Path) -> ModelFacts:
    return inspect(tiny_models / "vision/vision.gguf", "tiny/vision")


@pytest.fixture(scope="module")
async def case(facts: ModelFacts, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Case]:
    wanted: dict[str, object] = {"slots": 2, "ctx": 2048, "cache_ram_mb": 64}
    async with running(LlamaCpp(os.environ), facts, tmp_path_factory.mktemp("s"), wanted) as case:
        yield case


def asked(*images: bytes | str, text: str = "What is it?", **more: Any) -> Json:
    content: list[Json] = [{"type": "text", "text": text}, *(part(image) for image in images)]
    members: Json = {"max_tokens": 4, "temperature": 0, "logprobs": True, "ignore_eos": True}
    return {"messages": [{"role": "user", "content": content}], **members, **more}


async def answer(case: Case, body: Json) -> tuple[list[float], Json]:
    """The log probabilities of an answer, and its usage."""
    exchange = await case.send({"stream": True, **body})
    chunks = as_json(await exchange.finish())
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    found = [t for c in choices for t in (c.get("logprobs") or {}).get("content", ())]
    return [round(token["logprob"], 3) for token in found], chunks[-1]["usage"]


async def count(case: Case, body: Json) -> int:
    raw = msgspec.json.encode({"model": "m", **body})
    return await case.engine.count(case.address, raw, case.served)


async def test_the_tokens_of_an_image_are_counted_before_and_are_in_the_usage(case: Case) -> None:
    _, without = await answer(case, asked())
    sizes = []
    for image in (png(56, 56), png(224, 112), png(224, 224)):
        request = asked(image)
        counted = await count(case, request)
        _, usage = await answer(case, request)
        assert usage["prompt_tokens"] == counted > without["prompt_tokens"]
        sizes.append(counted - without["prompt_tokens"])
    assert sizes[2] - 2 == 2 * (sizes[1] - 2) == 64  # 28 × 28 pixels a token, a marker on each side


async def test_bytes_say_nothing_of_an_images_tokens_so_it_is_always_counted(case: Case) -> None:
    large = png(1120, 1120)
    request = case.clean("chat", asked(large))
    counted = await case.engine.count_cleaned(case.address, request, case.served)
    assert counted > 1600
    assert request.most is not None
    assert request.most > 1 << 60
    assert len(png(4480, 4480, RED)) < 8 * 4480 * 4480 // 784  # far fewer bytes than it has tokens
    assert case.clean("chat", asked()).most is None


async def test_another_image_changes_the_logits_and_the_same_one_does_not(case: Case) -> None:
    red, blue = asked(png(colour=RED)), asked(png(colour=BLUE))
    first, _ = await answer(case, red)
    other, _ = await answer(case, blue)
    again, usage = await answer(case, red)
    assert first == again != other
    assert usage["prompt_tokens_details"]["cached_tokens"] > 0
    jpeg, _ = await answer(case, asked(data_url(JPEG, "image/jpeg")))
    assert jpeg not in (first, other)


async def test_caches_tell_images_of_one_text_apart(case: Case) -> None:
    """The same text, cell for cell, around another image of the same size."""
    colours = [RED, BLUE, GREEN, RED, GREEN, BLUE, RED]
    alone = {}
    for colour in (RED, BLUE, GREEN):
        alone[colour], _ = await answer(case, asked(png(colour=colour), cache_prompt=False))
    assert len({tuple(found) for found in alone.values()}) == 3
    for colour in colours:
        found, usage = await answer(case, asked(png(colour=colour)))
        assert found == pytest.approx(alone[colour], abs=0.02)
        assert usage["prompt_tokens_details"]["cached_tokens"] < usage["prompt_tokens"]


async def test_several_images_keep_their_order(case: Case) -> None:
    red, blue = png(colour=RED), png(colour=BLUE)
    one, _ = await answer(case, asked(red, blue))
    two, _ = await answer(case, asked(blue, red))
    again, usage = await answer(case, asked(red, blue))
    assert one == pytest.approx(again, abs=0.02)
    assert one != pytest.approx(two, abs=0.02)
    single = await count(case, asked(red))
    assert usage["prompt_tokens"] - single == single - await count(case, asked())


async def test_an_image_stands_where_the_message_has_it(case: Case) -> None:
    image, text = part(png()), {"type": "text", "text": "What is it?"}
    body = asked()
    front = await answer(case, {**body, "messages": [{"role": "user", "content": [image, text]}]})
    behind = await answer(case, {**body, "messages": [{"role": "user", "content": [text, image]}]})
    assert front[1]["prompt_tokens"] == behind[1]["prompt_tokens"]
    assert front[0] != behind[0]


@pytest.mark.parametrize("data", [png(16, 8), JPEG, GIF, bmp(16, 8)])
async def test_what_is_let_through_is_decoded(case: Case, data: bytes) -> None:
    assert await count(case, asked(data)) > await count(case, asked())


async def test_sound_headers_over_broken_pixels_are_refused(case: Case) -> None:
    data = png(16, 8)
    start = data.index(b"IDAT") + 4
    broken = data[:start] + bytes(8) + data[start + 8 :]
    exchange = await case.send({"stream": True, **asked(broken)})
    assert await exchange.begin() == 400
    refusal = case.refusal(exchange)
    assert isinstance(refusal, InvalidRequestBody)
    assert "cannot be decoded" in refusal.message
    with pytest.raises(HelexaError):
        await count(case, asked(broken))


async def test_a_tools_result_may_hold_an_image(case: Case) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "shot", "arguments": "{}"}}

    def told(*parts: Json) -> Json:
        messages = [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": "a",
                "content": [{"type": "text", "text": "ok"}, *parts],
            },
        ]
        return {**asked(), "messages": messages}

    red, _ = await answer(case, told(part(png(colour=RED))))
    blue, usage = await answer(case, told(part(png(colour=BLUE))))
    assert red != blue
    assert usage["prompt_tokens"] > (await answer(case, told()))[1]["prompt_tokens"]


async def test_two_answers_to_one_image_pay_for_it_once(case: Case) -> None:
    _, one = await answer(case, asked(png()))
    _, two = await answer(case, asked(png(), n=2))
    assert two["prompt_tokens"] == one["prompt_tokens"]
    assert two["completion_tokens"] == 2 * one["completion_tokens"]


async def test_an_operator_may_bound_what_a_picture_costs(
    facts: ModelFacts, tmp_path: Path
) -> None:
    wanted: dict[str, object] = {"slots": 1, "ctx": 1024, "extra": {"image_max_tokens": 36}}
    async with running(LlamaCpp(os.environ), facts, tmp_path, wanted) as case:
        cost = await count(case, asked(png(560, 560))) - await count(case, asked())
        assert 2 < cost <= 36 + 2


def test_the_memory_plan_includes_the_projector(facts: ModelFacts) -> None:
    assert facts.projector is not None
    assert facts.projector_bytes > facts.projector.stat().st_size
    assert facts.projector in facts.files
    large = msgspec.structs.replace(facts, projector_bytes=facts.projector_bytes + (500 << 20))
    plain, more = make_plan(facts, HOST, {}), make_plan(large, HOST, {})
    assert more.memory_mb[-1] - plain.memory_mb[-1] >= 500


def test_an_image_fits_one_chunk_of_prefill(facts: ModelFacts) -> None:
    """Where an image's tokens see each other both ways, a small chunk would make it smaller."""
    assert make_plan(facts, HOST, {"prefill_tok_s": 10.0}).batch >= 512
    assert make_plan(
        msgspec.structs.replace(facts, projector=None), HOST, {"prefill_tok_s": 10.0}
    ).batch < 512  # fmt: skip
