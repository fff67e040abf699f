"""What clients send, on its way to llama.cpp: cleaned, bounded, repaired."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from helexa.core.errors import (
    HelexaError,
    RequestRefused,
    UnsupportedOperation,
    UnsupportedParameter,
)
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.llamacpp.chat import _ORDINARY
from helexa.neuron.engines.llamacpp.clean import engine_request

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]


ADD = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def sent(served: Served, route: str = "chat", /, **body: Any) -> Any:
    """What the engine would get; ``header_asks`` stands for the header."""
    thinking = bool(body.pop("header_asks", False))
    members = {"messages": HI, **body} if route == "chat" else body
    raw = json.dumps({"model": "asked", **members}).encode()
    request = engine_request(route, raw, served, "abc", created=1, thinking=thinking)
    return json.loads(request.body)


def refusal(served: Served, route: str = "chat", /, **body: Any) -> HelexaError:
    with pytest.raises(HelexaError) as refused:
        sent(served, route, **body)
    return refused.value


def test_a_request_of_ordinary_members_becomes_what_every_check_would_have_made_of_it(
    served: Served,
) -> None:
    said: dict[str, Any] = dict.fromkeys(("temperature", "top_p", "presence_penalty"), 0.5)
    said |= {"frequency_penalty": 1, "stream": True, "stream_options": {"include_usage": False}}
    said |= {"max_tokens": 7, "max_completion_tokens": 5, "seed": 3, "stop": ["x"], "user": "u"}
    assert {"model", "messages", *said} == _ORDINARY
    long_way = sent(served, **said, unheard_of=1)
    assert long_way.pop("unheard_of") == 1
    assert sent(served, **said) == long_way


def test_the_engine_always_streams_and_reports(served: Served) -> None:
    for stream in (True, False):
        body = sent(served, stream=stream, stream_options={"include_usage": False})
        assert body["stream"] is True
        assert body["stream_options"] == {"include_usage": True}
        assert body["return_progress"] is True
        assert body["timings_per_token"] is True
        assert body["model"] == "org/model"


def test_unknown_members_survive_and_nulls_are_unset(served: Served) -> None:
    body = sent(served, top_a=0.5, custom={"a": [1]}, temperature=None, stop=None)
    assert body["top_a"] == 0.5
    assert body["custom"] == {"a": [1]}
    assert "temperature" not in body
    assert "stop" not in body


def test_what_would_step_around_the_node_is_dropped(served: Served) -> None:
    body = sent(served, id_slot=1, cache_prompt=False, reasoning_format="none", n_predict=5000)
    dropped = {"id_slot", "cache_prompt", "reasoning_format", "n_predict"}
    assert not dropped & set(body)
    raw = {"reasoning_format": "none", "chat_parser": "{}", "preserved_tokens": ["<think>"]}
    assert not raw.keys() & sent(served, "completions", prompt="hi", **raw).keys()


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize("name", ["repeat_last_n", "dry_penalty_last_n"])
def test_an_engine_looks_back_no_further_than_its_context(
    served: Served, route: str, name: str
) -> None:
    for given, used in ((2**31 - 1, served.plan.context), (2e9, served.plan.context), (64, 64)):
        assert sent(served, route, prompt="hi", **{name: given})[name] == used


@pytest.mark.parametrize("route", ["chat", "completions"])
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"samplers": ["top_k"] * 100_000}, "samplers"),
        ({"samplers": "k" * 100_000}, "samplers"),
        ({"dry_sequence_breakers": ["\n"] * 1000}, "dry_sequence_breakers"),
        ({"stop": [str(n) for n in range(1000)]}, "stop"),
        ({"logit_bias": [[1, 1]] * 300_000}, "logit_bias"),
        ({"grammar": "root ::= [a]", "grammar_lazy": True}, "grammar_lazy"),
        ({"grammar_triggers": [{"type": 2, "value": "((a+)+)+$"}]}, "grammar_triggers"),
    ],
)
def test_what_would_hold_up_everybody_elses_tokens_is_refused(
    served: Served, route: str, body: dict[str, Any], param: str
) -> None:
    error = refusal(served, route, prompt="hi", **body)
    assert isinstance(error, RequestRefused)
    assert error.param == param
    assert f"`{param}`" in error.message


def test_a_token_id_that_nobody_has_is_refused(served: Served) -> None:
    assert sent(served, "completions", prompt=[5, 6])["prompt"] == [5, 6]
    assert refusal(served, "completions", prompt=[5, 2**40]).param == "prompt"


@pytest.mark.parametrize("piece", ["[", '"', "[^", '"\\', "{1,", "{1", "#["])
def test_what_a_grammar_never_closes_is_read_once(served: Served, piece: str) -> None:
    """And not again from every bracket on, for hours."""
    endless = "root ::= " + piece * 200_000
    assert sent(served, "completions", prompt="hi", grammar=endless)["grammar"] == endless


@pytest.mark.parametrize(
    ("caps", "expected"),
    [
        ({}, 1000),
        ({"max_tokens": 32_000}, 1000),
        ({"max_completion_tokens": 32_000}, 1000),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9, "max_tokens": 30}, 9),
        ({"max_tokens": -1}, 1000),
        ({"n_predict": 3}, 3),
    ],
)
def test_output_caps_are_clamped_never_refused(
    served: Served, caps: dict[str, int], expected: int
) -> None:
    body = sent(served, **caps)
    assert body["max_tokens"] == expected
    assert "max_completion_tokens" not in body


def test_operations_the_model_was_not_loaded_for_are_refused(served: Served) -> None:
    without = replace(served, plan=replace(served.plan, embeddings=False))
    found = refusal(without, "embeddings", input="x")
    assert isinstance(found, UnsupportedOperation)
    assert isinstance(refusal(served, "rerank", query="x", documents=["y"]), UnsupportedOperation)
    assert isinstance(refusal(served, "speech"), UnsupportedOperation)


def test_embeddings_and_rerank_are_checked(served: Served) -> None:
    assert refusal(served, "embeddings").param == "input"
    assert refusal(served, "embeddings", input=[]).param == "input"
    found = refusal(served, "embeddings", input="x", encoding_format="hex")
    assert found.param == "encoding_format"
    ranks = replace(served, plan=replace(served.plan, rerank=True, embeddings=False))
    assert refusal(ranks, "rerank", query="x", documents=[5]).param == "documents[0]"
    assert refusal(ranks, "rerank", query="x", documents=["a"], top_n=0).param == "top_n"
    body = sent(ranks, "rerank", query="x", documents=["a", {"text": "b"}], return_documents=True)
    assert body["documents"] == ["a", "b"]
    assert "return_documents" not in body


def test_legacy_prompts_are_texts_or_tokens(served: Served) -> None:
    assert sent(served, "completions", prompt=["a"])["prompt"] == "a"
    assert sent(served, "completions", prompt=[1, 2])["prompt"] == [1, 2]
    assert sent(served, "completions", prompt=[[1, 2]])["prompt"] == [1, 2]
    assert refusal(served, "completions").param == "prompt"
    assert refusal(served, "completions", prompt="a", logprobs=True).param == "logprobs"
    assert sent(served, "completions", prompt="a", logprobs=2)["logprobs"] == 2


def test_several_legacy_prompts_are_a_request_each_with_choices_numbered_on(
    served: Served,
) -> None:
    body = {"model": "org/model", "prompt": ["a", "b", "c"], "n": 2, "max_tokens": 3}
    asked = engine_request("completions", json.dumps(body).encode(), served, "abc", created=1)
    assert asked.several is not None
    sent_each = [json.loads(request.body) for request in asked.several.requests]
    assert [each.pop("prompt") for each in sent_each] == ["a", "b", "c"]
    assert sent_each[0] == sent_each[1] == sent_each[2]
    last = asked.several.requests[2]
    assert last.choices == 2
    assert b'"index":4' in last.cleaner.close("length", "budget")


@pytest.mark.parametrize("name", ["logprobs", "n_probs"])
def test_a_text_completion_shows_no_whole_vocabulary_beside_each_token(
    served: Served, name: str
) -> None:
    for beyond in (1000, -1, 1.5):
        assert refusal(served, "completions", prompt="a", **{name: beyond}).param == name
    assert sent(served, "completions", prompt="a", **{name: 20})[name] == 20


@pytest.mark.parametrize("wish", [{"suffix": "b"}, {"best_of": 3}])
def test_what_no_text_completion_does_is_refused_and_its_absence_is_not(
    served: Served, wish: dict[str, Any]
) -> None:
    found = refusal(served, "completions", prompt="a", **wish)
    assert isinstance(found, UnsupportedParameter)
    assert [found.param] == list(wish)
    assert "best_of" not in sent(
        served, "completions", prompt="a", echo=False, suffix="", best_of=1
    )
    assert sent(served, "completions", prompt="a", n=2, best_of=2)["n"] == 2


def test_empty_stop_texts_are_none(served: Served) -> None:
    assert sent(served, stop="")["stop"] == []
    assert sent(served, stop=["", "END", ""])["stop"] == ["END"]
    assert sent(served, stop="END")["stop"] == "END"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": 5}}},
         "response_format.json_schema.schema"),
        ({"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}, "grammar"),
        ({"response_format": {}}, "response_format.type"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required", "tools": []}, "tool_choice"),
        ({"tool_choice": "required", "tools": [{"type": "web_search"}]}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}, "tools": [{"type": "web_search"}]},
         "tool_choice"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"n_probs": 1000}, "n_probs"),
        ({"tool_choice": "always", "tools": [ADD]}, "tool_choice"),
    ],
)  # fmt: skip
def test_formats_and_choices_that_cannot_be_are_refused(
    served: Served, body: dict[str, Any], param: str
) -> None:
    assert refusal(served, **body).param == param
