from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.bench.made import DONE, OK, Write, chunk, json_answer, serving, usage

from helexa.bench.probe.arrivals import poisson
from helexa.bench.probe.prompts import prompt
from helexa.bench.probe.stream import Prober
from helexa.bench.probe.timed import Timed
from helexa.bench.scenarios.base import single, together

pytestmark = pytest.mark.anyio
ROLE = chunk({"role": "assistant", "content": ""})
END = chunk({}, finish_reason="stop") + usage(10, 3) + DONE


def playing(*events: bytes | float, head: bytes = OK) -> Callable[..., Any]:
    """Bytes are written, numbers are waited for (seconds)."""

    async def play(_body: dict[str, Any], write: Write) -> None:
        await write(head)
        for event in events:
            if isinstance(event, bytes):
                await write(event)
            else:
                await asyncio.sleep(event)

    return play


async def ask(play: Callable[..., Any], timeout_s: float = 60) -> Timed:
    async with serving(play) as url:
        return await Prober(f"{url}/v1", None, timeout_s).ask({"model": "m", "messages": []})


async def ask_until(play: Callable[..., Any], fits: Callable[[Timed], object]) -> Timed:
    """Again, where this process was held up: what came meanwhile was read too late, or at once."""
    timed, left = await ask(play), 20
    while not fits(timed):
        assert timed.ok
        assert left, timed
        timed, left = await ask(play), left - 1
    return timed


def test_an_ipv6_address_is_named_in_brackets() -> None:
    assert b"\r\nhost: [::1]:8000\r\n" in Prober("http://[::1]:8000/v1", None, 1)._head(2)


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
async def test_the_first_token_is_the_first_delta_of_any_kind_not_the_role(
    delta: dict[str, Any],
) -> None:
    play = playing(ROLE, 0.1, chunk(delta), 0.05, chunk(delta), END)
    timed = await ask_until(play, lambda t: t.gaps_ms and t.gaps_ms[0] > 45)
    assert timed.first_ms is not None
    assert timed.first_ms > 95
    assert len(timed.gaps_ms) == 1


async def test_the_rate_is_the_servers_word_when_it_tells() -> None:
    told = usage(10, 3, timings={"predicted_n": 3, "predicted_ms": 30.0})
    events = chunk({"content": "a"}) + chunk({"content": "b"}, finish_reason="stop") + told + DONE
    assert (await ask(playing(events))).rate == pytest.approx(100)


async def test_without_timings_the_rate_is_from_the_first_to_the_last_window() -> None:
    play = playing(chunk({"content": "a"}), 0.1, chunk({"content": "b"}), END)
    timed = await ask_until(play, lambda t: t.rate is not None and 5 < t.rate < 21)
    assert timed.tokens == 3  # two more in 0.1 s


async def test_usage_and_cached_tokens_are_read() -> None:
    told = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 5}}}  # fmt: skip
    event = b"data: " + json.dumps(told).encode() + b"\n\n"
    timed = await ask(playing(chunk({"content": "a"}, finish_reason="length") + event + DONE))
    assert (timed.prompt_tokens, timed.tokens, timed.cached) == (7, 2, 5)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refusal_is_neither_slow_nor_failed(status: int) -> None:
    timed = await ask(playing(head=json_answer({"error": {}}, status)))
    assert timed.refused
    assert not timed.ok
    assert timed.error == ""


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ((chunk({"content": "a"}),), "without a finish reason"),
        ((chunk({"content": "a"}), b"data: {nonsense\n\n" + END), "no chat chunk"),
        ((b'data: {"error": {"message": "boom"}}\n\n',), "boom"),
    ],
)
async def test_a_stream_that_breaks_is_a_failure_with_its_reason(
    events: tuple[bytes, ...], words: str
) -> None:
    timed = await ask(playing(*events))
    assert words in timed.error
    assert not timed.refused


async def test_what_is_cut_in_mid_body_is_a_failure() -> None:
    head = OK.replace(b"connection: close", b"transfer-encoding: chunked")
    timed = await ask(playing(b"20\r\ndata: ", head=head))
    assert "before its stated length" in timed.error


async def test_a_server_that_says_nothing_is_given_up() -> None:
    timed = await ask(playing(60.0), timeout_s=0.2)
    assert "no end within 0.2 s" in timed.error


async def test_nobody_there_is_a_failure_and_no_exception() -> None:
    timed = await Prober("http://127.0.0.1:1", None, 5).ask({})
    assert "no connection" in timed.error


async def test_an_html_page_is_no_answer() -> None:
    html = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi"
    assert "not an event stream" in (await ask(playing(head=html))).error


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_cutting_of_the_bytes_reads_the_same(data: st.DataObject) -> None:
    stream = ROLE + chunk({"content": "Grüße"}) + b": comment\n\n" + chunk({"content": "!"}) + END
    cuts = sorted(data.draw(st.lists(st.integers(1, len(stream) - 1), max_size=6)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    async def read() -> Timed:
        return await ask(playing(*(p for part in parts for p in (part, 0.001))))

    timed = asyncio.run(read())
    assert (timed.text, timed.tokens, timed.prompt_tokens) == ("Grüße!", 3, 10)
    assert timed.ok


@pytest.mark.parametrize(
    ("counts", "words"),
    [((10, 900), "900 output tokens"), ((10, 0), "no output tokens"), ((0, 2), "no prompt")],
)
async def test_a_usage_that_cannot_be_true_is_worth_no_figure(
    counts: tuple[int, int], words: str
) -> None:
    events = chunk({"content": "a"}, finish_reason="stop") + usage(*counts) + DONE
    result = single(await ask(playing(events)), prompt_asked=10, cap=8)
    assert not result.ok
    assert words in result.error


def test_several_streams_are_medians_and_refusals_stand_apart() -> None:
    good = [
        Timed(200, first_ms=float(10 * i), last_ms=500.0, total_ms=500, tokens=5, counted=True,
              prompt_tokens=9, server_rate=50.0 + i) for i in (1, 2, 3)
    ]  # fmt: skip
    result = together([*good, Timed(503, refused=True)], prompt_asked=9, cap=8, wall_ms=1000)
    assert result.ok
    assert (result.first_token_ms, result.decode_rate, result.refused) == (20.0, 52.0, 1)
    assert (result.throughput, result.concurrency, result.failed) == (15.0, 4, 0)


def test_prompts_are_the_same_for_everyone_and_new_for_every_run() -> None:
    assert prompt(100, "s") == prompt(100, "s")
    assert prompt(100, "s") != prompt(100, "t")
    assert 80 < len(prompt(100, "s").split()) < 120


def test_poisson_arrivals_keep_their_rate_and_their_seed() -> None:
    times = poisson(10, 2000, 3)
    assert times == poisson(10, 2000, 3)
    assert times == sorted(times)
    assert times[-1] == pytest.approx(200, rel=0.1)
