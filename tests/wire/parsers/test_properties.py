"""What holds for every text, however it is cut."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.wire.parsers.reading import THINK, merged, read

from helexa.wire.parsers.balanced import Balanced
from helexa.wire.parsers.forms import BARE, FUNCTION, NAMED, PYTHON_TAG, SECTIONS, TAGGED, Form
from helexa.wire.parsers.markers import Markers
from helexa.wire.parsers.reader import AnswerReader
from helexa.wire.parsers.stops import StopText

FORMS = (TAGGED, FUNCTION, NAMED, PYTHON_TAG, SECTIONS, BARE)
TOOLS: dict[str, dict[str, Any] | None] = {"f": {"properties": {"n": {"type": "integer"}}}}

SNIPPETS = [
    "<tool_call>", "</tool_call>", "<function=", "<function=f>", "</function>", "<parameter=n>",
    "</parameter>", "<think>", "</think>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>",
    '{"name": "f", "arguments": {"n": 1}}', '{"name": "f"', '"', "\\", "{", "}", "[", "]", "f", "5",
    "<tool_call>\n<function=f>\n<parameter=n>\n5\n</parameter>\n</function>\n</tool_call>",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>", "<", "<to", "\n", " ", "word", "é", "",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(SNIPPETS) | st.text(max_size=4), max_size=14).map("".join)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_\-]{0,12}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)  # fmt: skip


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A text, and the same in pieces."""
    text = draw(TEXTS)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *places, len(text)]
    return text, [text[a:b] for a, b in pairwise(bounds)]


@given(cut(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_any_cutting_gives_the_same_answer(pieces: tuple[str, list[str]], thinking: bool) -> None:
    whole = read([pieces[0]], FORMS, thinking=thinking, tools=TOOLS)
    assert read(pieces[1], FORMS, thinking=thinking, tools=TOOLS) == whole
    assert read(pieces[0], FORMS, thinking=thinking, tools=TOOLS) == whole


@given(TEXTS)
@settings(max_examples=80, deadline=None)
def test_where_nothing_can_be_read_the_text_leaves_as_it_came(text: str) -> None:
    items = read([text], FORMS, think=None, tools=TOOLS)
    if all(item[0] == "text" for item in items):
        assert "".join(item[1] for item in items) == text
    else:  # nothing but calls and the white space of their forms may be missing
        words = "".join("".join(item[1].split()) for item in items if item[0] == "text")
        rest = iter("".join(text.split()))
        assert all(char in rest for char in words)


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_without_forms_and_markers_the_text_leaves_as_it_came(text: str) -> None:
    assert "".join(item[1] for item in read(text, (), None)) == text


def as_tagged(name: str, arguments: dict[str, Any]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def as_named(name: str, arguments: dict[str, Any]) -> str:
    return f"[TOOL_CALLS]{json.dumps([{'name': name, 'arguments': arguments}])}"


def as_args(name: str, arguments: dict[str, Any]) -> str:
    return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}"


def as_sections(name: str, arguments: dict[str, Any]) -> str:
    inner = f"{name}<｜tool▁sep｜>{json.dumps(arguments)}"
    return (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{inner}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    )


WRITTEN: list[tuple[Form, Callable[[str, dict[str, Any]], str]]] = [
    (TAGGED, as_tagged), (NAMED, as_named), (NAMED, as_args), (SECTIONS, as_sections),
]  # fmt: skip


@given(st.sampled_from(WRITTEN), NAMES, st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
@settings(max_examples=80, deadline=None)
def test_what_a_template_writes_is_read_back(
    written: tuple[Form, Callable[[str, dict[str, Any]], str]],
    name: str,
    arguments: dict[str, Any],
) -> None:
    form, write = written
    (found,) = read(write(name, arguments), (form,), None)
    assert found[:2] == ("call", name)
    assert json.loads(found[-1]) == arguments


LINES = st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=30)


@given(NAMES, st.dictionaries(NAMES, LINES, max_size=4), st.booleans())
@settings(max_examples=80, deadline=None)
def test_xml_values_are_read_back_to_the_character(
    name: str, values: dict[str, str], wrapped: bool
) -> None:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    call = f"<function={name}>\n{inner}</function>"
    text = f"<tool_call>\n{call}\n</tool_call>" if wrapped else call
    (found,) = read([text], (TAGGED, FUNCTION), None)
    assert found[:2] == ("call", name)
    assert json.loads(found[-1]) == values


@given(VALUES, st.text(max_size=5), st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_end_of_a_json_value_is_found_wherever_it_is_cut(
    value: Any, behind: str, place: int
) -> None:
    text = json.dumps({"v": value}) + behind
    scan = Balanced()
    end = scan.feed(text[:place])
    if end is None:
        end = scan.feed(text, min(place, len(text)))
    assert end == len(text) - len(behind)


@given(cut(), st.lists(st.text(alphabet="<wo>rd\n", min_size=1, max_size=4), max_size=3))
@settings(max_examples=60, deadline=None)
def test_text_ends_before_the_first_stop_string(
    pieces: tuple[str, list[str]], stops: list[str]
) -> None:
    filtered = StopText(stops)
    passed = "".join(filtered.feed(piece) for piece in pieces[1]) + filtered.end()
    places = [at for stop in stops if (at := pieces[0].find(stop)) >= 0]
    if places:
        assert passed == pieces[0][: min(places)]
        assert filtered.hit in stops
    else:
        assert (passed, filtered.hit) == (pieces[0], None)


@given(cut())
@settings(max_examples=60, deadline=None)
def test_no_more_is_held_back_than_could_begin_a_marker(pieces: tuple[str, list[str]]) -> None:
    markers = Markers([*THINK[:1], TAGGED.opens])
    reader = AnswerReader((TAGGED,), THINK)
    told = passed = ""
    for piece in pieces[1]:
        told += piece
        if markers.find(told):
            return
        passed += "".join(item[1] for item in merged(reader.feed(piece)))
        assert passed == told[: len(told) - markers.overlap(told)].rstrip(" \t\r\n")
