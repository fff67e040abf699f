"""The affinity key: equal beginnings have equal points, whatever differs behind or around them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pictures import BLUE, RED, part, png

from helexa.cortex.routing.ask import Ask
from helexa.cortex.routing.prompt import IMAGE_BYTES, MOST_POINTS, STRIDE, ask_of, hint_of
from helexa.wire.peek import peek

SYSTEM = {"role": "system", "content": "You are a careful engineer.\nAnswer briefly."}
HELLO = {"role": "user", "content": "Hello."}


def ask(*messages: Any, headers: dict[bytes, bytes] | None = None, **more: Any) -> Ask:
    body = {"model": "m", **more}
    if messages:
        body["messages"] = list(messages)
    return ask_of(peek(json.dumps(body).encode()), hint_of(headers or {}))


def common(one: Ask, other: Ask) -> int:
    """How many points two prompts share at their beginning."""
    pairs = zip(one.points, other.points, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(map(_count, (one, other))))


def _count(ask: Ask) -> int:
    return len(ask.points)


def test_a_point_stands_at_each_messages_end_and_every_two_kilobytes() -> None:
    long = {"role": "user", "content": "x" * (3 * STRIDE)}
    seen = ask(SYSTEM, long, HELLO)
    assert len(seen.points) == 1 + 4 + 1
    assert seen.size == seen.sizes[-1]
    gaps = [b - a for a, b in zip(seen.sizes, seen.sizes[1:], strict=False)]
    assert gaps[:3] == [STRIDE] * 3


def test_a_later_turn_begins_with_the_points_of_the_one_before() -> None:
    first = ask(SYSTEM, HELLO)
    answer = {"role": "assistant", "content": "Hi.", "tool_calls": [{"id": "a"}]}
    second = ask(SYSTEM, HELLO, answer, {"role": "tool", "content": "42"})
    assert second.points[: len(first.points)] == first.points
    assert second.lot == first.lot


def test_points_are_chained_so_the_same_message_elsewhere_is_another_point() -> None:
    assert not set(ask(HELLO, SYSTEM).points) & set(ask(SYSTEM, HELLO).points)
    assert common(ask(SYSTEM, HELLO), ask(SYSTEM, {"role": "assistant", "content": "Hello."})) == 1


def test_tools_come_first() -> None:
    tools = [{"type": "function", "function": {"name": "look"}}]
    with_tools = ask(SYSTEM, HELLO, tools=tools)
    assert not set(with_tools.points) & set(ask(SYSTEM, HELLO).points)
    assert common(with_tools, ask(SYSTEM, tools=tools)) == 2


def test_what_is_not_the_prompt_does_not_count() -> None:
    plain, other = ask(SYSTEM, HELLO), ask(SYSTEM, HELLO, temperature=0.3, user="u", stream=True)
    assert plain.points == other.points


@pytest.mark.parametrize(
    "line",
    [
        "x-anthropic-billing-header: cc_version=2.1; cch={:05x};",
        "Today is 2026-11-{:02d}.",
        "Session: 0a1b2c3d4e5f{:04x}",
    ],
)
def test_a_first_line_that_changes_all_the_time_is_ignored(line: str) -> None:
    rest = "\nYou are a careful engineer.\n" + "Rules. " * 200
    prompts = [ask({"role": "system", "content": line.format(n) + rest}, HELLO) for n in (17, 18)]
    assert prompts[0].points == prompts[1].points
    blocks = [
        ask({"role": "system", "content": [{"type": "text", "text": line.format(n) + rest}]}, HELLO)
        for n in (17, 18)
    ]
    assert blocks[0].points == blocks[1].points


def test_a_first_line_that_stays_is_part_of_the_key() -> None:
    one = ask({"role": "system", "content": "You are Ada.\nRules."})
    assert not common(one, ask({"role": "system", "content": "You are Bob.\nRules."}))


@pytest.mark.parametrize(
    "hint",
    [
        {"headers": {b"x-session-id": b"abc"}},
        {"headers": {b"x-session-affinity": b"abc"}},
        {"headers": {b"x-affinity": b"abc"}},
        {"headers": {b"session-id": b"abc"}},
        {"headers": {b"thread-id": b"abc"}},
        {"prompt_cache_key": "abc"},
        {"metadata": {"user_id": "abc"}},
    ],
    ids=str,
)
def test_a_clients_hint_is_the_seed(hint: dict[str, Any]) -> None:
    one, two = ask(SYSTEM, HELLO, **hint), ask(HELLO, **hint)
    assert one.lot == two.lot != ask(SYSTEM, HELLO).lot
    assert one.points == ask(SYSTEM, HELLO).points


@pytest.mark.parametrize(
    "odd",
    [
        {"messages": "no"},
        {"messages": [1, 2]},
        {"messages": [{"role": 3, "content": None}]},
        {"prompt": "Once upon a time"},
        {"prompt": ["one", "two"]},
        {"input": ["embed", "these"]},
        {"prompt_cache_key": 5},
        {"metadata": ["x"]},
        {"metadata": {"user_id": 7}},
        {},
    ],
    ids=str,
)
def test_a_body_of_another_shape_is_no_error_of_routing(odd: dict[str, Any]) -> None:
    assert ask(**odd).size >= 0


def test_an_image_counts_for_a_few_tokens_whatever_its_bytes() -> None:
    url = "data:image/png;base64," + "A" * 100_000
    picture = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
    assert IMAGE_BYTES < ask(picture).size < IMAGE_BYTES + 200
    both = {"role": "user", "content": [*picture["content"], *picture["content"]]}
    assert 2 * IMAGE_BYTES < ask(both).size < 2 * IMAGE_BYTES + 400


def test_two_images_of_one_text_are_two_prompts() -> None:
    def seen(image: bytes) -> Any:
        text = {"type": "text", "text": "What is it?"}
        return ask({"role": "user", "content": [text, part(image)]}, HELLO)

    large = png(40, 40) + bytes(5000)
    assert seen(large).points == seen(large).points
    assert common(seen(large), seen(large[:-1] + b"x")) == 0
    assert common(seen(png(colour=RED)), seen(png(colour=BLUE))) == 0


def test_points_are_bounded() -> None:
    assert len(ask(*[HELLO] * 2000).points) == MOST_POINTS
    long = ask({"role": "user", "content": "x" * (2 * MOST_POINTS * STRIDE)})
    assert len(long.points) == MOST_POINTS
    assert 0 < long.size - 2 * long.sizes[-1] < 10  # and yet all of it counts


MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=40)}
)


@given(st.lists(MESSAGE, max_size=6), st.lists(MESSAGE, max_size=6))
def test_points_are_equal_exactly_as_far_as_messages_are(one: list[Any], other: list[Any]) -> None:
    pairs = zip(one, other, strict=False)
    same = next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
    if same == 0 or not (one and other):
        return  # what of the first message is volatile is decided elsewhere
    assert common(ask(*one), ask(*other)) == same
