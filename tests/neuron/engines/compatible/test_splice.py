"""The short way of the usual event gives what the long way gives, or leaves the event alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neuron.engines.driving import user
from tests.neuron.engines.specimens import SMALL, served_by
from tests.neuron.engines.ways import (
    CELLS,
    GRANTS,
    READS,
    TEXTS,
    Way,
    chunk_of,
    framed,
    same_on_both,
)

from helexa.neuron.engines.base import EngineRequest, Served
from helexa.neuron.engines.compatible.clean import Cleaning
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import MakeReader
from helexa.neuron.engines.request import Json

SERVED = served_by(SMALL)
HABITS = Habits(token_ids=True)


def request(
    habits: Habits = HABITS, reader: MakeReader | None = None, **more: Any
) -> EngineRequest:
    def shape(_body: Json, _served: Served) -> MakeReader | None:
        return reader

    body = {"model": "m", "stream": True, **user("hi"), **more}
    cleaning = Cleaning(habits, shape, lambda: 7, lambda: 0.0)
    return cleaning.request("chat", json.dumps(body).encode(), SERVED, "abc")


def event(delta: object, ids: list[int] | None, *, ascii_: bool = True, **more: Any) -> bytes:
    """One event in vLLM's own form, order and all."""
    choice = {"index": more.pop("index", 0), "delta": delta, "logprobs": None}
    choice |= {
        "finish_reason": more.pop("finish", None),
        "token_ids": ids,
        **more.pop("choice", {}),
    }
    chunk: dict[str, Any] = {"id": "chatcmpl-b9708b3193dc2695", "object": "chat.completion.chunk"}
    chunk |= {"created": 1795285276, "model": "m", "choices": [choice], **more}
    text = json.dumps(chunk, separators=(",", ":"), ensure_ascii=ascii_)
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
ROLE = {"role": "assistant", "content": ""}
FIRST = event(ROLE, None, prompt_token_ids=[5] * 9, prompt_text=None)
BEGIN = [FIRST, event({"content": "a"}, [1])]
DELTAS = (
    st.builds(lambda text: {"content": text}, TEXTS)
    | st.builds(lambda text: {"reasoning": text}, TEXTS)
    | st.builds(lambda one, other: {"reasoning": one, "content": other}, TEXTS, TEXTS)
    | st.just({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
    | st.sampled_from([{}, ROLE, {"content": ""}, {"content": None}, {"refusal": "no"}, 5, None])
)
IDS = st.sampled_from([[7]] * 8 + [[7, 8], [7] * 9, [], None])
ODD: list[dict[str, Any]] = [
    {"index": 1},
    {"finish": "stop"},
    {"finish": "abort"},
    {"usage": USAGE},
    {"choice": {"logprobs": {"content": []}}},
    {"prompt_token_ids": [5] * 9},
    {"metrics": {"time_to_first_token_ms": 2.5}},
    {"error": {"code": 500, "message": "broke", "type": "server_error"}},
    {"choices": []},
]
SHAPES = st.sampled_from([{}] * 12 + ODD)


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """Chunks of an answer: mostly usual events, some odd ones, some bytes damaged."""
    chunks = list(BEGIN)
    for _ in range(draw(st.integers(1, 40))):
        one = event(draw(DELTAS), draw(IDS), ascii_=draw(st.booleans()), **dict(draw(SHAPES)))
        chunks.append(chunk_of(draw, one, event({"content": "and more"}, [9])))
    return chunks


@given(
    answers(),
    READS,
    GRANTS,
    CELLS,
    st.sampled_from([{}, {"n": 2}, {"logprobs": True}]),
)
@settings(max_examples=100, deadline=None)
def test_the_short_way_is_the_long_way(
    chunks: list[bytes], read: list[int], granted: int | None, cells: int, more: dict[str, Any]
) -> None:
    long = Way(request(**more), False, granted, cells)
    short = Way(request(**more), True, granted, cells)
    same_on_both(long, short, chunks, read)


@pytest.mark.parametrize("kind", ["content", "reasoning"])
@pytest.mark.parametrize("text", [" tok", "ü", 'a "quoted" \\ word\n', "<&>", "x" * 300])
@pytest.mark.parametrize("ids", [[7], [7, 8], None])
def test_nearly_all_of_an_answer_goes_the_short_way(
    kind: str, text: str, ids: list[int] | None
) -> None:
    way = Way(request(), True)
    for chunk in (FIRST, *[event({kind: text}, ids)] * 200):
        way.take(chunk)
    each = 1 if ids is None else len(ids)
    assert way.spliced >= 180  # not where more cells are asked for
    assert way.stream.billed().output == 200 * each
    assert way.stream.billed().reasoning == (0 if kind == "content" else 200 * each)


@pytest.mark.parametrize("more", [{"n": 2}, {"stream": False}])
def test_answers_of_another_shape_have_no_short_way(more: dict[str, Any]) -> None:
    assert request(**more).splice is None
    assert request(reader=lambda _call_id: pytest.fail("never read")).splice is None
    assert request(Habits(stops=False)).splice is None


ODD_DELTAS: list[object] = [{}, ROLE, {"tool_calls": [{"index": 0}]}, {"refusal": "a"}, 5,
                            {"reasoning": "a", "content": "b"}]  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [event({"content": "c"}, [3], **shape) for shape in ODD]
    + [event(delta, [3]) for delta in ODD_DELTAS]
    + [event({"content": "c"}, [])]
    + [event({"content": "c"}, [3]).replace(b"{", b"\n{", 1), event({"content": "c"}, [3]) * 2]
    + [event({"content": "c"}, [3]).replace(b'"c"', bad) for bad in (b'"\xff"', b'"c', b'"c""')],
)
def test_what_is_not_the_usual_event_is_left_to_the_long_way(odd: bytes) -> None:
    way = Way(request(), True)
    for chunk in BEGIN:
        way.take(chunk)
    before = str(way.cleaner.meter)
    assert way.stream.splice(framed(odd)) == b""
    assert str(way.cleaner.meter) == before
    assert way.stream.splice(framed(event({"content": "c"}, [3])))


def test_a_chunk_that_says_another_length_is_left_alone() -> None:
    way = Way(request(), True)
    for chunk in BEGIN:
        way.take(chunk)
    good = framed(event({"content": "c"}, [4]))
    short = b"%x\r\n" % (len(good) - 8) + good[4:]
    for wrong in (short, good[:-1], good[1:], good + b"0\r\n\r\n", good + good, good.upper()):
        assert way.stream.splice(wrong) == b""
    assert way.stream.billed().output == 1
    assert way.stream.splice(good)
