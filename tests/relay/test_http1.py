"""Heads that we write cannot be split, and what we say about them is by the book."""

from __future__ import annotations

import time

import pytest

from helexa.relay.http1 import DateHeader, header_block, status_line
from helexa.relay.listener import local_url


def test_a_header_block_is_its_lines() -> None:
    assert header_block([(b"a", b"1"), (b"b", b"2")]) == b"a: 1\r\nb: 2\r\n"
    assert header_block([]) == b""


@pytest.mark.parametrize("bad", [b"x\r\ny: z", b"x\ny: z", b"x\ry", b"x\r\n\r\nbody", b"x\0"])
def test_a_line_break_inside_a_header_is_refused(bad: bytes) -> None:
    for pair in ((b"a", bad), (bad, b"a")):
        with pytest.raises(ValueError, match="line break"):
            header_block([(b"first", b"1"), pair])


def test_status_lines_and_dates_are_spelled_for_the_wire() -> None:
    assert status_line(200) == b"HTTP/1.1 200 OK\r\n"
    assert status_line(599) == b"HTTP/1.1 599 -\r\n"
    status, date = DateHeader().lines(200).splitlines()
    assert status == b"HTTP/1.1 200 OK"
    assert time.strptime(date.decode(), "date: %a, %d %b %Y %H:%M:%S GMT")


@pytest.mark.parametrize(
    ("host", "url"),
    [("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1"), ("::1", "http://[::1]:1"),
     ("fe80::1", "http://[fe80::1]:1"), ("node.lan", "http://node.lan:1")],
)  # fmt: skip
def test_a_listening_address_is_a_url_for_clients_of_this_machine(host: str, url: str) -> None:
    assert local_url(host, 1) == url
