"""A head that comes again is recalled, and means exactly what the parser would have made of it."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.relay.rig import Echo, client, serving
from tests.relay.test_smuggling import CORPUS

from helexa.relay import reader
from helexa.relay.http1 import BadRequest, Limits
from helexa.relay.reader import RequestReader
from helexa.relay.recall import recall
from helexa.relay.request import Head, Request


class _Clock:
    def time(self) -> float:
        return 1.0


class Collector(RequestReader):
    """Keeps what was read."""

    def __init__(self) -> None:
        super().__init__(_Clock(), Limits(head_bytes=4096, body_bytes=10_000))  # type: ignore[arg-type]
        self.got: list[object] = []
        self.recalled = 0

    def _accept(self, request: Request) -> None:
        head = request.head
        self.got.append(
            (
                head.method,
                head.target,
                dict(request.headers),
                head.version,
                head.keep_alive,
                request.body,
            )
        )

    def _refuse(self, error: BadRequest) -> None:
        self._refusal = error
        self.got.append((error.status, error.code))

    def _send_continue(self) -> None:
        self.got.append("continue")


def read(pieces: list[bytes]) -> list[object]:
    collector = Collector()
    for piece in pieces:
        collector.data_received(piece)
    return collector.got


def post(size: int, *lines: str, name: str = "content-length", target: str = "/a") -> bytes:
    head = "".join(f"{line}\r\n" for line in ("host: a", *lines, f"{name}: {size}"))
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + b"b" * size


SIZES = st.sampled_from([0, 1, 7, 10, 99, 100, 5000, 10_001])
PLAIN = st.one_of(
    st.builds(post, SIZES),
    st.builds(post, SIZES, st.just("authorization: Bearer x")),
    st.builds(post, SIZES, st.just("authorization: Bearer y")),
    st.builds(lambda n: post(n, name="Content-Length"), SIZES),
    st.builds(lambda n: post(n, name="CONTENT-LENGTH"), SIZES),
    st.builds(lambda n: post(n, "x: content-length: 5"), SIZES),
    st.builds(lambda n: post(n, "connection: keep-alive"), SIZES),
    st.builds(lambda n: post(n, "connection: close"), SIZES),
    st.builds(lambda n: post(n, "expect: 100-continue"), SIZES),
    st.just(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    st.just(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"),
    st.just(b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    st.just(b"\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    st.just(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
    st.just(
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    ),
)
ODD = st.sampled_from([data for _, data in CORPUS.values()])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.one_of(PLAIN, PLAIN, PLAIN, ODD), min_size=1, max_size=8),
    st.lists(st.integers(0, 1 << 16), max_size=8),
    st.booleans(),
)
def test_what_is_recalled_is_what_the_parser_reads(
    messages: list[bytes], cuts: list[int], whole: bool
) -> None:
    data = b"".join(messages)
    if whole:  # one piece per message: the shape in which heads are recalled
        pieces = messages
    else:
        edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
        pieces = [data[a:b] for a, b in itertools.pairwise(edges)]
    recalled = read(pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_MISSES", 0)
        assert recalled == read(pieces)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            [b"hi"],
        ),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\nhi",
            ["continue", b"hi"],
        ),
    ],
    ids=["chunked", "expect"],
)
def test_a_head_that_says_more_than_the_length_of_its_body_is_read_every_time(
    message: bytes, found: list[object]
) -> None:
    got = [entry[-1] if isinstance(entry, tuple) else entry for entry in read([message] * 3)]
    assert got == found * 3


def test_a_header_that_is_repeated_is_one_list_and_cookies_are_one_line() -> None:
    (found,) = read([post(1, "x: a", "cookie: a=1", "X: b", "Cookie: b=2")])
    assert isinstance(found, tuple)
    assert (found[2][b"x"], found[2][b"cookie"]) == (b"a, b", b"a=1; b=2")


def test_a_head_that_comes_again_does_not_reach_the_parser() -> None:
    collector = Collector()
    collector.data_received(post(3))
    parser, collector._parser = collector._parser, None
    collector.data_received(post(3) + post(12) + post(5)[:-2])
    collector.data_received(b"b")
    collector.data_received(b"b" + post(1))
    assert [entry[-1] for entry in collector.got] == [b"b" * n for n in (3, 3, 12, 5, 1)]  # type: ignore[index]
    collector._parser = parser
    collector.data_received(post(2, "x: y"))
    assert len(collector.got) == 6


def test_what_the_application_remembers_of_a_head_is_there_when_it_comes_again() -> None:
    known = recall(post(3), Head(b"POST", b"/a", {b"host": b"a", b"content-length": b"3"}))
    assert known is not None
    known.head.memo = "who"
    assert known.match(post(3))
    assert known.match(post(44))
    assert (known.length, known.head.memo, known.head.headers[b"content-length"]) == (
        44,
        "who",
        b"44",
    )
    assert not known.match(post(44, "authorization: Bearer z"))


def test_clients_that_never_repeat_themselves_are_not_remembered_for_ever() -> None:
    collector = Collector()
    for number in range(20):
        collector.data_received(post(1, f"x-request-id: {number}"))
    assert len(collector.got) == 20
    assert collector._recall is None


@pytest.mark.anyio
async def test_a_recalled_request_is_answered_like_the_first() -> None:
    async with serving(Echo()) as server, client(server.port) as raw:
        answers = []
        for _ in range(3):
            raw.send(post(5, target="/echo"))
            async with asyncio.timeout(30):
                answers.append(await raw.answer())
        assert len({(a.status, a.body) for a in answers}) == 1
