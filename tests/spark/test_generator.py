from __future__ import annotations

import random
from itertools import islice


def test_the_same_seed_gives_the_same_conversations() -> None:
    from conversation import conversations

    first, again = (list(islice(conversations(seed=5), 100)) for _ in range(2))
    assert first == again
    assert first != list(islice(conversations(seed=6), 100))


def test_training_never_uses_a_held_out_combination() -> None:
    from conversation import TASKS, converse
    from split import Draw, is_held_out

    draw = Draw(random.Random(11))
    for index in range(3000):
        converse(draw, TASKS[index % len(TASKS)])
    combinations = [used for used in draw.used if len(used[1]) > 1]
    assert len(combinations) > 10_000
    assert not [used for used in combinations if is_held_out(*used)]
    assert {kind for kind, _ in combinations} == {"words", "name", "path", "key"}


def test_evaluation_uses_held_out_combinations_only() -> None:
    from cases import SUITES
    from split import Draw, is_held_out

    for name, (make, count) in SUITES.items():
        draw = Draw(random.Random(name), held_out=True)
        for index in range(count):
            make(draw, index)
        combinations = [used for used in draw.used if len(used[1]) > 1]
        assert not [used for used in combinations if not is_held_out(*used)], name


def test_training_never_uses_a_held_out_wording() -> None:
    from phrasings import (
        CAPITAL,
        CAPITAL_HELD_OUT,
        SUM,
        SUM_HELD_OUT,
        WHO,
        WHO_HELD_OUT,
    )

    assert not set(CAPITAL) & set(CAPITAL_HELD_OUT)
    assert not set(SUM) & set(SUM_HELD_OUT)
    assert not set(WHO) & set(WHO_HELD_OUT)


def test_about_one_combination_in_ten_is_held_out() -> None:
    from split import is_held_out
    from words import TOOL_NOUNS, TOOL_VERBS

    names = [(verb, noun) for verb in TOOL_VERBS for noun in TOOL_NOUNS]
    share = sum(is_held_out("name", name) for name in names) / len(names)
    assert 0.08 < share < 0.12


def test_the_evaluation_is_the_same_every_time() -> None:
    from cases import SUITES, suite

    for name in SUITES:
        first, again = suite(name), suite(name)
        assert [case.messages for case in first] == [case.messages for case in again]
        assert [case.tools for case in first] == [case.tools for case in again]


def test_forty_countries_and_the_counts_to_thirty_are_asked_for() -> None:
    from cases import suite

    assert len({case.messages[0]["content"].lower() for case in suite("capitals")}) >= 40
    asked = {case.messages[0]["content"] for case in suite("counting to 30")}
    assert asked == {f"Count to {n}." for n in range(2, 31)}


def test_a_call_with_a_number_as_text_is_judged_wrong() -> None:
    from cases import calls
    from signatures import Argument, Parameter, Request, Tool

    tool = Tool("set_alarm", ("set", "alarm"), (Parameter("hour", "integer"),))
    check = calls(Request("", tool, (Argument("hour", "7", 7),)))

    def answer(arguments: str) -> dict[str, object]:
        return {"tool_calls": [{"function": {"name": "set_alarm", "arguments": arguments}}]}

    assert check(answer('{"hour": 7}'), "tool_calls")
    assert not check(answer('{"hour": "7"}'), "tool_calls")
    assert not check(answer('{"hour": 7, "day": 1}'), "tool_calls")
    assert not check(answer('{"hour": 7'), "tool_calls")
