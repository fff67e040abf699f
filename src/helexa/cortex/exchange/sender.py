"""Who sends a request, worked out once per head.

A client's next request on a connection has the same head, and so the same sender: the key is
looked up again when the key table has changed, and at least once in ``FRESH_S``, so that a key
that ends is noticed.
"""

from __future__ import annotations

from helexa.core.principal import Principal
from helexa.cortex.auth import KeyTable
from helexa.relay.request import Head

FRESH_S = 0.5


class Sender:
    """A principal, and the header lines that tell a node about it.

    Args:
        version: Of the key table that knew it.
        until: When to ask again.
    """

    __slots__ = ("capped", "lines", "principal", "until", "version")

    def __init__(self, principal: Principal, lines: bytes, version: object, until: float) -> None:
        self.principal = principal
        self.capped = principal.capped
        self.lines = lines
        self.version = version
        self.until = until


def sender_of(head: Head, keys: KeyTable, now: float) -> Sender:
    """The sender of a request with this head.

    Raises:
        InvalidApiKey: As ``KeyTable.resolve``.
    """
    known = head.memo
    if type(known) is Sender and known.version is keys.version and now < known.until:
        return known
    headers = head.headers
    principal = keys.resolve(headers.get(b"authorization"), headers.get(b"x-api-key"))
    lines = b"x-helexa-account-id: %b\r\nx-helexa-key-id: %b\r\n" % (
        principal.account_id.encode("latin-1", "replace"),
        principal.key_id.encode("latin-1", "replace"),
    )
    if headers.get(b"x-include-thinking", b"").lower() == b"true":
        lines += b"x-include-thinking: true\r\n"
    sender = head.memo = Sender(principal, lines, keys.version, now + FRESH_S)
    return sender
