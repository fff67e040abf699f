"""The two shapes that nearly all of an upstream's bytes have, told from everything else.

A parser is not asked about what a comparison settles: chunks that have come whole, and an answer
of known length that has come in one piece. Both are judged strictly and in full, or not at all:
what is not exactly of the shape goes to the parser, which still stands where it stood.
"""

from __future__ import annotations

import re

_OK = b"HTTP/1.1 200 OK\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: ?([0-9]{1,15})\r\n")
_OTHER_FRAMING = re.compile(rb"\r\n(?:transfer-encoding|connection|upgrade)[ \t]*:")
_SIZE_LINE = 8  # bytes of a chunk's size line that is looked at here


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


def whole_answer(data: bytes) -> tuple[list[tuple[bytes, bytes]], bytes] | None:
    """Headers and body of a 200 whose length is stated and which is all there; else None."""
    if not data.startswith(_OK):
        return None
    end = data.find(b"\r\n\r\n", len(_OK) - 2) + 2
    if end < 2:
        return None
    head = data[:end].lower()
    lines = head.count(b"\r\n")
    length = _LENGTH.search(head)
    if (
        length is None
        or int(length[1]) != len(data) - end - 2
        or head.count(b"\r\ncontent-length") != 1
        or _OTHER_FRAMING.search(head) is not None
        or head.count(b"\n") != lines
        or head.count(b"\r") != lines
        or b"\0" in head
    ):
        return None
    headers = []
    for line in data[len(_OK) : end - 2].split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or not name or name[-1:] in b" \t" or name[:1] in b" \t":
            return None
        headers.append((name.lower(), value.strip(b" \t")))
    return headers, data[end + 2 :]
