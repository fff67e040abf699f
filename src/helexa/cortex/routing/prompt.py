"""The affinity key of a chat body: hashes that name its beginning, one after the other.

Two prompts that begin alike have the same first points, whatever template their model has: what
is hashed is the tools, then role, content and tool calls of every message, as the raw JSON that
the client wrote (an agent writes its history the same way every turn). A point stands at each
message's end and after every ``STRIDE`` bytes, and each is chained to the one before it::

    tools │ system │ user │ assistant │ user          a later turn of the same conversation
    ──────●────────●──────●───────────●─────●         has these points too, and more

A first line of the system prompt that changes with every request or day (a hash, a date) would
give every request a key of its own; it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256

import msgspec

from helexa.cortex.routing.ask import Ask
from helexa.wire.bodies import UNREADABLE
from helexa.wire.images import images
from helexa.wire.peek import Peek
from helexa.wire.prefix import stable_prefix

STRIDE = 2048
"""Bytes between two points within a message."""

MOST_POINTS = 512
"""What lies behind them counts as new: a megabyte of prompt is known by its beginning."""

IMAGE_BYTES = 4096
"""What an image counts for: its base64 says nothing about its tokens."""

HINTS = (
    b"x-session-id",
    b"x-session-affinity",
    b"x-affinity",
    b"session-id",
    b"thread-id",
)
"""Headers in which clients name a conversation."""

_SYSTEM = ("system", "developer")
_HEAD_BYTES = 512


class _Message(msgspec.Struct, gc=False):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw()
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Metadata(msgspec.Struct, gc=False):
    user_id: str = ""


_messages = msgspec.json.Decoder(list[_Message]).decode
_name = msgspec.json.Decoder(str | _Metadata).decode


def hint_of(headers: Mapping[bytes, bytes]) -> bytes | None:
    """What the client's headers call the conversation; names are in lower case."""
    for name in HINTS:
        given = headers.get(name)
        if given:
            return given
    return None


def ask_of(seen: Peek, hint: bytes | None = None, per_byte: float = 0.25) -> Ask:
    """What routing needs to know of a chat or completions request.

    Args:
        seen: Its body, peeked at; other dialects are translated before.
        hint: What its headers call the conversation.
        per_byte: Tokens per byte, as learned for the model.
    """
    chain = _Chain()
    if seen.tools:
        chain.add(bytes(seen.tools))
    if seen.prompt:
        try:
            messages = _messages(seen.prompt)
        except UNREADABLE:
            chain.add(bytes(seen.prompt))  # a prompt without messages, or nothing that we know
        else:
            _add_messages(chain, messages)
    points = tuple(chain.points)
    if not hint and seen.hint:
        hint = _named(seen.hint)
    if hint:
        seed = int.from_bytes(sha256(hint).digest()[:8])
    else:
        # The second point tells conversations apart that share their system prompt.
        seed = points[1 if len(points) > 1 else 0] if points else 0
    return Ask(points, tuple(chain.sizes), chain.size, seed, per_byte)


def _add_messages(chain: _Chain, messages: list[_Message]) -> None:
    for at, message in enumerate(messages):
        content = bytes(message.content)
        if at == 0 and message.role in _SYSTEM:
            content = _stable(content[:_HEAD_BYTES]) + content[_HEAD_BYTES:]
        # The sign between role and content occurs in no JSON, so they cannot be taken apart anew.
        piece = b"%b\x00%b" % (message.role.encode(), content)
        chain.add(piece + bytes(message.tool_calls) if message.tool_calls else piece)


class _Chain:
    """Hashes, each of a piece and the one before."""

    __slots__ = ("_last", "points", "size", "sizes")

    def __init__(self) -> None:
        self.points: list[int] = []
        self.sizes: list[int] = []
        self.size = 0
        self._last = b""

    def add(self, piece: bytes) -> None:
        """Go on with a message; a point at its end and after every ``STRIDE`` bytes."""
        if len(piece) > IMAGE_BYTES and b";base64," in piece:
            carried = images(piece)  # hashed with the rest, so that no two are taken for one
            self._point(piece, len(piece) - carried.size + carried.number * IMAGE_BYTES)
        elif len(piece) <= STRIDE:
            self._point(piece, len(piece))
        else:
            for start in range(0, len(piece), STRIDE):
                self._point(piece[start : start + STRIDE], min(STRIDE, len(piece) - start))

    def _point(self, piece: bytes, size: int) -> None:
        self.size += size
        points = self.points
        if len(points) < MOST_POINTS:
            # Processors have instructions for this one: two thirds of the time of blake2b.
            self._last = last = sha256(self._last + piece).digest()[:8]
            points.append(int.from_bytes(last))
            self.sizes.append(self.size)


@lru_cache(1024)  # half a megabyte; few system prompts are asked with at a time
def _stable(head: bytes) -> bytes:
    """The beginning of a system prompt without a first line that agents rotate."""
    return stable_prefix(head, len(head))


def _named(hint: msgspec.Raw) -> bytes | None:
    try:
        found = _name(hint)
    except UNREADABLE:
        return None
    return (found if isinstance(found, str) else found.user_id).encode()
