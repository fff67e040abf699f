"""Captures are opt-in, bounded, complete, and gone when dropped."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile

import pytest

from helexa.core.errors import InvalidRequestBody
from helexa.core.principal import Principal
from helexa.cortex.capture import MB, CaptureOrder, Captures, as_lines, as_zip

ACME = Principal("acme", "acme-key")
OTHER = Principal("other", "other-key")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_nothing_is_recorded_until_somebody_asks() -> None:
    assert Captures(Clock()).watch(ACME, "m", "req_a") is None


def test_both_sides_of_the_chosen_requests_are_recorded() -> None:
    captures = Captures(Clock())
    capture = captures.start(CaptureOrder(key_id="acme-key"))
    assert captures.watch(OTHER, "m", "req_b") is None
    watcher = captures.watch(ACME, "m", "req_a")
    assert watcher is not None
    watcher.request(b'{"model":"m"}')
    watcher.response(b"data: 1\n\n")
    watcher.response(b"data: [DONE]\n\n")
    watcher.close(200, "complete")
    (line,) = as_lines(capture).splitlines()
    record = json.loads(line)
    assert record["request"] == '{"model":"m"}'
    assert record["response"] == "data: 1\n\ndata: [DONE]\n\n"
    assert (record["status"], record["outcome"], record["truncated"]) == (200, "complete", False)
    with zipfile.ZipFile(io.BytesIO(as_zip(capture))) as archive:
        assert archive.read("0000-req_a/request.json") == b'{"model":"m"}'
        assert archive.read("0000-req_a/response.txt").endswith(b"[DONE]\n\n")
        assert json.loads(archive.read("0000-req_a/facts.json"))["model"] == "m"


def test_a_capture_of_a_model_takes_every_key() -> None:
    captures = Captures(Clock())
    captures.start(CaptureOrder(model="m"))
    assert captures.watch(ACME, "n", "req_a") is None
    assert captures.watch(OTHER, "m", "req_b") is not None


def test_a_clock_that_is_set_back_records_nobody_for_longer() -> None:
    wall, monotonic = Clock(), Clock()
    captures = Captures(wall, clock=monotonic)
    capture = captures.start(CaptureOrder(model="m", minutes=1))
    wall.now -= 3600
    monotonic.now += 59
    before = capture.armed
    monotonic.now += 1
    assert (before, capture.armed) == (True, False)
    assert captures.watch(ACME, "m", "req_a") is None


def test_it_ends_after_so_many_requests_or_minutes() -> None:
    clock = Clock()
    captures = Captures(clock)
    capture = captures.start(CaptureOrder(model="m", requests=2, minutes=1))
    for name in ("req_a", "req_b"):
        assert captures.watch(ACME, "m", name) is not None
    assert captures.watch(ACME, "m", "req_c") is None
    capture = captures.start(CaptureOrder(model="m", requests=2, minutes=1))
    clock.now += 60
    assert captures.watch(ACME, "m", "req_d") is None
    assert not capture.armed


def test_bytes_are_bounded_over_all_requests_and_cuts_are_marked() -> None:
    captures = Captures(Clock())
    capture = captures.start(CaptureOrder(model="m", max_mb=1))
    first, second = captures.watch(ACME, "m", "req_a"), captures.watch(ACME, "m", "req_b")
    assert first is not None
    assert second is not None
    first.request(b"x" * (MB - 10))
    second.request(b"y" * 100)
    second.response(b"z" * 100)
    assert capture.kept_bytes == MB
    assert (len(second.request_body), second.answer) == (10, [])
    assert (first.truncated, second.truncated) == (False, True)


def test_stopping_keeps_and_dropping_forgets() -> None:
    captures = Captures(Clock())
    capture = captures.start(CaptureOrder(model="m"))
    captures.watch(ACME, "m", "req_a")
    captures.stop()
    assert captures.watch(ACME, "m", "req_b") is None
    assert capture.status()["captured"] == 1
    captures.drop()
    assert captures.current is None


@pytest.mark.parametrize(
    "order",
    [
        CaptureOrder(),
        CaptureOrder(key_id="k", model="m"),
        CaptureOrder(model="m", requests=0),
        CaptureOrder(model="m", requests=10**6),
        CaptureOrder(model="m", minutes=-1),
        CaptureOrder(model="m", max_mb=10**6),
    ],
)
def test_orders_beyond_the_bounds_are_refused(order: CaptureOrder) -> None:
    with pytest.raises(InvalidRequestBody):
        Captures(Clock()).start(order)


def test_rendered_prompts_are_fetched_afterwards() -> None:
    async def prompt_of(model: str, body: bytes) -> str | None:
        return f"<{model}>{body.decode()}"

    captures = Captures(Clock(), prompt_of)
    capture = captures.start(CaptureOrder(model="m"))
    watcher = captures.watch(ACME, "m", "req_a")
    assert watcher is not None
    watcher.request(b"{}")
    asyncio.run(captures.add_prompts())
    assert json.loads(as_lines(capture))["prompt"] == "<m>{}"
