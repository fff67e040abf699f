"""Reading little of a request, and changing less of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.core.errors import HelexaError, InvalidJson, InvalidRequestBody, MissingModelField
from helexa.wire.peek import edit, peek

ASK = {"include_usage": True}


def body(**members: Any) -> bytes:
    return json.dumps({"model": "m", **members}).encode()


@pytest.mark.parametrize(
    ("members", "cap"),
    [
        ({}, None),
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 7}, 7),
        ({"max_output_tokens": 7}, 7),
        ({"max_completion_tokens": 5, "max_tokens": 9}, 5),
        ({"max_tokens": None, "max_completion_tokens": 8}, 8),
        ({"max_tokens": None}, None),
        ({"max_tokens": 32_000, "n": 2}, 64_000),
        ({"max_tokens": 10, "n": None}, 10),
        ({"max_tokens": 10, "n": 1}, 10),
        ({"max_tokens": 10, "n": 0}, 10),
        ({"n": 3}, None),
    ],
)
def test_the_cap_is_found_under_every_name_clients_use(
    members: dict[str, Any], cap: int | None
) -> None:
    assert peek(body(**members)).output_cap == cap


@pytest.mark.parametrize(
    ("members", "stream", "wanted", "has"),
    [
        ({}, False, False, False),
        ({"stream": None}, False, False, False),
        ({"stream": True}, True, False, False),
        ({"stream": True, "stream_options": None}, True, False, True),
        ({"stream": True, "stream_options": {}}, True, False, True),
        ({"stream": True, "stream_options": {"include_usage": None}}, True, False, True),
        ({"stream": True, "stream_options": {"include_usage": False}}, True, False, True),
        ({"stream": True, "stream_options": {"include_usage": True}}, True, True, True),
        ({"tools": [{"properties": {"stream_options": {}}}]}, False, False, False),
    ],
)
def test_whether_it_streams_and_who_wants_the_usage(
    members: dict[str, Any], stream: bool, wanted: bool, has: bool
) -> None:
    seen = peek(body(**members))
    assert (seen.stream, seen.usage_wanted, seen.has_stream_options) == (stream, wanted, has)


def test_everything_else_that_clients_send_is_skipped_over() -> None:
    odd = {
        "messages": [{"role": "assistant", "content": None, "tool_calls": None}],
        "tools": [{"$schema": "x", "maximum": 9007199254740991, "exclusiveMinimum": 0}],
        "response_format": {"type": "json_object"},
        "reasoning_effort": None,
        "unknown_field": [1, {"model": "not this one"}],
    }
    seen = peek(body(**odd))
    assert seen.model == "m"
    assert json.loads(bytes(seen.prompt)) == odd["messages"]
    for name in ("prompt", "input"):
        assert json.loads(bytes(peek(body(**{name: ["a", "b"]})).prompt)) == ["a", "b"]


def test_a_conversation_is_named_by_its_cache_key_else_by_the_metadata() -> None:
    told = {"user_id": "u"}
    assert bytes(peek(body(prompt_cache_key="k", metadata=told)).hint) == b'"k"'
    assert json.loads(bytes(peek(body(metadata=told)).hint)) == told
    assert not peek(body()).hint


@pytest.mark.parametrize(
    ("raw", "kind", "param"),
    [
        (b"", InvalidJson, None),
        (b"{", InvalidJson, None),
        (b'{"model": "m"} x', InvalidJson, None),
        (b"\xff", InvalidJson, None),
        (b'{"model": "\xff"}', InvalidJson, None),
        (b"[1]", InvalidRequestBody, None),
        (b'"m"', InvalidRequestBody, None),
        (b'{"model": 5}', InvalidRequestBody, "model"),
        (b'{"model": "m", "stream": "yes"}', InvalidRequestBody, "stream"),
        (b'{"model": "m", "max_tokens": "7"}', InvalidRequestBody, "max_tokens"),
        (b'{"model": "m", "stream_options": []}', InvalidRequestBody, "stream_options"),
        (
            b'{"model": "m", "stream_options": {"include_usage": 1}}',
            InvalidRequestBody,
            "stream_options.include_usage",
        ),
        (b'{"model": "m", "n": 1.5}', InvalidRequestBody, "n"),
        (b"{}", MissingModelField, "model"),
        (b'{"model": null}', MissingModelField, "model"),
        (b'{"model": ""}', MissingModelField, "model"),
    ],
)
def test_a_wrong_body_is_refused_by_path(
    raw: bytes, kind: type[HelexaError], param: str | None
) -> None:
    with pytest.raises(kind) as refused:
        peek(raw)
    assert refused.value.param == param


def test_a_refusal_says_what_is_wrong_and_where() -> None:
    for raw, words in (
        (b'{"model": 5}', "Expected `str | null`, got `int` at 'model'."),
        (b"[1]", "Expected `object`, got `array`."),
    ):
        with pytest.raises(InvalidRequestBody) as refused:
            peek(raw)
        assert refused.value.message == words


# ── the two edits ───────────────────────────────────────────────────────────────────────────

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
KNOWN = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens",
         "max_output_tokens", "n")  # fmt: skip
names = st.text(max_size=10) | st.sampled_from(["models", "stream_option", "usage", "messages"])
others = st.dictionaries(names.filter(lambda name: name not in KNOWN), plain, max_size=5)
spaces = st.sampled_from(["", " ", "\n", "\t  ", "\r\n"])
options = st.none() | st.fixed_dictionaries(
    {}, optional={"include_usage": st.none() | st.booleans(), "x": plain}
)


def escaped(name: str, how: int) -> str:
    """A key as JSON, its letters escaped if so asked."""
    if how == 0:
        return json.dumps(name, ensure_ascii=False)
    if how == 1:
        return json.dumps(name)
    return '"' + "".join(f"\\u{ord(c):04x}" if ord(c) < 128 else c for c in name) + '"'


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, dict[str, Any]]:
    """An object as some client might write it, and what it means."""
    members = draw(others)
    members["model"] = draw(st.text(min_size=1, max_size=10))
    if draw(st.booleans()):
        members["stream_options"] = draw(options)
    text = draw(spaces) + "{"
    for index, name in enumerate(draw(st.permutations(list(members)))):
        value = json.dumps(members[name], ensure_ascii=draw(st.booleans()))
        key = escaped(name, draw(st.integers(0, 2)))
        text += "," * bool(index) + draw(spaces) + key + draw(spaces) + ":" + draw(spaces) + value
        text += draw(spaces)
    return (text + "}" + draw(spaces)).encode(), members


@given(bodies(), st.text(min_size=1, max_size=12), st.booleans())
def test_edit_changes_the_two_values_and_no_other_byte(
    made: tuple[bytes, dict[str, Any]], model: str, usage: bool
) -> None:
    raw, members = made
    seen = peek(raw)
    assert seen.model == members["model"]
    changed = edit(raw, seen, model=model, include_usage=usage)
    expected = {**members, "model": model}
    if usage:
        expected["stream_options"] = {**(members.get("stream_options") or {}), **ASK}
    assert json.loads(changed) == expected
    assert peek(changed).model == model
    back = edit(changed, peek(changed), model=seen.model, include_usage=False)
    if not usage or seen.usage_wanted:
        # What was put in can be taken out again: only the one value's spelling may differ.
        assert len(back) - len(raw) == len(spelled(back, "model")) - len(spelled(raw, "model"))
        if model == seen.model:
            assert changed == raw
    elif not seen.has_stream_options and model == seen.model:
        added = b'"stream_options":{"include_usage":true},'
        assert changed.replace(added, b"", 1) == raw


def spelled(raw: bytes, name: str) -> bytes:
    """The bytes of a top-level member's value."""
    return bytes(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])[name])


def test_of_repeated_members_the_last_one_counts_and_is_the_one_that_is_sent_on() -> None:
    raw = b'{"model":"a","n":1,"model":"b","n":2,"stream":true}'
    seen = peek(raw)
    assert seen.model == "b"
    changed = edit(raw, seen, model="c", include_usage=True)
    assert json.loads(changed) == {"model": "c", "n": 2, "stream": True, "stream_options": ASK}
    assert json.loads(edit(raw, seen, model="b", include_usage=False))["model"] == "b"


def test_an_option_that_only_a_tool_mentions_is_none_of_the_requests() -> None:
    raw = body(stream=True, tools=[{"properties": {"stream_options": {"type": "object"}}}])
    changed = json.loads(edit(raw, peek(raw), model="x", include_usage=True))
    assert changed == {**json.loads(raw), "model": "x", "stream_options": ASK}


def test_nothing_to_change_is_the_same_object() -> None:
    raw = body(stream=True, stream_options=ASK)
    assert edit(raw, peek(raw), model="m", include_usage=True) is raw


def test_a_name_for_the_log_is_short_and_has_no_control_characters() -> None:
    assert peek(body(model="org/näme")).model_for_people == "org/näme"
    assert len(peek(body(model="m" * 10_000)).model_for_people) == 128
    assert peek(body(model="m\x1b[2J\n")).model_for_people == "'m\\x1b[2J\\n'"
