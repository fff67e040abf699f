"""Engines that say which tokens a chunk has brought are counted by that, whatever text it holds."""

from __future__ import annotations

import json
from typing import Any

from tests.neuron.engines.compatible.test_stream import DONE, counts, event, last, make

from helexa.neuron.engines.base import Served
from helexa.neuron.engines.compatible.habits import Habits

NAMING = Habits(token_ids=True)


def said(delta: dict[str, Any], *ids: int, **more: Any) -> bytes:
    return event(delta, token_ids=list(ids), **more)


def first(prompt: int) -> bytes:
    chunk = json.loads(event({"role": "assistant", "content": ""})[6:])
    return b"data: " + json.dumps({**chunk, "prompt_token_ids": [7] * prompt}).encode() + b"\n\n"


def test_tokens_are_counted_when_they_come_also_those_whose_text_is_held_back(
    served: Served,
) -> None:
    cleaner = make(served, NAMING)
    seen = []
    for one in (
        first(9),
        said({}, 1),
        said({"reasoning": "hm"}, 2, 3),
        said({"content": "a"}, 4),
        said({}, 5, 6),
        said({"content": "b c"}, 7, finish="stop"),
        last(counts(9, 7, 2)),
    ):
        cleaner.feed(one)
        seen.append((cleaner.meter.prompt, cleaner.meter.output, cleaner.meter.reasoning))
    assert seen == [(9, 0, 0), (9, 1, 0), (9, 3, 3), (9, 4, 3), (9, 6, 3), (9, 7, 3), (9, 7, 2)]
    assert cleaner.feed(DONE)
    assert not cleaner.meter.estimated


def test_choices_are_counted_apart_by_their_tokens(served: Served) -> None:
    cleaner = make(served, NAMING, n=2)
    cleaner.feed(first(4) + said({"content": "a"}, 1, 2) + said({"content": "b"}, 3, index=1))
    assert (cleaner.meter.prompt, cleaner.meter.output) == (4, 3)
    closing = cleaner.close("length", "budget")
    assert not cleaner.meter.estimated
    assert b'"completion_tokens":3' in closing


def test_a_text_completion_says_the_prompts_tokens_with_its_first_choice(served: Served) -> None:
    cleaner = make(served, NAMING, route="completions")
    choice = {"index": 0, "text": "a", "token_ids": [1], "prompt_token_ids": [5, 6, 7]}
    cleaner.feed(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    more = {"index": 0, "text": "", "token_ids": [1, 2], "prompt_token_ids": None}
    cleaner.feed(b"data: " + json.dumps({"choices": [more]}).encode() + b"\n\n")
    assert (cleaner.meter.prompt, cleaner.meter.output) == (3, 3)


def test_an_engine_that_does_not_know_the_member_is_counted_by_its_deltas(served: Served) -> None:
    cleaner = make(served, NAMING)
    cleaner.feed(event({"content": "a"}) + event({"content": "b"}, token_ids=None))
    assert (cleaner.meter.output, cleaner.meter.prompt_known) == (2, True)
    cleaner.feed(event({}, finish="length") + last(counts(11, 6)) + DONE)
    assert (cleaner.meter.prompt, cleaner.meter.output) == (11, 6)
