"""A plain request's short way in makes of it what the long way makes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neuron.engines.specimens import GGUF, served_by

from helexa.neuron.engines.llamacpp.clean import engine_request
from helexa.neuron.engines.plain import MOST_BYTES, plain_chat
from helexa.wire.peek import peek

SERVED = served_by(GGUF)
ODD = st.sampled_from([None, True, -1, 0, 2.5, "", "x", [], {}, ["a"], {"include_usage": None}])
MESSAGES: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=5)}
)
ODD_MESSAGES: st.SearchStrategy[Any] = st.sampled_from(
    [
        {"role": "developer", "content": "a"},
        {"role": "tool", "content": "a", "tool_call_id": "b"},
        {"role": "user", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "a", "name": "b"},
        {"role": "user"},
        "a",
    ]
)
NUMBERS = st.integers(-3, 9) | st.floats(-1, 2)
MEMBERS: dict[str, st.SearchStrategy[Any]] = {
    "stream": st.booleans(),
    "stream_options": st.sampled_from([{}, {"include_usage": True}, {"include_usage": False}]),
    "max_tokens": st.integers(1, 10**20),
    "max_completion_tokens": st.integers(1, 5000),
    "temperature": NUMBERS,
    "top_p": NUMBERS,
    "presence_penalty": NUMBERS,
    "frequency_penalty": NUMBERS,
    "seed": st.integers(),
    "user": st.text(max_size=3),
}


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A request in any order of its members, often plain and often nearly so."""
    rarely = st.integers(0, 5).map(lambda n: not n)
    messages = draw(st.lists(MESSAGES, max_size=3))
    if draw(rarely):
        messages += [draw(ODD_MESSAGES)]
    body: dict[str, Any] = {"model": "m", "messages": messages}
    for name in draw(st.lists(st.sampled_from(sorted(MEMBERS)), unique=True)):
        body[name] = draw(ODD if draw(rarely) and draw(rarely) else MEMBERS[name])
    if draw(rarely):
        body[draw(st.sampled_from(["n", "tools", "stop", "logprobs", "unheard_of"]))] = draw(ODD)
    order = draw(st.permutations(sorted(body)))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = json.dumps({name: body[name] for name in order}, separators=separators)
    return text.encode()


@given(bodies(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_plain_becomes_what_every_check_would_have_made_of_it(
    raw: bytes, thinking: bool
) -> None:
    plain = plain_chat(raw)
    if plain is None:
        return
    seen = peek(raw)
    assert (plain.model, plain.usage_wanted) == (seen.model, seen.usage_wanted)
    short, long = (
        engine_request("chat", raw, SERVED, "abc", created=1, thinking=thinking, plain=way)
        for way in (True, False)
    )
    assert short.body == long.body
    for name in ("method", "path", "headers", "stream", "events", "choices", "most", "longest"):
        assert getattr(short, name) == getattr(long, name)
    assert (short.splice is None) == (long.splice is None)
    assert short.cleaner.close("stop", None) == long.cleaner.close("stop", None)


USUAL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"max_tokens": 9, "temperature": 1, "top_p": 0.9, "seed": 7, "user": "u"},
        {"messages": [{"role": "system", "content": ""}, *USUAL["messages"]] * 2},
    ],
)
def test_what_most_clients_send_is_plain(more: dict[str, Any]) -> None:
    assert plain_chat(json.dumps({**USUAL, **more}).encode()) is not None


@pytest.mark.parametrize(
    "more",
    [
        {"model": ""},
        {"messages": []},
        {"max_tokens": 0},
        {"max_tokens": 9.0},
        {"max_tokens": True},
        {"temperature": None},
        {"stop": ["x"]},
        {"n": 1},
        {"tools": []},
        {"unheard_of": 1},
        {"messages": [{"role": "user", "content": "x" * MOST_BYTES}]},
    ],
)
def test_whatever_is_to_be_looked_into_is_not_plain(more: dict[str, Any]) -> None:
    assert plain_chat(json.dumps({**USUAL, **more}).encode()) is None


@pytest.mark.parametrize("raw", [b"", b"[]", b"[" * 9000, b'{"model":"\xff"}', b"\x1f\x8b"])
def test_what_is_no_request_is_not_plain_either(raw: bytes) -> None:
    assert plain_chat(raw) is None
