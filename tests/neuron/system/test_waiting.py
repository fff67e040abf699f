"""Requests that wait for a seat: fairly refused, kept awake, and never in front of the truth."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

ONE_SEAT = """
commit_ms = 300
[engines.llamacpp]
slots = 1
[admission]
max_queue_depth = 1
"""


@pytest.fixture(scope="module")
def one_seat(make_node: Any) -> Any:
    node = make_node(ONE_SEAT)
    node.load()
    return node


@pytest.fixture(scope="module")
def one_seat_soon(make_node: Any) -> Any:
    node = make_node(ONE_SEAT + "max_wait_secs = 1.0\n")
    node.load()
    return node


@pytest.fixture
def busy(one_seat: Any, h: Any) -> Iterator[Any]:
    """A node whose only seat is taken until the test ends."""
    yield from taken(one_seat, h)


@pytest.fixture
def impatient(one_seat_soon: Any, h: Any) -> Iterator[Any]:
    """The same, and nobody waits there for longer than a second."""
    yield from taken(one_seat_soon, h)


def taken(node: Any, h: Any) -> Iterator[Any]:
    # More than the sockets between them hold: it is not over before somebody reads it.
    wide = h.endless(8000, stream=True, logprobs=True, top_logprobs=20)
    node.holder = h.raw_request(node.url, wide, rcvbuf=4096)
    h.until(lambda: node.in_flight() == 1)
    yield node
    node.holder.close()
    h.until(lambda: node.in_flight() == 0 and node.figures()["queue_depth"] == 0)


def read_some(sock: socket.socket, timeout_s: float) -> bytes:
    """What arrives within ``timeout_s`` seconds of silence or until the end."""
    sock.settimeout(timeout_s)
    got = b""
    with contextlib.suppress(TimeoutError):
        while piece := sock.recv(65536):
            got += piece
    return got


def read_to(sock: socket.socket, mark: bytes) -> bytes:
    """What arrives up to ``mark``."""
    sock.settimeout(60)
    got = b""
    while mark not in got:
        piece = sock.recv(65536)
        assert piece, got
        got += piece
    return got


def test_a_direct_caller_gets_its_header_at_the_commit_time_and_comments_then(
    busy: Any, h: Any
) -> None:
    started = time.monotonic()
    waiting = h.raw_request(busy.url, h.chat(max_tokens=2, stream=True))
    waiting.settimeout(60)
    first = waiting.recv(65536)
    waited = time.monotonic() - started
    assert first.startswith(b"HTTP/1.1 200")
    assert b": keep-alive, place 1 in the queue" in first
    assert waited > 0.2
    busy.holder.close()  # the seat is free now
    read_to(waiting, b"[DONE]")
    waiting.close()


def test_a_gateway_gets_no_header_before_the_engine_has_the_prompt(busy: Any, h: Any) -> None:
    waiting = h.raw_request(
        busy.url, h.chat(max_tokens=2, stream=True), x_helexa_gateway="gw", x_request_id="w"
    )
    assert read_some(waiting, 0.7) == b""
    busy.holder.close()
    waiting.settimeout(60)
    assert waiting.recv(65536).startswith(b"HTTP/1.1 200")
    waiting.close()


def test_nobody_waits_longer_than_allowed(impatient: Any, h: Any) -> None:
    before = impatient.figures()["rejected_timeout"]
    started = time.monotonic()
    refused = impatient.post("/v1/chat/completions", h.chat(max_tokens=2))
    assert time.monotonic() - started > 0.9
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert int(refused.headers["retry-after"]) >= 1
    assert impatient.figures()["rejected_timeout"] == before + 1


def test_a_refusal_after_the_header_is_an_error_event_without_terminator(
    impatient: Any, h: Any
) -> None:
    waiting = h.raw_request(impatient.url, h.chat(max_tokens=2, stream=True))
    got = read_to(waiting, b"\r\n0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200")
    assert b'"code":"overloaded"' in got
    assert b"retry_after_s" in got
    assert b"[DONE]" not in got
    waiting.close()


def test_a_full_queue_refuses_at_once(busy: Any, h: Any) -> None:
    before = busy.figures()["rejected_queue_full"]
    waiting = h.raw_request(busy.url, h.chat(max_tokens=2))
    h.until(lambda: busy.figures()["queue_depth"] == 1)
    refused = busy.post("/v1/chat/completions", h.chat(max_tokens=2))
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
    assert busy.figures()["rejected_queue_full"] == before + 1
    waiting.close()


def test_a_caller_that_leaves_while_it_waits_leaves_the_queue(busy: Any, h: Any) -> None:
    waiting = h.raw_request(busy.url, h.chat(max_tokens=2))
    h.until(lambda: busy.figures()["queue_depth"] == 1)
    waiting.close()
    h.until(lambda: busy.figures()["queue_depth"] == 0)
    assert len([r for r in busy.get("/requests") if not r["gateway"]]) <= 1  # the holder's


def test_control_plane_reads_answer_while_everything_is_taken(busy: Any, h: Any) -> None:
    for path in ("/health", "/models", "/discovery", "/requests", "/version"):
        busy.get(path)
    assert busy.in_flight() == 1
    assert busy.get("/models")[0]["servable"] == {"ok": True}
