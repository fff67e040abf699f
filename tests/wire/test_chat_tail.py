"""Metering a stream from its bytes, however they are batched and whatever the model says."""

from __future__ import annotations

import json
from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helexa.core.metrics import GAP_BUCKETS
from helexa.core.usage import Timings, Usage
from helexa.wire.chat_tail import DONE, ChatTail, plain_end

BOUNDS = (0.01, 0.1, 1.0)
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 4,
    "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 3},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
TIMINGS = {"prompt_n": 6, "cache_n": 3, "prompt_ms": 1.5, "predicted_n": 4, "predicted_ms": 8.0}
HEAD = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": "m"}
FAKES = ('"usage"', "[DONE]", '"error"', "data: [DONE]\n\n", "null}]}\n\n", '{"error": {}}',
         'data: {"choices": [], "usage": {"prompt_tokens": 1}}\n\n')  # fmt: skip


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def delta(finish: str | None = None, index: int = 0, **members: Any) -> bytes:
    choice = {"index": index, "delta": members, "logprobs": None, "finish_reason": finish}
    if finish is None:
        del choice["logprobs"]  # the finish reason comes last, as nodes write it
    return event({**HEAD, "choices": [choice]})


def usage_chunk() -> bytes:
    return event({**HEAD, "choices": [], "usage": USAGE, "timings": TIMINGS})


def run(batches: list[bytes], *, show: bool = True, step: float = 0.5) -> tuple[ChatTail, bytes]:
    tail = ChatTail(BOUNDS, show_usage=show)
    out = b"".join(tail.feed(batch, 10.0 + i * step) for i, batch in enumerate(batches))
    tail.measure()
    return tail, out


texts = st.text(max_size=12) | st.sampled_from(FAKES)
pieces = st.builds(lambda t: delta(content=t), texts) | st.builds(
    lambda t: delta(reasoning_content=t), texts
) | st.builds(
    lambda t: delta(tool_calls=[{"index": 0, "function": {"arguments": t}}]), texts
) | st.just(b": keep-alive\n\n")  # fmt: skip
ends = st.sampled_from(["whole", "error", "cut", "no usage"])


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], str]:
    events = [delta(role="assistant", content=""), *draw(st.lists(pieces, max_size=8))]
    how = draw(ends)
    if how == "error":
        events.append(event({"error": {"message": "lost", "code": "x"}}))
    elif how != "cut":
        events.append(delta(finish="stop"))
        events += [usage_chunk()] if how == "whole" else []
        events.append(DONE)
    return events, how


@given(streams(), st.booleans(), st.data())
def test_any_batching_of_the_events_tells_the_same(
    stream: tuple[list[bytes], str], show: bool, data: st.DataObject
) -> None:
    events, how = stream
    batches, rest = [], list(events)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batches.append(b"".join(rest[:size]))
        rest = rest[size:]
    single, kept = run(events, show=show)
    tail, out = run(batches, show=show)
    assert out == kept
    for one in (single, tail):
        assert one.done == (how in ("whole", "no usage"))
        assert one.usage == (Usage(9, 4, 3, 2) if how == "whole" else None)
        assert (one.timings is not None) == (how == "whole")
        assert (one.error is not None) == (how == "error")
    hidden = {DONE} | (set() if show else {usage_chunk()})
    expected = [e for e in events if e not in hidden and not e.startswith(b'data: {"error"')]
    assert out == b"".join(expected)


@given(st.lists(st.sampled_from(FAKES), min_size=1, max_size=6))
def test_a_models_words_cannot_fake_the_end(words: list[str]) -> None:
    said = [delta(content=word) for word in words]
    for batches in (said, [b"".join(said)]):
        tail, out = run(batches, show=False)
        assert out == b"".join(said)
        assert (tail.done, tail.usage, tail.error) == (False, None, None)


def test_the_usage_chunk_is_shown_to_those_who_asked_and_always_known() -> None:
    events = [delta(content="x"), delta(finish="stop"), usage_chunk(), DONE]
    shown, out = run([b"".join(events)])
    assert out == b"".join(events[:3])
    hidden, out = run([b"".join(events)], show=False)
    assert out == b"".join(events[:2])
    assert shown.usage == hidden.usage == Usage(prompt=9, completion=4, cached=3, reasoning=2)
    assert hidden.timings == Timings(
        prompt_n=6, cache_n=3, prompt_ms=1.5, predicted_n=4, predicted_ms=8.0
    )


def test_usage_on_a_chunk_with_choices_stays_with_its_text() -> None:
    both = event({**HEAD, "choices": [{"index": 0, "delta": {"content": "x"}}], "usage": USAGE})
    tail, out = run([both], show=False)
    assert out == both
    assert tail.usage == Usage(9, 4, 3, 2)


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 3, "completion_tokens": None},
        {"prompt_tokens": 3},
        {"prompt_tokens": 3, "prompt_tokens_details": None, "completion_tokens_details": {}},
    ],
)
def test_usage_may_lack_what_it_likes(usage: dict[str, Any]) -> None:
    tail, _ = run([event({**HEAD, "choices": [], "usage": usage})])
    assert tail.usage == Usage(3, 0)
    assert plain_end(json.dumps({"usage": usage}).encode())[0] == Usage(3, 0)


def test_an_error_event_is_kept_back_for_whoever_speaks_the_clients_dialect() -> None:
    lost = event({"error": {"message": "lost", "code": "upstream_connection_error"}})
    tail, out = run([delta(content="half"), lost])
    assert out == delta(content="half")
    assert tail.error is not None
    assert json.loads(tail.error)["error"]["message"] == "lost"
    assert not tail.done


def test_the_first_delta_of_any_kind_starts_the_clock_and_the_role_chunk_does_not() -> None:
    call = delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}])
    for first in (delta(content="x"), delta(reasoning_content="x"), delta(refusal="x"), call):
        tail, _ = run([delta(role="assistant", content=""), first, delta(content="y")], step=0.05)
        assert tail.first_at == pytest.approx(10.05)
        assert tail.last_at == pytest.approx(10.10)
        assert tail.gaps == [0, 1, 0, 0]
        assert tail.gap_sum == pytest.approx(0.05)
    silent, _ = run([delta(role="assistant", content="")])
    assert silent.first_at == 0.0
    assert silent.gaps is None


def test_a_plain_body_is_metered_and_garbage_is_not() -> None:
    body = {"choices": [{"message": {}}], "usage": USAGE, "timings": TIMINGS}
    usage, timings, cut = plain_end(json.dumps(body).encode())
    assert usage == Usage(9, 4, 3, 2)
    assert timings is not None
    assert cut is None
    for unread in (b"<html>", b"\xff\xfe", b'{"usage": null}'):
        assert plain_end(unread) == (None, None, None)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_plain_body_says_why_it_was_cut_and_no_text_can(separators: tuple[str, str]) -> None:
    said = json.dumps({"helexa": {"finish": "budget"}}, separators=separators)
    body = {"choices": [{"message": {"content": said}}], "usage": USAGE}
    plain = json.dumps(body, separators=separators)
    cut = json.dumps(body | json.loads(said), separators=separators)
    assert plain_end(plain.encode())[2] is None
    assert plain_end(cut.encode())[2] == "budget"


@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.0005, 0.001, 0.0011, 0.02, 0.7, 5.0, 9.0]))),
    st.floats(0.1, 1e6),
)
def test_gaps_that_are_counted_together_are_those_that_are_counted_one_by_one(
    rounds: list[list[float]], start: float
) -> None:
    tail = ChatTail(GAP_BUCKETS, show_usage=True)
    tail.last_at = last = start
    counts = [0] * (len(GAP_BUCKETS) + 1)
    for gaps in rounds:
        for gap in gaps:
            tail.stamps.append(last + gap)
            counts[bisect_left(GAP_BUCKETS, tail.stamps[-1] - last)] += 1
            last = tail.stamps[-1]
        tail.measure()
        assert tail.last_at == last
        assert not tail.stamps
    assert tail.gaps == (counts if any(rounds) else None)
    assert tail.gap_sum == pytest.approx(last - start, abs=1e-6)
