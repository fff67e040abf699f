"""The rotating first line of a system prompt: ignored for affinity, moved only where asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.wire.prefix import is_volatile, stabilise, stable_prefix

ROTATING = (
    "x-anthropic-billing-header: cc_version=2.1.3.f4a; cc_entrypoint=cli; cch=0a3f1;",
    "Today is 2026-11-21.",
    "Date: Sat Nov 21 2026",
    "It is 14:05.",
    "<!-- 8f14e45fceea167a5a36dedd4bea2543 -->",
    "session: 01K2ABCDEFGHJKMNPQRSTVWXYZ",
    "3f8e1c52-77aa-4b1f-9c1d-0123456789ab",
)
STEADY = (
    "You are a helpful assistant.",
    "You are Claude Code, version 2.1.",
    "feedface decade, cafe added",
    "Answer in 3 sentences at most.",
    "",
)
REST = 'You are an agent.\nUse the tools. "Quoted" \\ and ünïcode.'


def turns(first: str, *, blocks: bool = False, role: str = "system") -> list[dict[str, Any]]:
    text = f"{first}\n\n{REST}"
    content: Any = [{"type": "text", "text": text}] if blocks else text
    return [{"role": role, "content": content}, {"role": "user", "content": "hi"}]


@pytest.mark.parametrize("line", ROTATING)
def test_a_line_with_a_hash_or_a_date_is_volatile(line: str) -> None:
    assert is_volatile(line.encode())


@pytest.mark.parametrize("line", STEADY)
def test_an_ordinary_line_is_not(line: str) -> None:
    assert not is_volatile(line.encode())


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_prompts_that_differ_in_their_rotating_line_have_one_prefix(
    blocks: bool, separators: tuple[str, str]
) -> None:
    found = {
        stable_prefix(json.dumps(turns(line, blocks=blocks), separators=separators).encode())
        for line in ROTATING
    }
    assert len(found) == 1
    assert b"You are an agent" in found.pop()


def test_system_blocks_instructions_and_strings_are_looked_into_too() -> None:
    assert stable_prefix(json.dumps(f"{ROTATING[1]}\n{REST}").encode()).startswith(b'"You are')
    blocks = [{"type": "text", "text": ROTATING[0], "cache_control": {"type": "ephemeral"}},
              {"type": "text", "text": REST}]  # fmt: skip
    assert b"cch=" not in stable_prefix(json.dumps(blocks).encode())
    item = [{"type": "message", "role": "developer", "id": "msg_x",
             "content": [{"type": "input_text", "text": f"{ROTATING[3]}\n{REST}"}]}]  # fmt: skip
    assert b"14:05" not in stable_prefix(json.dumps(item).encode())


def test_what_a_user_says_first_is_part_of_the_prefix() -> None:
    raw = json.dumps(turns(ROTATING[1], role="user")).encode()
    assert stable_prefix(raw) == raw


def test_steady_prompts_are_cut_and_nothing_else() -> None:
    raw = json.dumps(turns(STEADY[0])).encode()
    assert stable_prefix(raw) == raw
    assert stable_prefix(raw, 20) == raw[:20]
    assert stable_prefix(memoryview(raw), 20) == raw[:20]


def test_the_rotating_line_moves_behind_the_stable_part() -> None:
    body = {"model": "m", "messages": turns(ROTATING[0]), "temperature": 0.5}
    moved, changed = stabilise(json.dumps(body).encode())
    assert changed
    found = json.loads(moved)
    assert found["messages"][0]["content"] == f"{REST}\n\n{ROTATING[0]}"
    assert found["messages"][1] == body["messages"][1]  # type: ignore[index]
    assert found["temperature"] == 0.5


def test_a_block_of_its_own_and_a_line_in_a_block_move_last() -> None:
    own = [{"type": "text", "text": ROTATING[0]}, {"type": "text", "text": REST}]
    body = {"messages": [{"role": "system", "content": own}]}
    moved, changed = stabilise(json.dumps(body).encode())
    assert changed
    assert json.loads(moved)["messages"][0]["content"] == own[::-1]
    body = {"messages": turns(ROTATING[2], blocks=True)}
    moved, changed = stabilise(json.dumps(body).encode())
    assert changed
    assert [p["text"] for p in json.loads(moved)["messages"][0]["content"]] == [REST, ROTATING[2]]


@pytest.mark.parametrize(
    "messages",
    [
        turns(STEADY[0]),
        turns(ROTATING[0], role="user"),
        [{"role": "system", "content": ROTATING[0]}],
        [{"role": "system", "content": None}],
        [{"role": "system"}],
        [],
        "nonsense",
        [1],
    ],
)
def test_a_request_without_a_rotating_line_before_a_stable_part_stays_as_it_is(
    messages: Any,
) -> None:
    raw = json.dumps({"model": "m", "messages": messages}).encode()
    assert stabilise(raw) == (raw, False)


@given(st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_moving_a_line_loses_no_word(line: str, rest: str, ascii_only: bool) -> None:
    first = f"2026-11-21 {line}".split("\n", maxsplit=1)[0]
    body = {"messages": [{"role": "system", "content": f"{first}\n{rest}"}]}
    raw = json.dumps(body, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    moved, changed = stabilise(raw)
    found = json.loads(moved)["messages"][0]["content"]
    if changed:
        assert sorted(found.replace("\n", "")) == sorted(f"{first}{rest}".replace("\n", ""))
        assert found.endswith(first)
    else:
        assert found == f"{first}\n{rest}"
