"""The two shapes that nearly all of an upstream's bytes have, told from everything else.

A parser is not asked about what a comparison settles: chunks that have come whole, and an answer
of known length that has come in one piece. Both are judged strictly and in full, or not at all:
what is not exactly of the shape goes to the parser, which still stands where it stood.
"""

from __future__ import annotations

import re
from functools import lru_cache

_OK = b"HTTP/1.1 200 OK\r\n"
_MOST_HEAD = 4096
_BARE = re.compile(rb"[\r\n\0]")
_FRAMING = frozenset((b"transfer-encoding", b"connection", b"upgrade"))
_SIZE_LINE = 8  # bytes of a chunk's size line that is looked at here


def _chunk_head(size: int) -> bytes:
    """The size line of a chunk that is ``size`` bytes with its framing.

    No chunk has some sizes; what is returned for them is longer, so nothing begins with it.
    """
    for digits in range(1, 5):
        body = size - digits - 4
        if body > 0 and len(b"%x" % body) == digits:
            return b"%x\r\n" % body
    return b"-" * (size + 1)


CHUNK_HEADS = tuple(_chunk_head(size) for size in range(1024))
"""By the size of a whole chunk, how it begins; nearly every token is one that is this small."""

SIZE_LINES = tuple(b"%x\r\n" % size for size in range(1024))
"""By the size of a chunk's body, the line before it."""

CHUNK_BODIES = tuple(size - len(head) - 2 for size, head in enumerate(CHUNK_HEADS))
"""By the size of a whole chunk, the bytes of its body."""

_SIZES = {
    head: (size, body)
    for size, (head, body) in enumerate(zip(CHUNK_HEADS, CHUNK_BODIES, strict=True))
    if not head.startswith(b"-")
}
"""By how a small chunk begins, its size and its body's."""


def whole_chunks(data: bytes) -> int:
    """Bytes of body in ``data`` if it is made of whole chunks and nothing else; else 0.

    Sizes are plain lower-case hexadecimal without zeros in front or extensions; the last chunk
    of a body (size 0) is none of these.
    """
    at, end, payload = 0, len(data), 0
    known = _SIZES.get
    while at < end:
        # Two digits or three, as nearly every token has.
        size, body = known(data[at : at + 4]) or known(data[at : at + 5]) or _sizes(data, at)
        at += size
        if not body or data[at - 2 : at] != b"\r\n":
            return 0
        payload += body
    return payload if at == end else 0


def _sizes(data: bytes, at: int) -> tuple[int, int]:
    """The size of the chunk that begins at ``at``, and its body's; 0 where none does."""
    line = data.find(b"\r\n", at, at + _SIZE_LINE)
    digits = data[at:line]
    try:
        body = int(digits, 16) if line > at else 0
    except ValueError:
        body = 0
    return (line - at + 4 + body, body) if b"%x" % body == digits else (0, 0)


@lru_cache(1024)  # a node's answers differ in few lines; a quarter of a megabyte when full
def _header(line: bytes) -> tuple[bytes, bytes] | None:
    """Name and value of a header line; None if it is none, or says how an answer is framed."""
    given, colon, value = line.partition(b":")
    name = given.lower()
    if not colon or not name.isascii() or name.split() != [name] or name in _FRAMING:
        return None
    # A bare line break inside a value would split our own answer.
    return None if _BARE.search(line) else (name, value.strip(b" \t"))


def whole_answer(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """Headers and body of a 200 whose length is stated and which is all there; else None."""
    head, _, body = data.partition(b"\r\n\r\n")
    if len(head) > _MOST_HEAD or not head.startswith(_OK):
        return None
    lines = head.split(b"\r\n")
    del lines[0]
    headers = list(map(_header, lines))
    try:
        named = dict(headers)  # type: ignore[arg-type]  # a None in it is what is tried
    except TypeError:
        return None
    if len(named) != len(headers) or named.get(b"content-length") != b"%d" % len(body):
        return None  # repeated fields are for the parser
    return headers, body  # type: ignore[return-value]
