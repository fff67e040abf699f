"""The short way of the usual event gives what the long way gives, or leaves the event alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neuron.engines.driving import running, user
from tests.neuron.engines.specimens import GGUF, served_by
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

from helexa import spark
from helexa.neuron.engines.base import EngineRequest
from helexa.neuron.engines.llamacpp.clean import engine_request
from helexa.neuron.engines.llamacpp.engine import LlamaCpp
from helexa.neuron.models.inspect import inspect

SERVED = served_by(GGUF)


def a_way(
    short: bool,
    granted: int | None = None,
    cells: int = 10**9,
    more: Mapping[str, Any] = MappingProxyType({}),
    low_water: int = 32,
) -> Way:
    return Way(request(**more), short, granted, cells, low_water)


def request(**more: Any) -> EngineRequest:
    body = {"model": "m", "stream": True, **user("hi"), **more}
    return engine_request("chat", json.dumps(body).encode(), SERVED, "abc", created=7)


def event(delta: object, said: int | None, *, ascii_: bool = True, **more: Any) -> bytes:
    """One event in llama.cpp's own form, order and all."""
    choice = {"finish_reason": more.pop("finish", None), "index": more.pop("index", 0)}
    choice |= {"delta": delta, **more.pop("choice", {})}
    chunk: dict[str, Any] = {"choices": [choice], "created": 1795273415, "id": "chatcmpl-ql4gp7xz"}
    chunk |= {"model": "m", "system_fingerprint": "b0", "object": "chat.completion.chunk"}
    if said is not None:
        chunk["timings"] = {"cache_n": 0, "prompt_n": 9, "prompt_ms": 2.608, "predicted_n": said}
        chunk["timings"] |= {"predicted_ms": said * 0.37, "predicted_per_second": 1766.78445229682}
    chunk |= more
    text = json.dumps(chunk, separators=(",", ":"), ensure_ascii=ascii_)
    return b"data: " + text.encode("utf-8", "surrogatepass") + b"\n\n"


PROGRESS = {"total": 9, "cache": 0, "processed": 9, "time_ms": 2}
ROLE = {"role": "assistant", "content": None}
BEGIN = [event(ROLE, 0, prompt_progress=PROGRESS), event(ROLE, 1)]
DELTAS = (
    st.builds(lambda text: {"content": text}, TEXTS)
    | st.builds(lambda text: {"reasoning_content": text}, TEXTS)
    | st.builds(lambda text: {"content": text, "refusal": None}, TEXTS)
    | st.just({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
    | st.sampled_from([{}, ROLE, {"content": ""}, {"content": None}, 5, None])
)
ODD: list[dict[str, Any]] = [
    {"index": 1},
    {"finish": "stop"},
    {"finish": "length", "__verbose": {"stopping_word": "x"}},
    {"usage": {"completion_tokens": 3, "prompt_tokens": 9}},
    {"choice": {"logprobs": {"content": []}}},
    {"prompt_progress": PROGRESS},
    {"error": {"code": 500, "message": "broke", "type": "server_error"}},
]
SHAPES = st.sampled_from([{}] * 12 + ODD)


@st.composite
def answers(draw: st.DrawFn) -> list[bytes]:
    """Chunks of an answer: mostly usual events, some odd ones, some bytes damaged."""
    chunks, said = list(BEGIN), 1
    for _ in range(draw(st.integers(1, 40))):
        said += draw(st.sampled_from([1, 1, 1, 1, 1, 2, 3, 0, -1]))
        counted = said if draw(st.integers(0, 9)) else None
        one = event(draw(DELTAS), counted, ascii_=draw(st.booleans()), **dict(draw(SHAPES)))
        chunk = chunk_of(draw, one, event({"content": "and more"}, said + 1))
        said += chunk.endswith(event({"content": "and more"}, said + 1))
        chunks.append(chunk)
    return chunks


@given(
    answers(),
    READS,
    GRANTS,
    CELLS,
    st.sampled_from([{}, {"n": 2}, {"logprobs": True}, {"stop": ["x"]}]),
)
@settings(max_examples=150, deadline=None)
def test_the_short_way_is_the_long_way(
    chunks: list[bytes], read: list[int], granted: int | None, cells: int, more: dict[str, Any]
) -> None:
    long = a_way(False, granted, cells, more)
    short = a_way(True, granted, cells, more)
    same_on_both(long, short, chunks, read)


@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
@pytest.mark.parametrize("text", [" tok", "ü", 'a "quoted" \\ word\n', "<&>"])
def test_nearly_all_of_an_answer_goes_the_short_way(kind: str, text: str) -> None:
    way = a_way(True)
    for chunk in (*BEGIN, *(event({kind: text}, said) for said in range(2, 202))):
        way.take(chunk)
    assert way.spliced >= 198
    assert way.stream.billed().output == 201
    assert way.stream.billed().reasoning == (0 if kind == "content" else 201)


def test_what_was_read_at_once_is_taken_at_once_or_not_at_all() -> None:
    way = a_way(True)
    for chunk in (*BEGIN, event({"content": "a"}, 2)):
        way.take(chunk)
    way.take(*(event({"content": "b"}, said) for said in (3, 4, 6)))
    way.take(event({"reasoning_content": "c"}, 7), event({"content": "d"}, 8))
    assert way.spliced == 6
    before = str(way.cleaner.meter)
    odd = event({"reasoning_content": "e"}, 9), event({}, 10), event({"content": "f"}, 11)
    assert way.stream.splice(b"".join(map(framed, odd))) == b""
    assert str(way.cleaner.meter) == before
    assert way.stream.billed().output == 8


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"stream": False}, {"tools": [TOOL], "tool_choice": "required"}]
)
def test_answers_of_another_shape_have_no_short_way(more: dict[str, Any]) -> None:
    assert request(**more).splice is None


ODD_DELTAS: list[object] = [{}, ROLE, {"content": ""}, {"tool_calls": []}, {"refusal": "a"}, 5]


@pytest.mark.parametrize(
    "odd",
    [event({"content": "c"}, 3, **shape) for shape in ODD]
    + [event(delta, 3) for delta in ODD_DELTAS]
    + [event({"content": "c"}, said) for said in (None, 1, 2)]
    + [event({"content": "c"}, 3).replace(b"{", b"\n{", 1), event({"content": "c"}, 3) * 2]
    + [event({"content": "c"}, 3).replace(b'"c"', bad) for bad in (b'"\xff"', b'"c', b'"c""')],
)
def test_what_is_not_the_usual_event_is_left_to_the_long_way(odd: bytes) -> None:
    way = a_way(True)
    for chunk in (*BEGIN, event({"content": "a"}, 2)):
        way.take(chunk)
    before = str(way.cleaner.meter)
    assert way.stream.splice(framed(odd)) == b""
    assert str(way.cleaner.meter) == before
    assert way.stream.splice(framed(event({"content": "c"}, 3)))


def test_the_event_at_which_something_is_to_be_said_or_held_goes_the_long_way() -> None:
    way = a_way(True, granted=9 + 600, low_water=200)
    for chunk in (*BEGIN, *(event({"content": "a"}, said) for said in range(2, 400))):
        assert not way.take(chunk)[1]
    assert way.spliced > 300
    assert way.take(event({"content": "a"}, 400))[1]
    assert way.stream.gate.left == 200
    for said in range(401, 600):
        way.take(event({"content": "a"}, said))
    before = way.spliced
    assert way.stream.splice(framed(event({"content": "a"}, 600))) == b""
    assert before > 400


def test_nothing_goes_the_short_way_beyond_the_cells() -> None:
    way = a_way(True, cells=9 + 200)
    for chunk in (*BEGIN, *(event({"content": "a"}, said) for said in range(2, 100))):
        way.take(chunk)
    assert way.stream.splice(framed(event({"content": "a"}, 300))) == b""
    assert way.stream.billed().output == 99


def test_a_chunk_that_says_another_length_is_left_alone() -> None:
    way = a_way(True)
    for chunk in (*BEGIN, event({"content": "a"}, 2), event({"content": "b"}, 3)):
        way.take(chunk)
    good = framed(event({"content": "c"}, 4))
    short = b"%x\r\n" % (len(good) - 8) + good[5:]
    for wrong in (short, good[:-1], good[1:], good + b"0\r\n\r\n", good + good, good.upper()):
        assert way.stream.splice(wrong) == b""
    assert way.stream.billed().output == 3
    assert way.stream.splice(good)


@pytest.mark.anyio
async def test_the_engines_own_chunks_go_the_short_way(tmp_path: Path) -> None:
    facts = inspect(spark.gguf_path(), "helexa/spark")
    async with running(LlamaCpp(os.environ), facts, tmp_path, {"slots": 1}) as case:
        asked = {**user("Count."), "stream": True, "max_tokens": 100, "ignore_eos": True}
        exchange = await case.send(asked)
        raw = await exchange.reader.read(-1)
        exchange.writer.close()
    way = a_way(True)
    at = raw.index(b"\r\n\r\n") + 4
    while (size := int(raw[at : raw.index(b"\r\n", at)], 16)) > 0:
        payload = raw.index(b"\r\n", at) + 2
        way.take(raw[payload : payload + size])
        at = payload + size + 2
    assert way.cleaner.done
    assert way.cleaner.failed is None
    assert way.stream.billed().output == 100
    assert way.spliced > 50
