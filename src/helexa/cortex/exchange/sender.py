"""Who sends a request, worked out once per head.

A client's next request on a connection has the same head, and so the same sender, until the key
table changes or the key ends. A request that has no known key while an unknown one was given may
be somebody's later, which changes the table too.
"""

from __future__ import annotations

from helexa.core.errors import InvalidRequestBody
from helexa.cortex.auth import KeyTable
from helexa.cortex.routing.prompt import hint_of
from helexa.relay.request import Head
from helexa.wire.paths import meant_path

_DEADLINE = b"x-helexa-deadline-ms"
_MOST_DIGITS = 12  # of a deadline: some thirty years


class Sender:
    """A principal, and the header lines that tell a node about it.

    Args:
        head: Whose headers are read.

    Attributes:
        patience_s: How long the client waits for its turn; None when it did not say.

    Raises:
        InvalidApiKey: As ``KeyTable.resolve``.
        InvalidRequestBody: A header of ours has no value that it can have.
    """

    __slots__ = (
        "capped",
        "ends",
        "hint",
        "known",
        "limited",
        "lines",
        "patience_s",
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
        self.patience_s = _patience(headers.get(_DEADLINE))
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
            chat = meant_path(head.path).endswith(b"/chat/completions")
            self.lines += b"x-include-thinking: true\r\n" if chat else b"x-helexa-thinking: on\r\n"


def sender_of(head: Head, keys: KeyTable) -> Sender:
    """The sender of a request with this head.

    Raises:
        InvalidApiKey, InvalidRequestBody: As ``Sender``.
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


def _patience(given: bytes | None) -> float | None:
    if given is None:
        return None
    if not given.isdigit() or len(given) > _MOST_DIGITS:
        raise InvalidRequestBody(
            f"The header {_DEADLINE.decode()} is not a whole number of milliseconds of at most "
            f"{_MOST_DIGITS} digits.",
            param=_DEADLINE.decode(),
        )
    return int(given) / 1000
