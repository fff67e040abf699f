"""The two shapes that nearly all of an upstream's bytes have, told from everything else.

A parser is not asked about what a comparison settles: chunks that have come whole, and an answer
of known length that has come in one piece. Both are judged strictly and in full, or not at all:
what is not exactly of the shape goes to the parser, which still stands where it stood.
"""

from __future__ import annotations

from functools import lru_cache

_OK = b"HTTP/1.1 200 OK\r\n"
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

CHUNK_BODIES = tuple(size - len(head) - 2 for size, head in enumerate(CHUNK_HEADS))
"""By the size of a whole chunk, the bytes of its body."""


def whole_chunks(data: bytes) -> int:
    """Bytes of body in ``data`` if it is made of whole chunks and nothing else; else 0.

    Sizes are plain lower-case hexadecimal without zeros in front or extensions; the last chunk
    of a body (size 0) is none of these.
    """
    at, end, payload = 0, len(data), 0
    while at < end:
        line = data.find(b"\r\n", at, at + _SIZE_LINE)
        if line <= at:
            return 0
        digits = data[at:line]
        try:
            size = int(digits, 16)
        except ValueError:
            return 0
        at = line + 4 + size
        if not size or b"%x" % size != digits or data[at - 2 : at] != b"\r\n":
            return 0
        payload += size
    return payload if at == end else 0


@lru_cache(256)
def _name(given: bytes) -> bytes | None:
    """A header's name in lower case; None if it is none, or says how an answer is framed."""
    name = given.lower()
    plain = name.isascii() and name.split() == [name] and name not in _FRAMING
    return name if plain else None


def whole_answer(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """Headers and body of a 200 whose length is stated and which is all there; else None."""
    if not data.startswith(_OK):
        return None
    end = data.find(b"\r\n\r\n", len(_OK) - 2)
    if end < len(_OK):
        return None
    body = data[end + 4 :]
    lines = data[len(_OK) : end].split(b"\r\n")
    # Nothing but these line breaks: a bare one inside a value would split our own answer.
    if data.count(b"\n", 0, end) != len(lines) or data.count(b"\r", 0, end) != len(lines):
        return None
    headers = []
    stated = None
    for line in lines:
        given, colon, value = line.partition(b":")
        name, value = _name(given), value.strip(b" \t")
        if name is None or not colon:
            return None
        if name == b"content-length":
            if stated is not None:
                return None
            stated = value
        headers.append((name, value))
    if stated != b"%d" % len(body) or data.find(b"\0", 0, end) >= 0:
        return None
    return headers, body
