"""What needs no parser is told from everything else, and means what the parser would say."""

from __future__ import annotations

import itertools
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helexa.relay.plainly import CHUNK_BODIES, CHUNK_HEADS, whole_answer, whole_chunks
from helexa.relay.upstream import Failure, Headers, Sink, UpstreamConnection

PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (b"1\r\na\r\n", 1),
        (b"1\r\na\r\n2\r\nbc\r\n", 3),
        (b"a\r\n0123456789\r\n", 10),
        (b"A\r\n0123456789\r\n", 0),
        (b"01\r\na\r\n", 0),
        (b"+1\r\na\r\n", 0),
        (b"-1\r\na\r\n", 0),
        (b"0x1\r\na\r\n", 0),
        (b" 1\r\na\r\n", 0),
        (b"1 \r\na\r\n", 0),
        (b"1_0\r\n" + b"a" * 16 + b"\r\n", 0),
        (b"1;x=y\r\na\r\n", 0),
        (b"1\na\r\n", 0),
        (b"1\r\na\n\n", 0),
        (b"1\r\na\r\n0\r\n\r\n", 0),
        (b"0\r\n\r\n", 0),
        (b"2\r\na\r\n", 0),
        (b"1\r\na\r\n1", 0),
        (b"1\r\na\r\n1\r\n", 0),
        (b"\r\n", 0),
        (b"", 0),
        (b"fffffff\r\na\r\n", 0),
    ],
)
def test_whole_chunks_are_whole_and_plain(data: bytes, size: int) -> None:
    assert whole_chunks(data) == size


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\ncontent-length: 2\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nTransfer-Encoding : chunked\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nserver-timing: a\nset-cookie: b\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nserver-timing: a\rb\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nserver-timing: a\0b\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\na\0b: c\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nset-cookie: a\r\nset-cookie: b\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nlong: %b\r\n\r\na" % (b"a" * 5000),
        b"HTTP/1.1 200 OK\r\ncontent-length: 24\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nfolded: a\r\n b\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\nno colon\r\n\r\na",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n: no name\r\n\r\na",
        b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN_HEAD % 1 + b"a",
    ],
)
def test_answers_that_are_not_plain_are_left_to_the_parser(data: bytes) -> None:
    assert whole_answer(data) is None


def test_a_plain_answer_is_read_at_once() -> None:
    data = b"HTTP/1.1 200 OK\r\nX-A:  b \r\nContent-Length: 2\r\n\r\nhi"
    assert whole_answer(data) == ([(b"x-a", b"b"), (b"content-length", b"2")], b"hi")


class _Transport:
    def __getattr__(self, _: str) -> Any:
        return lambda *_: 0


class Heard(Sink):
    """Sink that takes every chunk as it came, and keeps the body and how it ended."""

    def __init__(self, *, forwards: bool) -> None:
        self.body = b""
        self.raw = b""
        self.end: object = None
        self.head: tuple[int, Headers] | None = None
        self.forwarded = 0
        self._forwards = forwards
        self.connection = UpstreamConnection(lambda _c, _keep: None)
        self.connection.connection_made(_Transport())  # type: ignore[arg-type]
        self.connection.send(b"", b"", self)

    def forward(self, data: bytes) -> float:
        size = whole_chunks(data)
        if not size:
            return 0.0
        parser = httptools.HttpResponseParser(self)
        parser.feed_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + data)
        self.forwarded += 1
        return 1.0

    def on_response(self, status: int, headers: Headers) -> None:
        self.head = (status, headers)

    def on_body(self, data: bytes) -> None:
        self.body += data
        if self._forwards:
            self.connection.forward = self.forward

    def on_complete(self) -> None:
        self.end = "complete"

    def on_failure(self, failure: Failure) -> None:
        self.end = failure

    def watch(self, now: float) -> float | None:
        return None


EVENT = st.sampled_from(
    [b"data: a\n\n", b"a", b"\n\n", b"1\r\n", b"0\r\n\r\n", b"x\n\r\n", b"b" * 40]
)
FRAME = st.sampled_from([b"%x\r\n%b\r\n", b"%X\r\n%b\r\n", b"0%x\r\n%b\r\n", b"%x;a=b\r\n%b\r\n"])
PLAIN_FRAME = st.just(b"%x\r\n%b\r\n")


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(EVENT, st.one_of(PLAIN_FRAME, PLAIN_FRAME, FRAME)), max_size=10),
    st.lists(st.integers(0, 1 << 16), max_size=10),
    st.booleans(),
    st.sampled_from([b"0\r\n\r\n", b"", b"0\r\n\r\nmore", b"zz\r\n", b"0\r\na: b\r\n\r\n"]),
)
def test_chunks_that_pass_the_parser_by_are_the_chunks_that_it_would_have_read(
    events: list[tuple[bytes, bytes]], cuts: list[int], by_chunk: bool, last: bytes
) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    framed = [frame % (len(event), event) for event, frame in events]
    data = head + b"".join(framed) + last
    edges = {0, len(data), *(cut % (len(data) + 1) for cut in cuts)}
    if by_chunk:  # the shape in which chunks are passed on
        edges |= set(itertools.accumulate([len(head), *map(len, framed)]))
    pieces = [data[a:b] for a, b in itertools.pairwise(sorted(edges))]
    parsed, forwarded = Heard(forwards=False), Heard(forwards=True)
    for piece in pieces:
        for heard in (parsed, forwarded):
            if heard.end is None:
                heard.connection.data_received(piece)
    assert (parsed.body, parsed.end) == (forwarded.body, forwarded.end)


def test_chunks_are_passed_on_once_the_parser_stands_between_two_of_them() -> None:
    heard = Heard(forwards=True)
    feed = heard.connection.data_received
    feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    feed(b"3\r\na\n\n\r\n")
    seen = [heard.forwarded]
    feed(b"3\r\nb\n\n\r\n")
    feed(b"3\r\nc\n\n\r\n3\r\nd\n\n\r\n")
    seen.append(heard.forwarded)
    feed(b"3\r\ne\n")
    feed(b"\n\r\n")
    feed(b"3\r\nf\n\n\r\n")
    seen.append(heard.forwarded)
    assert seen == [0, 2, 3]
    feed(b"0\r\n\r\n")
    assert heard.body == b"a\n\nb\n\nc\n\nd\n\ne\n\nf\n\n"
    assert heard.end == "complete"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=3), st.booleans())
def test_an_answer_read_at_once_is_the_answer_read_in_pieces(
    body: bytes, cuts: list[int], whole: bool
) -> None:
    data = PLAIN_HEAD % len(body) + body
    edges = sorted({0, len(data), *([] if whole else [cut % (len(data) + 1) for cut in cuts])})
    heard = Heard(forwards=False)
    for a, b in itertools.pairwise(edges):
        heard.connection.data_received(data[a:b])
    assert heard.head == (200, [(b"content-length", b"%d" % len(body))])
    assert (heard.body, heard.end) == (body, "complete")


LINE = st.sampled_from(
    [b"x-a: b", b"X-A:c", b"Date : now", b"server-timing: \ta\t", b"x:", b"x-b: \xff", b"x-c: a\0b"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINE, max_size=4), st.integers(0, 4), st.binary(max_size=9))
def test_a_head_made_of_known_lines_is_the_head_that_the_parser_reads(
    lines: list[bytes], at: int, body: bytes
) -> None:
    lines.insert(at, b"content-length: %d" % len(body))
    head = b"HTTP/1.1 200 OK\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"
    known, parsed = Heard(forwards=False), Heard(forwards=False)
    known.connection.data_received(head + body)
    parsed.connection.data_received(head[:20])
    if parsed.end is None:
        parsed.connection.data_received(head[20:] + body)
    assert (known.body, known.end) == (parsed.body, parsed.end)
    if known.head is not None and parsed.head is not None:
        shown = [[(n, v.strip()) for n, v in heard[1]] for heard in (known.head, parsed.head)]
        assert shown[0] == shown[1]


def test_bytes_behind_a_size_line_that_was_cut_are_not_taken_for_chunks() -> None:
    heard = Heard(forwards=True)
    feed = heard.connection.data_received
    payload = b"ab\r\nb\r\n01234567\n\n!"
    assert len(payload) == 0x12
    feed(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\na\n\n\r\n1")
    rest = b"2\r\n" + payload + b"\r\n"
    assert whole_chunks(rest)  # by itself it looks like two
    feed(rest)
    feed(b"0\r\n\r\n")
    assert (heard.body, heard.end) == (b"a\n\n" + payload, "complete")


def test_chunks_of_every_size_are_whole_ones_up_to_their_last_byte() -> None:
    for size in [*range(1, 300), 1000, 1015, 1016, 4095, 4096, 70_000]:
        chunks = b"%x\r\n%b\r\n" % (size, b"a" * size) * 2
        assert whole_chunks(chunks) == 2 * size
        assert whole_chunks(chunks[:-1]) == whole_chunks(chunks + b"\n") == 0
        assert whole_chunks(b"0" + chunks) == whole_chunks(chunks[:-2] + b"a\n") == 0


def test_one_small_chunk_is_known_by_its_size_alone() -> None:
    """What the path of a token compares with is what ``whole_chunks`` would find."""
    for size in range(1200):
        for body in {max(0, size - digits - 4) for digits in range(1, 5)}:
            data = b"%x\r\n%b\r\n" % (body, b"x" * body)
            if len(data) != size or not body:
                continue
            assert whole_chunks(data) == body
            if size < len(CHUNK_HEADS):
                assert CHUNK_HEADS[size] == b"%x\r\n" % body
    of_chunks = 0
    for size, head in enumerate(CHUNK_HEADS):
        if len(head) <= size:  # the others begin nothing of that size
            of_chunks += 1
            body = CHUNK_BODIES[size]
            assert whole_chunks(head + b"x" * body + b"\r\n") == body
    assert of_chunks > len(CHUNK_HEADS) - 12
