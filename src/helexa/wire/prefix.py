"""The first line that agents rotate: found, ignored for affinity, moved where that is wanted.

Coding agents put a line at the top of their system prompt that changes with every session or
turn: a hash, a version with a checksum, a date. Everything behind it is the same, and nothing
behind it can be reused, because a prefix cache ends at the first different token.

All of this works on JSON text as the client wrote it, without decoding a long prompt.
"""

from __future__ import annotations

import re

import msgspec

PREFIX_BYTES = 2048
"""How much of a prompt names a conversation."""

LONGEST_LINE = 400
"""Bytes; a longer first line is the prompt itself."""

_TEXT = re.compile(rb'"(?:content|text)"\s*:\s*"')
"""Before the first text of messages, items or blocks."""

_FIRST_MEMBERS = 512
"""Bytes within which the first text begins, or there is none to speak of."""

_SPEAKS = re.compile(rb'"role"\s*:\s*"(\w+)"')
_OURS = (b"system", b"developer")
_LINE = re.compile(rb'((?:[^"\\]+|\\(?!n)["\\/bfrtu])*)((?:\\n)*)')

_VOLATILE = re.compile(
    rb"""
      \d{4}-\d\d-\d\d                                        # a date
    | \b\d{1,2}:\d\d\b                                       # a time
    | \b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?\s+\d{1,2}\b
    | \b\d{1,2}\s+(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-                   # a UUID
    | (?<![0-9a-z])(?=[a-z]*\d)(?=\d*[a-f])[0-9a-f]{5,}(?![0-9a-z])   # a hash, also a short one
    | (?<![0-9a-z])(?=[0-9]*[a-z])(?=[a-z]*[0-9])[0-9a-z_]{16,}
    | \b\d{10,13}\b                                          # a Unix time
    | \b(?:nonce|session|cch|request|trace)[-_ ]?(?:id)?\s*[:=]\s*\S
    """,
    re.VERBOSE | re.IGNORECASE,
)


def is_volatile(line: bytes) -> bool:
    """Whether a first line looks like one that an agent rotates."""
    return 0 < len(line) <= LONGEST_LINE and _VOLATILE.search(line) is not None


def stable_prefix(prompt: bytes | memoryview, size: int = PREFIX_BYTES) -> bytes:
    """The first ``size`` bytes of a prompt, without a rotating first line of its system part.

    Args:
        prompt: JSON: messages or input items, system blocks, or a system prompt as a string.
    """
    head = bytes(prompt[: size + LONGEST_LINE])
    found = _first_line(head)
    if found is not None:
        start, _, rest = found
        head = head[:start] + head[rest:]
    return head[:size]


def stabilise(body: bytes) -> tuple[bytes, bool]:
    """A chat request whose rotating first line stands behind the rest of its system prompt.

    Args:
        body: Valid JSON with ``messages``.

    Returns:
        The body, and whether anything was moved.
    """
    at = body.find(b'"messages"')
    if at < 0:
        return body, False
    members = _members(body)
    try:
        turns = _items(members["messages"])
        first = _members(turns[0])
        role, content = bytes(first["role"]), bytes(first["content"])
    except (KeyError, IndexError, msgspec.ValidationError):
        return body, False  # its node will say what is wrong with it
    moved = _moved(content) if role.strip(b'"') in _OURS else None
    if moved is None:
        return body, False
    first["content"] = msgspec.Raw(moved)
    turns[0] = msgspec.Raw(_encode(first))
    members["messages"] = msgspec.Raw(_encode(turns))
    return _encode(members), True


_encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _first_line(head: bytes) -> tuple[int, int, int] | None:
    """Of a volatile first line in JSON text: its start, its end, and the start of what follows
    behind the line feeds."""
    start = 1
    if not head.startswith(b'"'):
        opening = _TEXT.search(head, 0, _FIRST_MEMBERS)
        if opening is None:
            return None
        role = _SPEAKS.search(head, 0, opening.start())
        if role is not None and role.group(1) not in _OURS:
            return None
        start = opening.end()
    line = _LINE.match(head, start, start + LONGEST_LINE + 8)
    if line is None or not is_volatile(line.group(1)):
        return None
    return start, line.end(1), line.end()


def _moved(content: bytes) -> bytes | None:
    """The content of a system message with its first line last; None where it is stable."""
    found = _first_line(content)
    if found is None:
        return None
    if content.startswith(b'"'):
        start, end, follows = found
        rest = content[follows:-1]
        return b'"' + rest + b"\\n\\n" + content[start:end] + b'"' if rest else None
    parts = _items(content)
    text = bytes(_members(parts[0]).get("text", b""))
    start, end, follows = _first_line(text) or (1, 1, 1)
    if follows == len(text) - 1:  # a block of its own
        return _encode([*parts[1:], parts[0]]) if len(parts) > 1 else None
    first = _members(parts[0])
    first["text"] = msgspec.Raw(b'"' + text[follows:])
    last = {"type": "text", "text": msgspec.Raw(b'"' + text[start:end] + b'"')}
    return _encode([first, *parts[1:], last])
