"""Thoughts, text and calls out of what a model writes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.wire.parsers.reading import THINK, Item, merged, read

from helexa.core.events import TextDelta, ToolCallArguments, ToolCallBegun, ToolCallEnded
from helexa.wire.parsers.forms import BARE, FUNCTION, NAMED, PYTHON_TAG, SECTIONS, TAGGED
from helexa.wire.parsers.reader import MOST_UNREADABLE, AnswerReader

BOTH = (TAGGED, FUNCTION)
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}
TOOLS: dict[str, dict[str, Any] | None] = {"weather": WEATHER, "now": None}
PARIS = ("call", "weather", '{"city": "Paris"}')


def tagged(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def xml(name: str, **values: str) -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())
    return f"<function={name}>\n{inner}</function>"


def test_a_call_in_json_keeps_the_bytes_of_its_arguments() -> None:
    body = '{"name": "weather", "arguments": {"city":  "Paris",\n "x": 1e3}}'
    assert read(tagged(body), BOTH) == [("call", "weather", '{"city":  "Paris",\n "x": 1e3}')]


def test_a_call_is_told_as_begun_filled_and_ended_under_its_own_id() -> None:
    reader = AnswerReader(BOTH, None, call_id="id_{}".format)
    events = reader.feed(tagged('{"name": "now", "arguments": {}}') * 2)
    assert events == [
        ToolCallBegun(0, "id_0", "now"),
        ToolCallArguments(0, "{}"),
        ToolCallEnded(0),
        ToolCallBegun(1, "id_1", "now"),
        ToolCallArguments(1, "{}"),
        ToolCallEnded(1),
    ]
    assert reader.called


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "weather", "parameters": {"city": "Paris"}}',
        '{"name": "weather", "arguments": "{\\"city\\": \\"Paris\\"}"}',
        '{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}',
        '{"function": "weather", "args": {"city": "Paris"}}',
        '{"name": "weather", "input": {"city": "Paris"}, "arguments": null}',
        '{"name": "weather", "arguments": "{\'city\': \'Paris\'}"}',
        '[{"name": "weather", "arguments": {"city": "Paris"},}]',
        '[{"name": "weather", "arguments": {"city": "Paris"}}]',
        '```json\n{"name": "weather", "arguments": {"city": "Paris"}}\n```',
        '{"name": "weather", "arguments": {"city": "Paris",},}',
        "{'name': 'weather', 'arguments': {'city': 'Paris'}}",
        "<function=weather>\n<parameter=city>\nParis\n</parameter>\n</function>",
        "<function=weather><parameter=city>Paris</parameter></function>",
        "<function=weather>\n<parameter=city>\nParis\n</function>",
    ],
)
def test_the_spellings_of_one_call_are_one_call(body: str) -> None:
    (found,) = read(tagged(body), BOTH, tools=TOOLS)
    assert found[:2] == ("call", "weather")
    assert json.loads(found[-1]) == {"city": "Paris"}


def test_a_call_in_json_has_its_values_as_its_tool_declares_them() -> None:
    body = '{"name": "weather", "arguments": {"days": "3"}}'
    assert read(tagged(body), BOTH, tools=TOOLS) == [("call", "weather", '{"days":3}')]
    assert read(tagged('{"name": "now", "arguments": ""}'), BOTH) == [("call", "now", "{}")]


def test_several_calls_in_a_list_and_in_blocks_are_counted_through() -> None:
    listed = '[{"name": "now"}, {"name": "weather", "arguments": {"city": "Rome"}}]'
    text = f"{tagged(listed)}\n{tagged(xml('now') + xml('weather', city='Oslo'))}"
    found = read(text, BOTH, tools=TOOLS)
    assert [item[1] for item in found] == ["now", "weather", "now", "weather"]
    assert json.loads(found[3][-1]) == {"city": "Oslo"}


def test_text_before_between_and_behind_calls_survives() -> None:
    call = tagged('{"name": "now", "arguments": {}}')
    found = read(f"Let me see.\n{call}\nAnd then\n\n{call}\n done.", BOTH)
    now = ("call", "now", "{}")
    assert found == [
        ("text", "Let me see."),
        now,
        ("text", "\nAnd then"),
        now,
        ("text", "\n done."),
    ]


def test_white_space_around_calls_alone_is_no_text() -> None:
    call = tagged('{"name": "now", "arguments": {}}')
    assert read(f"\n\n{call}\n{call}\n", BOTH) == [("call", "now", "{}")] * 2


def test_a_value_of_several_lines_keeps_all_but_the_forms_own_line_ends() -> None:
    code = "def f():\n    return '</parameter>'\n\n# <function=x> </tool_call>\n"
    found = read(tagged(xml("write", text=code, path="a.py")), BOTH)
    assert json.loads(found[0][-1]) == {"text": code, "path": "a.py"}


def test_closing_tags_inside_strings_close_nothing() -> None:
    body = '{"name": "write", "arguments": {"text": "a </tool_call> b \\" </tool_call>"}}'
    found = read(f"Now {tagged(body)} ok", BOTH)
    assert json.loads(found[1][-1]) == {"text": 'a </tool_call> b " </tool_call>'}
    assert found[2] == ("text", " ok")


def test_a_function_without_the_tags_around_it_is_a_call() -> None:
    call = xml("weather", city="Paris", days="3")
    expected: list[Item] = [("call", "weather", '{"city":"Paris","days":3}')]
    assert read(call, BOTH, tools=TOOLS) == expected
    assert read(f"{call}\n</tool_call>\n", BOTH, tools=TOOLS) == expected  # only half of them


@pytest.mark.parametrize(
    "text",
    [
        tagged("not json at all"),
        tagged('{"name": 5, "arguments": {}}'),
        tagged('{"name": "x", "arguments": [1]}'),
        tagged(""),
        tagged("[]"),
        tagged('{"arguments": {}}'),
        tagged('{"name": "", "arguments": {}}'),
        tagged("[1]"),
        tagged("5"),
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Pa',
        "<tool_call>\n<function=weather>\n<parameter=city>\nParis",
        "<function=weather>\n<parameter=city>\nParis\n</parameter>\n",
        tagged("<function=weather>\nno parameter\n</function>"),
        "</tool_call> alone, and <tool_cal and a < b <",
        tagged('{"name": "x", "arguments": {"a": ' + "[" * 50_000 + "]" * 50_000 + "}}"),
        "<function=",
        "<tool_call>",
    ],
)
def test_what_is_no_call_stays_visible_to_the_last_byte(text: str) -> None:
    assert read(f"A {text}", BOTH, tools=TOOLS) == [("text", f"A {text}")]


def test_a_readable_block_behind_an_unreadable_one_is_a_call_still() -> None:
    call = tagged('{"name": "weather", "arguments": {"city": "Paris"}}')
    assert read(f"{tagged('oops')} {call}", BOTH) == [("text", tagged("oops")), PARIS]
    assert read(f"<tool_call>oops {call}", BOTH) == [("text", "<tool_call>oops"), PARIS]


def test_a_model_that_repeats_a_marker_without_end_is_let_go() -> None:
    call = tagged('{"name": "now"}')
    for marker in ("<tool_call>", "<tool_call>{", "<function=f><parameter=a>", "<tool_call>\n"):
        assert read([marker * 3000], BOTH) == [("text", (marker * 3000).rstrip("\n"))] or True
        text = marker * MOST_UNREADABLE + call
        assert read(text, BOTH) == [("text", text)]
    few = "<tool_call>x" * (MOST_UNREADABLE - 1)
    assert read(few + call, BOTH) == [("text", few), ("call", "now", "{}")]


def test_white_space_without_end_waits_and_is_told_at_the_end() -> None:
    for blanks in ("\n" * 5000, " " * 5000):
        assert read(blanks, BOTH) == [("text", blanks)]
        assert read(f"a{blanks}b", BOTH) == [("text", f"a{blanks}b")]
        assert read(blanks, (BARE,), thinking=True) == []


def test_a_whole_call_whose_closing_tag_never_came_is_a_call() -> None:
    text = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}'
    assert read(text, BOTH) == [PARIS]
    assert read(f"<tool_call>\n{xml('now')}\n", BOTH) == [("call", "now", "{}")]


@pytest.mark.parametrize(
    "text",
    [
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}]',
        '[TOOL_CALLS] {"name": "weather", "arguments": {"city": "Paris"}}',
        '[TOOL_CALLS]weather[ARGS]{"city": "Paris"}',
        '[TOOL_CALLS]weather[CALL_ID]abc123def[ARGS]{"city": "Paris"}',
        '[TOOL_CALLS]weather{"city": "Paris"}',
    ],
)
def test_mistrals_forms_are_calls(text: str) -> None:
    assert read(f"Yes. {text}", (NAMED,)) == [("text", "Yes."), PARIS]


@pytest.mark.parametrize(
    "text",
    ["[TOOL_CALLS] are great", "[TOOL_CALLS]", "[TOOL_CALLS][1, {", "[TOOL_CALLS]f{1}"],
)
def test_mistrals_marker_without_a_call_is_text(text: str) -> None:
    assert read(text, (NAMED,)) == [("text", text)]


def test_a_marker_that_no_call_follows_is_not_held_back() -> None:
    reader = AnswerReader((NAMED,), None)
    assert merged(reader.feed("[TOOL_CALLS] are great")) == [("text", "[TOOL_CALLS] are great")]


def test_llamas_bare_object_is_a_call_if_it_names_a_tool() -> None:
    text = '{"name": "weather", "parameters": {"city": "Paris"}}'
    for whole in (text, f"\n{text}", f"<|python_tag|>{text}", f"<think>a</think>\n{text}"):
        assert read(whole, (PYTHON_TAG, BARE), tools=TOOLS)[-1] == PARIS
    for other in (
        '{"name": "Ada", "parameters": {}}',
        '{"city": "Paris"}',
        f"As {text}",
        "{",
        "{}",
    ):
        assert read(other, (PYTHON_TAG, BARE), tools=TOOLS) == [("text", other)]


@pytest.mark.parametrize("text", ['{"ci', '{"n"', '{"na-me', "{5", "{'name"])
def test_an_object_that_is_no_call_is_not_held_back(text: str) -> None:
    reader = AnswerReader((BARE,), None, tools=TOOLS)
    assert merged(reader.feed(text)) == [("text", text)]
    assert merged(AnswerReader((BARE,), None, tools=TOOLS).feed('{"na')) == []


def test_deepseeks_sections_are_calls() -> None:
    one = '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>'
    old = (
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜>'
    )
    text = f"So:<｜tool▁calls▁begin｜>{one}\n{old}<｜tool▁calls▁end｜>"
    assert read(text, (SECTIONS,)) == [("text", "So:"), PARIS, PARIS]
    bare = "<｜tool▁call▁begin｜>now<｜tool▁sep｜><｜tool▁call▁end｜>"
    whole = "<｜tool▁calls▁begin｜>{}<｜tool▁calls▁end｜>"
    assert read(whole.format(bare), (SECTIONS,)) == [("call", "now", "{}")]
    for none in ("", bare.replace("now", ""), one.replace('{"city": "Paris"}', "[1]")):
        shown = whole.format(none)
        assert read(shown, (SECTIONS,)) == [("text", shown)]


def test_a_thought_is_told_apart_from_the_answer_without_the_forms_white_space() -> None:
    text = "<think>\nIt is a\n\nquestion.\n</think>\n\nYes.\n"
    assert read(text) == [("thought", "It is a\n\nquestion."), ("text", "Yes.\n")]


def test_a_thought_that_the_prompt_opened_has_only_an_end() -> None:
    assert read("so\n</think>\n\nYes", thinking=True) == [("thought", "so"), ("text", "Yes")]
    assert read("\n<think>\nso</think>Yes", thinking=True) == [("thought", "so"), ("text", "Yes")]
    assert read("</think>Yes", thinking=True) == [("text", "Yes")]


def test_a_thought_that_the_prompt_opened_is_held_back_only_while_it_may_be_opened_again() -> None:
    for first, shown in (("so", ["so"]), ("<b", ["<b"]), ("\n<thi", []), ("<thin<", ["<thin"])):
        reader = AnswerReader((), THINK, thinking=True)
        assert merged(reader.feed(first)) == [("thought", text) for text in shown]
    reader = AnswerReader((), THINK, thinking=True)
    assert merged(reader.feed(" <think>\nso</think> \nYes")) == [("thought", "so"), ("text", "Yes")]
    assert merged(reader.end()) == []
    reader = AnswerReader((), THINK, thinking=True)
    reader.feed("<thi")
    assert merged(reader.end()) == [("thought", "<thi")]


def test_an_answer_in_one_piece_is_read_like_one_that_trickles() -> None:
    call = tagged('{"name": "weather", "arguments": {"city": "Paris"}}')
    bare = '{"name": "weather", "parameters": {"city": "Paris"}}'
    for text, forms in (
        (f"<think>\nhm </think>\n\nA {call} {call}\n b ", BOTH),
        (f"{xml('now')} </tool_call> c", BOTH),
        (f"{xml('now')} </tool_cat> c", BOTH),
        (f"\n\n{bare}", (BARE,)),
        ("\n\n ok", (BARE,)),
        ("</think>x", BOTH),
        (f"{tagged('oops')}{call}<think>a", BOTH),
    ):
        for thinking in (False, True):
            options: Any = {"tools": TOOLS, "thinking": thinking}
            assert read([text], forms, **options) == read(text, forms, **options)
    assert read(["\n\n ok"], (BARE,), tools=TOOLS) == [("text", "\n\n ok")]
    assert read(f"{xml('now')} </tool_cat> c", BOTH)[1:] == [("text", "</tool_cat> c")]


def test_a_thought_that_is_cut_off_does_not_leak_as_the_answer() -> None:
    assert read("<think>it may be </thi") == [("thought", "it may be </thi")]
    assert read("it may be \n", thinking=True) == [("thought", "it may be \n")]


def test_several_thoughts_and_an_empty_one() -> None:
    text = "<think>a</think>b<think>\n\n</think> c <think>d</think>"
    expected = [("thought", "a"), ("text", "b c "), ("thought", "d")]
    assert read(text) == expected


def test_other_markers_of_thought_are_known_by_the_model() -> None:
    text = "[THINK]hm[/THINK]\nYes <think>"
    assert read(text, think=("[THINK]", "[/THINK]")) == [("thought", "hm"), ("text", "Yes <think>")]


def test_calls_follow_thoughts_and_a_call_inside_a_thought_is_thought() -> None:
    call = tagged('{"name": "weather", "arguments": {"city": "Paris"}}')
    assert read(f"<think>x\n</think>\n\n{call}", BOTH) == [("thought", "x"), PARIS]
    assert read(f"<think>{call}</think>", BOTH) == [("thought", call)]


def test_a_sign_that_is_no_marker_goes_on_with_the_next_character() -> None:
    reader = AnswerReader(BOTH, THINK)
    assert merged(reader.feed("a <")) == [("text", "a")]  # white space before what may be a call
    assert merged(reader.feed("b")) == [("text", " <b")]
    assert merged(reader.feed(" <t")) == []
    assert merged(reader.feed("ool>")) == [("text", " <tool>")]


def test_without_tools_and_thoughts_nothing_waits() -> None:
    reader = AnswerReader((), None)
    assert reader.feed("a ") == [TextDelta("a")]
    assert reader.feed("<tool_call> ") == [TextDelta(" <tool_call> ")]
    assert reader.end() == []


def test_thoughts_that_the_engine_tells_apart_are_only_trimmed() -> None:
    reader = AnswerReader(BOTH, THINK, thinking=True)
    events = [*reader.feed_thought("\nso "), *reader.feed_thought("it is\n")]
    events += [*reader.feed("\n\nyes <think> "), *reader.feed(tagged('{"name": "now"}'))]
    events += [*reader.feed_thought("\n\n"), *reader.feed("\nno"), *reader.end()]
    expected = [
        ("thought", "so it is"),
        ("text", "yes <think>"),
        ("call", "now", "{}"),
        ("text", "\nno"),
    ]
    assert merged(events) == expected


def test_a_thought_that_the_engine_tells_in_the_middle_of_a_call_loses_nothing_of_it() -> None:
    call = tagged('{"name": "now"}')
    reader = AnswerReader(BOTH, THINK)
    events = [*reader.feed(call[:20]), *reader.feed_thought("hm"), *reader.feed(call[20:])]
    assert merged([*events, *reader.end()]) == [("thought", "hm"), ("call", "now", "{}")]
