"""Text that a grammar has shaped, read as calls in any pieces."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from helexa.neuron.engines.llamacpp.forced import CallReader, Heads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
CALLS = st.lists(
    st.tuples(st.sampled_from(["add", "add_all", 'ünï"q']), st.dictionaries(st.text(), VALUES)),
    min_size=1,
    max_size=3,
)  # fmt: skip


def reader(*, union: bool = False) -> CallReader:
    return CallReader(Heads(("add", "add_all", 'ünï"q'), union), lambda index: f"call_{index}")


def collect(deltas: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call."""
    found: dict[int, list[str]] = {}
    for delta in deltas:
        for call in delta["tool_calls"]:
            parts = found.setdefault(call["index"], [call.get("id", ""), "", ""])
            parts[1] += call["function"].get("name", "")
            parts[2] += call["function"]["arguments"]
    return [(a, b, c) for a, b, c in found.values()]


@given(CALLS, st.lists(st.integers(1, 9), min_size=1))
def test_arguments_are_byte_identical_in_any_pieces(
    calls: list[tuple[str, dict[str, Any]]], sizes: list[int]
) -> None:
    arguments = [json.dumps(value, ensure_ascii=False) for _, value in calls]
    text = "\n".join(
        f"{Heads.head(name)}{args} }}" for (name, _), args in zip(calls, arguments, strict=True)
    )
    found, at, turn = reader(), 0, 0
    deltas: list[dict[str, Any]] = []
    while at < len(text):
        size = sizes[turn % len(sizes)]
        deltas += found.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    assert found.end() == []
    assert collect(deltas) == [
        (f"call_{i}", name, args)
        for i, ((name, _), args) in enumerate(zip(calls, arguments, strict=True))
    ]


def test_an_answer_that_is_no_call_goes_on_as_text() -> None:
    found = reader(union=True)
    deltas = [*found.feed('{"na'), *found.feed('me": "addition"}'), *found.feed(" and more")]
    assert "".join(delta["content"] for delta in deltas) == '{"name": "addition"} and more'
    assert not found.called


def test_what_was_held_back_at_the_end_is_not_lost_where_it_may_be_text() -> None:
    found = reader(union=True)
    assert found.feed('{"name": "ad') == []
    assert found.end() == [{"content": '{"name": "ad'}]


def test_a_call_that_had_to_come_and_was_cut_before_its_name_is_no_text() -> None:
    found = reader()
    assert found.feed('{"name": "ad') == []
    assert found.end() == []
