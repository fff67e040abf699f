"""An answer is forwarded in whole events, never beyond its grant, its cells or its reader."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.neuron.engines.ways import Pool

from helexa.core.errors import HelexaError
from helexa.neuron.engines.base import Meter
from helexa.neuron.grants import GrantGate
from helexa.neuron.stream import AnswerStream, may_cost, tokens_in


def event(tokens: int = 1, text: str = "x") -> bytes:
    delta = msgspec.json.encode({"content": text, "tokens": tokens})
    return b'data: {"choices":[{"delta":' + delta + b',"finish_reason":null}]}\n\n'


PROGRESS = b'data: {"prompt_progress":{"total":10}}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@dataclass
class Counting:
    """A cleaner that passes events through and counts what they say."""

    prompt: int = 10
    meter: Meter = field(default_factory=Meter)
    finish_reason: str | None = None
    failed: HelexaError | None = None
    done: bool = False
    fed: bytes = b""

    def feed(self, events: bytes) -> bytes:
        self.fed += events
        out = b""
        for one in events.split(b"\n\n")[:-1]:
            if b"prompt_progress" in one:
                self.meter.prompt = self.meter.prompt_processed = self.prompt
                self.meter.prompt_known = True
                continue
            if b"[DONE]" in one:
                self.done = True
            elif b'"tokens":' in one:
                self.meter.output += int(one.split(b'"tokens":')[1].split(b"}")[0])
            out += one + b"\n\n"
        return out

    def close(self, finish: str, why: str | None) -> bytes:
        return f"closed {finish} {why} {self.meter.output}".encode()

    def whole(self) -> bytes:
        return b"whole"


def stream(granted: int | None = None, cells: int = 10**9) -> AnswerStream:
    return AnswerStream(Counting(), GrantGate(granted), Pool(cells), kv_slice=32)


def answer(tokens: int) -> bytes:
    return PROGRESS + event() * tokens + FINISH + DONE


def test_events_leave_whole_and_the_rest_waits() -> None:
    s = stream()
    first = event()
    assert s.push(first[:-1]).out == b""
    assert s.push(b"\n" + event()[:5]).out == first
    assert s.push(event()[5:]).out == event()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_lines_that_end_as_those_of_http_are_events_wherever_they_are_cut(size: int) -> None:
    usual, other = stream(), stream()
    raw = answer(4)
    told = raw.replace(b"\n", b"\r\n")
    pieces = [told[at : at + size] for at in range(0, len(told), size)]
    assert b"".join(other.push(piece).out for piece in pieces) == usual.push(raw).out
    assert other.billed() == usual.billed()


def test_a_whole_answer_is_done_and_billed() -> None:
    s = stream(1000)
    step = s.push(answer(5))
    assert step.done
    assert step.began
    assert (s.billed().prompt, s.billed().output) == (10, 5)


@pytest.mark.parametrize("tokens", [0, 1, 7, 63, 64, 65, 200])
def test_the_edge_falls_exactly_at_the_grant_and_the_cut_closes_with_what_was_billed(
    tokens: int,
) -> None:
    s = stream(10 + tokens)
    step = s.push(answer(300))
    assert step.edge == "grant"
    assert step.out.count(b"data: ") == tokens
    assert s.cut("length", "budget") == f"closed length budget {tokens}".encode()
    billed = s.billed()
    assert (billed.prompt, billed.output, billed.discarded) == (10, tokens, 300 - tokens)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=60, max_size=90),
    granted=st.integers(75, 330),
    cells=st.integers(60, 400),
)
@settings(max_examples=150, deadline=None)
def test_batches_and_single_events_in_any_order_stop_exactly_at_the_edge(
    sizes: list[int], granted: int, cells: int
) -> None:
    s = stream(granted, cells)
    assert isinstance(s.cells, Pool)
    step = s.push(PROGRESS)
    out = b""
    for size in sizes:
        step = s.push(event() * size)
        out += step.out
        if step.edge is not None:
            break
        assert s.gate.used <= granted
        assert s.gate.used <= s.cells.cells
    took = out.count(b"data: ")
    assert s.billed().output == took
    assert took <= min(granted, cells) - 10
    if step.edge is not None:
        assert took == min(granted, cells) - 10
    else:
        assert took == sum(sizes)


@pytest.mark.parametrize("batch", [5, 7, 10])
def test_batches_that_use_up_the_grant_leave_nothing_for_single_events(batch: int) -> None:
    for singles in range(100):
        s = stream(110)
        s.push(PROGRESS)
        for size in [1] * singles + [batch] * 20 + [1] * 10:
            if s.push(event() * size).edge is None and s.gate.left and s.gate.left < size:
                break
            if s.gate.left == 0:  # used up to the last token, and no edge was met
                assert s.push(event()).edge == "grant"
                break
        assert s.gate.used <= 110
        assert s.billed().output <= 100


def test_what_no_longer_fits_and_what_came_behind_it_are_thrown_away_once() -> None:
    s = stream(12)
    s.push(PROGRESS + event(tokens=5))
    assert s.blocked
    later = (
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"x"}}],'
        b'"timings":{"predicted_n":9,"predicted_ms":1}}\n\n'
    )
    s.push(later)
    s.cut("length", "budget")
    assert (s.billed().output + s.billed().discarded) == 9
    s.abandon()
    assert (s.billed().output + s.billed().discarded) == 9


def test_a_token_in_several_events_is_thrown_away_once() -> None:
    held = b"".join(
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"x"}}],'
        b'"timings":{"predicted_n":%d,"predicted_ms":1}}\n\n' % n
        for n in (11, 11, 12, 14)
    )
    assert tokens_in(held, 10) == 4
    assert tokens_in(held.replace(b'"index":0', b'"index":1', 1), 10) == 4
    assert tokens_in(event() * 3, 10) == 3


def test_an_answer_that_ends_at_its_grant_is_complete() -> None:
    s = stream(15)
    step = s.push(answer(5))
    assert (step.edge, step.done) == (None, True)


def test_a_raise_lets_the_held_events_go_in_order() -> None:
    s = stream(12)
    first = s.push(PROGRESS + b"".join(event(text=str(i)) for i in range(4)))
    assert (first.edge, s.missing, s.ahead) == ("grant", 1, 2)
    assert s.push(FINISH + DONE).edge == "grant"
    assert s.ahead == 4
    s.gate.raise_to(100)
    second = s.resume()
    assert (second.done, s.ahead) == (True, 0)
    whole = b"".join(event(text=str(i)) for i in range(4)) + FINISH + DONE
    assert first.out + second.out == whole


def test_an_event_of_several_tokens_is_forwarded_whole_or_not_at_all() -> None:
    s = stream(12)
    step = s.push(PROGRESS + event(tokens=5) + FINISH)
    assert (step.out, step.edge, s.missing) == (b"", "grant", 3)
    assert s.billed().output <= 2
    s.gate.raise_to(14)
    assert s.resume().edge == "grant"
    s.gate.raise_to(15)
    assert s.resume().out == event(tokens=5) + FINISH
    assert s.billed().output == 5


def test_a_cut_inside_an_event_of_several_tokens_bills_no_more_than_granted() -> None:
    s = stream(12)
    s.push(PROGRESS + event(tokens=5))
    s.cleaner.meter.reasoning = 5
    assert (s.billed().output, s.billed().reasoning) == (2, 2)
    s.cut("length", "budget")
    assert s.billed().prompt + s.billed().output <= 12
    assert s.billed().output + s.billed().discarded == 5


def test_cells_are_taken_as_the_answer_grows_and_their_end_is_an_edge() -> None:
    s = stream(None, cells=50)
    step = s.push(answer(300))
    assert step.edge == "kv_exhausted"
    assert step.out.count(b"data: ") == 40
    s.cut("length", "kv_exhausted")
    assert s.billed().output == 40
    assert s.billed().discarded == 260


def test_a_cancel_during_prefill_bills_what_was_processed() -> None:
    s = stream(1000)
    s.cleaner.meter.prompt, s.cleaner.meter.prompt_processed = 10, 4
    s.push(b": nothing yet\n\n")
    s.abandon()
    assert (s.billed().prompt, s.billed().output) == (4, 0)


def test_a_prompt_is_billed_whole_once_there_is_output_whatever_was_said_of_its_progress() -> None:
    s = stream(1000)
    s.push(PROGRESS)
    s.cleaner.meter.prompt_processed = 4  # the last that the engine has told of it
    s.push(event() * 2)
    s.abandon()
    assert (s.billed().prompt, s.billed().output, s.gate.used) == (10, 2, 12)


def test_a_prompt_beyond_its_grant_is_billed_up_to_the_grant() -> None:
    s = stream(6)
    assert s.push(PROGRESS + event()).edge == "grant"
    assert s.missing == 4
    s.cut("length", "budget")
    assert (s.billed().prompt, s.billed().output, s.gate.used) == (6, 0, 6)


def test_an_end_whose_count_does_not_fit_goes_out_whole_and_only_the_grant_is_billed() -> None:
    s = stream(100)
    s.push(PROGRESS + event())
    step = s.push(event(200) + FINISH + DONE)
    assert (step.edge, step.out) == ("grant", b"")
    assert s.blocked
    assert s.cut("length", "budget") == event(200) + FINISH + DONE
    assert s.billed().prompt + s.billed().output <= 100


LAST_WORDS = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"length"}]}\n\n'
LAST_TEXT = b'data: {"choices":[{"text":"x","finish_reason":"length"}]}\n\n'
NO_TEXT = b'data: {"choices":[{"text":"","finish_reason":"length"}]}\n\n'
HELD = b'data: {"choices":[{"delta":{},"finish_reason":null,"token_ids":[7]}]}\n\n'
LAST_HELD = b'data: {"choices":[{"delta":{},"finish_reason":"stop","token_ids":[7]}]}\n\n'


@pytest.mark.parametrize(
    ("raw", "costs"),
    [(event(), True), (FINISH, False), (DONE, False), (PROGRESS, False), (LAST_WORDS, True),
     (LAST_TEXT, True), (NO_TEXT, False), (HELD, True), (LAST_HELD, False)],
)  # fmt: skip
def test_only_deltas_cost(raw: bytes, costs: bool) -> None:
    assert may_cost(raw) is costs
    blanks = raw.replace(b":", b": ").replace(b",", b", ").replace(b"{}", b"{ }")
    assert may_cost(blanks) is costs  # as many a server's JSON has them


@given(
    tokens=st.lists(st.integers(1, 3), max_size=120),
    granted=st.integers(10, 300),
    raises=st.lists(st.integers(0, 400), max_size=5),
    cells=st.integers(60, 400),
    cuts=st.lists(st.integers(0, 20_000), max_size=12),
)
@settings(max_examples=120, deadline=None)
def test_any_chunking_and_any_raises_never_overshoot_and_never_lose_an_event(
    tokens: list[int], granted: int, raises: list[int], cells: int, cuts: list[int]
) -> None:
    raw = PROGRESS + b"".join(event(n, str(i)) for i, n in enumerate(tokens)) + FINISH + DONE
    s = stream(granted, cells)
    places = sorted({0, len(raw), *(min(c, len(raw)) for c in cuts)})
    out, pending, ended = b"", list(raises), False
    for start, stop in itertools.pairwise(places):
        step = s.push(raw[start:stop])
        out += step.out
        while step.edge == "grant" and pending:
            if s.gate.raise_to(pending.pop()) and s.gate.fits(s.missing):
                step = s.resume()
                out += step.out
        assert s.gate.used <= (s.gate.granted or 0)
        assert s.billed().prompt + s.billed().output <= s.gate.used
        if step.edge == "kv_exhausted" or (step.edge == "grant" and not pending):
            s.push(raw[stop:])
            s.cut("length", "budget")
            ended = True
            break
    assert raw.removeprefix(PROGRESS).startswith(out)
    if not ended:
        assert out == raw.removeprefix(PROGRESS)
        assert s.billed().output == sum(tokens)
    else:
        forwarded = [n for i, n in enumerate(tokens) if b'"%d"' % i in out]
        assert s.billed().output >= sum(forwarded)
