"""Who sends a request, worked out once per head.

A client's next request on a connection has the same head, and so the same sender, until the key
table changes or the key ends. A request that has no known key while an unknown one was given may
be somebody's later, which changes the table too.
"""

from __future__ import annotations

from helexa.cortex.auth import KeyTable
from helexa.cortex.routing.prompt import hint_of
from helexa.relay.request import Head


class Sender:
    """A principal, and the header lines that tell a node about it.

    Args:
        head: Whose headers are read.

    Raises:
        InvalidApiKey: As ``KeyTable.resolve``.
    """

    __slots__ = (
        "capped",
        "ends",
        "hint",
        "known",
        "limited",
        "lines",
        "principal",
        "seated",
        "version",
    )

    def __init__(self, head: Head, keys: KeyTable) -> None:
        headers = head.headers
        self.version = keys.version
        self.known = keys.known(headers.get(b"authorization"), headers.get(b"x-api-key"))
        self.ends = self.known.ends is not None
        self.principal = principal = self.known.principal
        self.capped = principal.capped
        self.hint = hint_of(headers)
        # Whether answers tell what is left of its limits.
        self.limited = self.capped or principal.requests_per_minute is not None
        # Whether its requests are counted.
        self.seated = principal.requests_per_minute is not None or (
            principal.max_concurrent is not None
        )
        self.lines = b"x-helexa-account-id: %b\r\nx-helexa-key-id: %b\r\n" % (
            principal.account_id.encode("latin-1", "replace"),
            principal.key_id.encode("latin-1", "replace"),
        )
        if principal.priority is not None:
            self.lines += b"x-helexa-priority: %d\r\n" % principal.priority
        if headers.get(b"x-include-thinking", b"").lower() == b"true":
            # Inside the text only where that is chat; other dialects have a place for thoughts.
            chat = head.path.endswith(b"/chat/completions")
            self.lines += b"x-include-thinking: true\r\n" if chat else b"x-helexa-thinking: on\r\n"


def sender_of(head: Head, keys: KeyTable) -> Sender:
    """The sender of a request with this head.

    Raises:
        InvalidApiKey: As ``KeyTable.resolve``.
    """
    sender = head.memo
    if (
        type(sender) is Sender
        and sender.version is keys.version
        and (not sender.ends or not keys.ended(sender.known))
    ):
        return sender
    sender = head.memo = Sender(head, keys)
    return sender
