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

from collections.abc import Iterator, Mapping
from functools import lru_cache

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
    points: list[int] = []
    sizes: list[int] = []
    size = last = 0
    pieces = _pieces(seen)
    for role, piece, length in pieces:
        size += length
        if len(points) < MOST_POINTS:
            # Points stay within this process, so they may be Python's own hashes: keyed, 64 bits,
            # and three times as quick as the quickest of ``hashlib`` on a short message.
            last = hash((last, role, piece))
            points.append(last)
            sizes.append(size)
    name = hint or (_named(seen.hint) if seen.hint else None)
    if not name and pieces:
        name = pieces[0][1][:STRIDE]
        if len(pieces) > 1:  # the second tells apart what shares a system prompt
            name += pieces[1][1][:STRIDE]
    return Ask(points, sizes, size, 0, per_byte, name or b"")


def _pieces(seen: Peek) -> list[tuple[str, bytes, int]]:
    """The canonical prompt: role, bytes, and for how many of them they count."""
    pieces: list[tuple[str, bytes, int]] = []
    if seen.tools:
        pieces += _cut("", bytes(seen.tools))
    if not seen.prompt:
        return pieces
    try:
        messages = _messages(seen.prompt)
    except UNREADABLE:
        pieces += _cut("", bytes(seen.prompt))  # without messages, or nothing that we know
        return pieces
    first = True
    for message in messages:
        role, content = message.role, bytes(message.content)
        if first and role in _SYSTEM:
            content = _stable(content[:_HEAD_BYTES]) + content[_HEAD_BYTES:]
        if message.tool_calls:
            content += bytes(message.tool_calls)
        size = len(role) + len(content)
        if size <= STRIDE:
            pieces.append((role, content, size))
        else:
            pieces += _cut(role, content)
        first = False
    return pieces


def _cut(role: str, content: bytes) -> Iterator[tuple[str, bytes, int]]:
    """A long message in pieces of ``STRIDE`` bytes, and what is behind the last point in one, as a
    length only; a message with an image stays whole."""
    size = len(content)
    if size > IMAGE_BYTES and b";base64," in content:
        carried = images(content)  # hashed with the rest, so that no two are taken for one
        yield role, content, size - carried.size + carried.number * IMAGE_BYTES
        return
    named = min(size, MOST_POINTS * STRIDE)
    for start in range(0, named, STRIDE):
        yield role, content[start : start + STRIDE], min(STRIDE, size - start)
    if size > named:
        yield role, b"", size - named


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
