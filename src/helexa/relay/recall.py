"""The last head of a connection, so that one that comes again is not read again.

Clients repeat themselves: on one connection, one request's head differs from the next one's in
its length at most. A parser that calls back for every field costs more than all else that is done
with such a request. So what httptools has accepted once is remembered with its bytes, and the
same bytes mean the same again; this judges nothing by itself. Only the digits of a plain
``content-length: N`` may differ.
"""

from __future__ import annotations

import re
from hmac import compare_digest

from helexa.relay.request import Head

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,15})\r\n")

# They change what the bytes behind the head mean, or want an answer before it.
_UNUSUAL = frozenset((b"transfer-encoding", b"upgrade", b"expect"))


class Recall:
    """A head that httptools has accepted, and its bytes.

    Bytes are compared in constant time: they hold a secret, and behind a proxy not everybody who
    sends on one connection knows the same one.
    """

    __slots__ = ("_raw", "_rest", "_size", "head", "length")

    def __init__(self, raw: bytes, rest: bytes, head: Head, length: int) -> None:
        self._raw = raw
        self._size = len(raw)
        self._rest = rest
        self.head = head
        self.length = length

    def match(self, data: bytes) -> int:
        """Where the body begins if ``data`` begins with this head; else 0.

        ``head`` and ``length`` are then those of the request.
        """
        if compare_digest(data[: self._size], self._raw):
            return self._size
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            return 0
        raw = data[:end]
        found = _LENGTH.search(raw)
        if found is None:
            return 0
        rest = raw[: found.start(1)] + raw[found.end(1) :]
        if not compare_digest(rest, self._rest):
            return 0
        self._raw, self._size = raw, end
        self.head = self.head.with_length(found[1])
        self.length = int(found[1])
        return end


def recall(data: bytes, head: Head) -> Recall | None:
    """What to remember of a head that was accepted; None for what is better read every time.

    Args:
        data: Bytes that begin with the head.
    """
    end = data.find(b"\r\n\r\n") + 4
    if end < 4 or not head.keep_alive or not _UNUSUAL.isdisjoint(head.headers):
        return None
    raw = data[:end]
    if not raw.startswith(head.method + b" "):
        return None  # blank lines before it
    length = head.headers.get(b"content-length")
    if length is None:
        return Recall(raw, b"", head, 0)
    found = _LENGTH.search(raw)
    if found is None or found[1] != length:
        return None
    return Recall(raw, raw[: found.start(1)] + raw[found.end(1) :], head, int(length))
