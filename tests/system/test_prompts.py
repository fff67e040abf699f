"""Several prompts in one text completion, through client, gateway, node and llama.cpp."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from tests.neuron.system.conftest import SPARK, until
from tests.openai_schema import validate
from tests.system.rig import Stack

Json = dict[str, Any]
PATH = "/v1/completions"
TEXTS = ["one two three", "house garden", "Repeat: tree", "Paris is"]


def asked(prompt: Any, **more: Any) -> Json:
    return {"model": SPARK, "prompt": prompt, "max_tokens": 6, "temperature": 0, **more}


def post(stack: Stack, body: Json, key: str = "sk-open") -> httpx.Response:
    with stack.client(key) as client:
        return client.post(PATH, json=body)


def answer(stack: Stack, body: Json, key: str = "sk-open") -> Json:
    found = post(stack, body, key)
    assert found.status_code == 200, found.text
    out: Json = found.json()
    return out


def refused(stack: Stack, body: Json, status: int = 400, key: str = "sk-open") -> Json:
    found = post(stack, body, key)
    assert found.status_code == status, found.text
    error: Json = found.json()["error"]
    return error


def events(text: str) -> list[Json]:
    lines = [line for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines]


def test_each_prompt_gets_the_answer_it_has_alone_and_usage_is_their_sum(stack: Stack) -> None:
    alone = [answer(stack, asked(text)) for text in TEXTS]
    together = answer(stack, asked(TEXTS))
    validate("CreateCompletionResponse", together)
    assert [c["index"] for c in together["choices"]] == [0, 1, 2, 3]
    assert [c["text"] for c in together["choices"]] == [a["choices"][0]["text"] for a in alone]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert together["usage"][name] == sum(a["usage"][name] for a in alone)


def test_choices_of_several_prompts_are_numbered_prompt_by_prompt(stack: Stack) -> None:
    body = asked(TEXTS, n=2, logprobs=1)
    alone = [answer(stack, asked(text))["choices"][0]["text"] for text in TEXTS]
    found = answer(stack, body)["choices"]
    assert [c["index"] for c in found] == list(range(8))
    assert [c["text"] for c in found] == [text for text in alone for _ in range(2)]
    for choice in found:
        assert choice["logprobs"]["text_offset"][0] == 0
        assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    streamed = events(post(stack, body | {"stream": True}).text)
    texts = ["".join(c["text"] for e in streamed for c in e["choices"] if c["index"] == i)
             for i in range(8)]  # fmt: skip
    assert texts == [c["text"] for c in found]


def test_a_stream_of_several_prompts_has_one_usage_and_one_end(stack: Stack) -> None:
    with stack.sdk() as sdk:
        chunks = list(
            sdk.completions.create(
                model=SPARK, prompt=TEXTS, max_tokens=6, temperature=0, stream=True,
                stream_options={"include_usage": True},
            )
        )  # fmt: skip
        plain = sdk.completions.create(model=SPARK, prompt=TEXTS, max_tokens=6, temperature=0)
    said = dict.fromkeys(range(4), "")
    ends = []
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        said[choice.index] += choice.text
        ends.append((choice.finish_reason, choice.index))
    assert sorted(index for reason, index in ends if reason == "length") == [0, 1, 2, 3]
    assert list(said.values()) == [choice.text for choice in plain.choices]
    usages = [chunk.usage for chunk in chunks if not chunk.choices]
    assert plain.usage is not None
    assert [usage and usage.total_tokens for usage in usages] == [plain.usage.total_tokens]
    assert len({chunk.id for chunk in chunks}) == 1
    without = events(post(stack, asked(TEXTS, stream=True)).text)
    assert all(event["choices"] for event in without)


def test_prompts_are_texts_or_token_ids_and_a_list_of_one_is_one(stack: Stack) -> None:
    ids = [[5, 6, 7], [8] * 40]
    found = answer(stack, asked(ids))
    alone = [answer(stack, asked(one)) for one in ids]
    assert [c["text"] for c in found["choices"]] == [a["choices"][0]["text"] for a in alone]
    assert found["usage"]["prompt_tokens"] == 43
    for one in ([TEXTS[0]], [ids[1]]):
        assert answer(stack, asked(one))["choices"] == answer(stack, asked(one[0]))["choices"]


@pytest.mark.parametrize(
    ("prompt", "param"),
    [
        ([], "prompt"),
        (["a", 1], "prompt[1]"),
        (["a", ["b"]], "prompt[1]"),
        ([[1], []], "prompt[1]"),
        ([[1], [-1]], "prompt[1]"),
        ([[1], ["a"]], "prompt[1]"),
        ([None], "prompt[0]"),
        (["a"] * 2049, "prompt"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused_by_its_path(
    stack: Stack, prompt: Any, param: str
) -> None:
    assert refused(stack, asked(prompt))["param"] == param


def test_more_prompts_than_seats_are_all_answered_and_settled_exactly(stack: Stack) -> None:
    seats = stack.node.figures()["max_in_flight"]
    before = stack.settled("sk-meter")["spent_tokens"]
    prompts = [f"Repeat: house {index}" for index in range(8 * seats)]
    found = answer(stack, asked(prompts), "sk-meter")
    assert [c["index"] for c in found["choices"]] == list(range(len(prompts)))
    spent = stack.settled("sk-meter")["spent_tokens"] - before
    assert spent == found["usage"]["total_tokens"]


def test_a_prompt_that_is_too_long_among_others_is_named_and_nothing_is_billed(
    stack: Stack,
) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    for more in ({}, {"stream": True}):
        error = refused(stack, asked(["a", "one two " * 6000], **more), key="sk-meter")
        assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt[1]")
        assert "maximum context length is" in error["message"]
        alone = refused(stack, asked("one two " * 6000, **more), key="sk-meter")
        assert (alone["param"], "messages" in alone["message"]) == ("prompt", False)
    assert stack.settled("sk-meter")["spent_tokens"] == before


def test_prompts_that_together_exceed_the_budget_are_refused_before_any_is_computed(
    stack: Stack,
) -> None:
    cap = int(stack.get("/v1/usage", "sk-tight")["hard_cap"])
    error = refused(stack, asked([[5] * 100] * (cap // 100 + 1)), 429, "sk-tight")
    assert error["code"] == "insufficient_quota"
    assert stack.settled("sk-tight")["spent_tokens"] == 0


def test_several_prompts_are_cut_at_the_budget_to_the_token(stack: Stack) -> None:
    """After the test above: one that is refused leaves the whole budget."""
    cap = int(stack.get("/v1/usage", "sk-tight")["hard_cap"])
    body = asked([[5] * 50] * 8, max_tokens=200, ignore_eos=True)
    found = answer(stack, body, "sk-tight")
    assert [c["index"] for c in found["choices"]] == list(range(8))
    assert {c["finish_reason"] for c in found["choices"]} == {"length"}
    assert found["helexa"]["finish"] == "budget"
    spent = stack.settled("sk-tight")["spent_tokens"]
    assert spent == found["usage"]["total_tokens"]
    assert cap - 51 <= spent <= cap


def test_a_client_that_leaves_cancels_all_prompts_and_pays_for_what_was_computed(
    stack: Stack,
) -> None:
    before = stack.settled("sk-meter")["spent_tokens"]
    body = asked(["Count."] * 200, max_tokens=200, ignore_eos=True, stream=True)
    with stack.client("sk-meter") as client, client.stream("POST", PATH, json=body) as got:
        lines = got.iter_lines()
        while not next(lines).startswith("data: "):
            pass
    until(lambda: stack.node.in_flight() == 0 and stack.node.figures()["queue_depth"] == 0)
    spent = stack.settled("sk-meter")["spent_tokens"] - before
    assert 0 < spent < 200 * 200


def test_an_echo_is_the_prompt_before_its_answer_plain_and_streamed(stack: Stack) -> None:
    texts = ["house \u2603 garden", "Repeat: tree"]
    plain = answer(stack, asked(texts, n=2))
    found = answer(stack, asked(texts, n=2, echo=True))
    for choice, without in zip(found["choices"], plain["choices"], strict=True):
        assert choice["text"] == texts[choice["index"] // 2] + without["text"]
    assert found["usage"]["total_tokens"] == plain["usage"]["total_tokens"]
    streamed = events(post(stack, asked(texts, n=2, echo=True, stream=True)).text)
    said = ["".join(c["text"] for e in streamed for c in e["choices"] if c["index"] == i)
            for i in range(4)]  # fmt: skip
    assert said == [c["text"] for c in found["choices"]]


@pytest.mark.parametrize(("prompt", "more"), [("a", {"logprobs": 0}), ([5, 6], {})])
def test_an_echo_that_would_not_be_true_is_refused_by_name(
    stack: Stack, prompt: Any, more: Json
) -> None:
    error = refused(stack, asked(prompt, echo=True, **more))
    assert (error["code"], error["param"]) == ("unsupported_parameter", "echo")


def test_langchains_way_of_asking_is_served(stack: Stack) -> None:
    """It sends lists of twenty prompts, by default."""
    found = answer(stack, asked([f"Repeat: {n}" for n in range(20)], n=1, logit_bias=None))
    assert len(found["choices"]) == 20
