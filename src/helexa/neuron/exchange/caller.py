"""Who sent a request: what the ``x-helexa-*`` headers of a gateway say, or that there is none."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from helexa.core.errors import InvalidRequestBody
from helexa.core.ids import IdSource
from helexa.core.principal import ANONYMOUS
from helexa.relay.request import Request

GATEWAY = b"x-helexa-gateway"
_DEADLINE, _PRIORITY = b"x-helexa-deadline-ms", b"x-helexa-priority"
_MOST = 2**53 - 1

DIRECT = "direct"
"""Account and key of callers without a gateway: they are on this machine or know the secret."""


class Caller(msgspec.Struct, frozen=True):
    """The sender of one request.

    Args:
        gateway: The gateway's name; None for a direct caller.
        epoch: That gateway's life.
        granted: Tokens the request may cost; None is unlimited.
        thinking: The client's header or the gateway's catalogue asks for it.
        inline: The client wants to see it inside the text as well.
        priority: Of the key; the higher is seated first.
        deadline_s: The client waits no longer than this for its turn (seconds).
    """

    request_id: str
    attempt: int = 1
    gateway: str | None = None
    epoch: int = 0
    granted: int | None = None
    account_id: str = DIRECT
    key_id: str = DIRECT
    thinking: bool = False
    deadline_s: float | None = None
    inline: bool = False
    priority: int = 0

    @property
    def anonymous(self) -> bool:
        """Nobody in particular; served last."""
        return self.key_id == ANONYMOUS.key_id


def gateway_of(value: str) -> tuple[str | None, int]:
    """Name and epoch of ``name/epoch``; the epoch may be missing."""
    name, slash, epoch = value.rpartition("/")
    if slash and epoch.isdecimal():
        return name, int(epoch)
    return value or None, 0


@lru_cache(1024)  # who asks has asked before; a quarter of a megabyte when full
def _sender(gateway: bytes, account: bytes, key: bytes) -> tuple[str | None, int, str, str]:
    """The gateway's name and epoch, account and key."""
    name, epoch = gateway_of(_text(gateway))
    if name is None:
        return None, 0, DIRECT, DIRECT
    return (
        name,
        epoch,
        _text(account) or ANONYMOUS.account_id,
        _text(key) or ANONYMOUS.key_id,
    )


def read_caller(request: Request, ids: IdSource) -> Caller:
    """Read the headers.

    Raises:
        InvalidRequestBody: A number of ours is none; but for a deadline, a gateway's bug.
    """
    headers = request.head.headers
    header = headers.get
    gateway, epoch, account_id, key_id = _sender(
        header(GATEWAY, b""), header(b"x-helexa-account-id", b""), header(b"x-helexa-key-id", b"")
    )
    request_id = _text(header(b"x-request-id", b""))[:128] or ids("req_")
    inline = header(b"x-include-thinking", b"").strip().lower() == b"true"
    thinking = inline or header(b"x-helexa-thinking") == b"on"
    deadline_s = None
    if _DEADLINE in headers:
        deadline_s = (_whole(headers, _DEADLINE) or 0) / 1000
    if gateway is None:
        return Caller(request_id, thinking=thinking, deadline_s=deadline_s, inline=inline)
    attempt = _whole(headers, b"x-helexa-attempt")
    return Caller(  # by position: with names it takes several times as long
        request_id,
        1 if attempt is None else attempt,
        gateway,
        epoch,
        _whole(headers, b"x-helexa-grant"),
        account_id,
        key_id,
        thinking,
        deadline_s,
        inline,
        (_whole(headers, _PRIORITY, least=-(2**31)) or 0) if _PRIORITY in headers else 0,
    )


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _whole(headers: dict[bytes, bytes], name: bytes, least: int = 0) -> int | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if not least <= number <= _MOST:
        raise InvalidRequestBody(
            f"The header {name.decode()} is not a whole number from {least} to {_MOST}.",
            param=name.decode(),
        )
    return number
