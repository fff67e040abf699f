"""The forms in which models write tool calls, and which of them a template teaches.

A form says how a block begins, how far it reaches, and how it is read. Ends are found
incrementally; an end inside a JSON string or inside a parameter's value is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import msgspec

from helexa.wire.parsers.balanced import Balanced
from helexa.wire.parsers.blocks import (
    Call,
    Tools,
    read_named,
    read_objects,
    read_sections,
    read_tagged,
    read_xml,
)
from helexa.wire.parsers.outlet import BLANKS
from helexa.wire.parsers.repair import Unreadable

Read = Callable[[str, Tools], list[Call]]

_STARTS = ("{", "[", "```", "<function=")
_LONGEST_START = max(map(len, _STARTS))
_BARE_KEYS = ("name", "type", "function", "arguments", "parameters")
_BARE_START = re.compile(r'\{\s*(?:"(\w*)("?))?')
_NAME = re.compile(r"[A-Za-z_][\w.\-]*(?:\[[A-Z_]*(?:\][\w\-]*)?)*\s*")


class End(msgspec.Struct, frozen=True):
    """A block's end: its body is what stands before ``body``; ``rest`` is where text goes on."""

    body: int
    rest: int


class Extent(Protocol):
    """Looks for the end of one block, again whenever more of it has come."""

    def find(self, held: str) -> End | bool:
        """Where ``held`` (all that came behind the opening marker) ends; True while it may go
        on, False once it can be no block."""


class Form(msgspec.Struct, frozen=True):
    """One way of writing calls.

    Args:
        opens: The marker a block begins with; empty for a bare object at the start of an answer.
        kept: The marker is part of the body.
        read: Makes calls of a body.
        extent: Makes the finder of a block's end.
        tail: A closing tag that may follow for no reason.
    """

    name: str
    opens: str
    read: Read
    extent: Callable[[], Extent]
    kept: bool = False
    tail: str = ""


class UntilTag:
    """Up to a closing tag that does not stand inside a string or an unfinished parameter.

    Args:
        kept: The tag is part of the body.
        starts: What a body may begin with.
    """

    __slots__ = ("_begun", "_kept", "_scan", "_seen", "_starts", "_string", "_tag")

    def __init__(self, tag: str, *, kept: bool = False, starts: tuple[str, ...] = ("",)) -> None:
        self._tag = tag
        self._starts = starts
        self._begun = False
        self._kept = kept
        self._seen = 0  # no tag begins before this place
        self._scan = 0
        self._string = Balanced()

    def find(self, held: str) -> End | bool:
        if not self._begun:
            start = held.lstrip(BLANKS)
            if not any(known.startswith(start[: len(known)]) for known in self._starts):
                return False
            self._begun = len(start) >= _LONGEST_START
        while True:
            at = held.find(self._tag, self._seen)
            if at < 0:
                self._seen = max(self._seen, len(held) - len(self._tag) + 1)
                return True
            rest = at + len(self._tag)
            if not self._inside_value(held, at):
                return End(rest if self._kept else at, rest)
            self._seen = rest

    def _inside_value(self, held: str, at: int) -> bool:
        """Whether the tag at ``at`` is part of what a model passes to a tool."""
        before = held[:at]
        if self._kept:
            return "<parameter=" in before and not before.rstrip().endswith("</parameter>")
        if held.lstrip().startswith("<function="):
            return not before.rstrip().endswith("</function>")
        while self._scan < at:
            end = self._string.feed(before, self._scan)
            self._scan = at if end is None else end
        return self._string.inside_string


class UntilClosed:
    """As long as a JSON value is.

    Args:
        named: A name may stand before it.
    """

    __slots__ = ("_named", "_scan", "_started", "_value")

    def __init__(self, *, named: bool = False) -> None:
        self._named = named
        self._value = Balanced()
        self._scan = 0
        self._started = False

    def find(self, held: str) -> End | bool:
        if not self._started:
            start = self._begin(held)
            if isinstance(start, bool):
                return start
            self._started, self._scan = True, start
        end = self._value.feed(held, self._scan)
        self._scan = len(held)
        return True if end is None else End(end, end)

    def _begin(self, held: str) -> int | bool:
        """Where the value begins; True while that is to come, False where none can."""
        head = held.lstrip(BLANKS)
        if not head:
            return True
        if head[0] in "{[":
            return len(held) - len(head)
        brace = held.find("{")
        name = head if brace < 0 else held[:brace].lstrip(BLANKS)
        if not self._named or not _NAME.fullmatch(name):
            return False
        return brace if brace >= 0 else True


class UntilObject:
    """A bare object whose first member is one of a call's."""

    __slots__ = ("_inner",)

    def __init__(self) -> None:
        self._inner = UntilClosed()

    def find(self, held: str) -> End | bool:
        found = _BARE_START.match(held)
        if found is None or (found.end() < len(held) and not found[2]):
            return False
        key, complete = found[1] or "", bool(found[2])
        if not any(known == key if complete else known.startswith(key) for known in _BARE_KEYS):
            return False
        return self._inner.find(held)


def read_bare(body: str, tools: Tools) -> list[Call]:
    """An object without any marker is a call only if it names a tool there is.

    Raises:
        Unreadable: It does not.
    """
    calls = read_objects(body, tools)
    if any(call.name not in tools for call in calls):
        raise Unreadable(body)
    return calls


TAGGED = Form(
    "tagged", "<tool_call>", read_tagged, lambda: UntilTag("</tool_call>", starts=_STARTS)
)
FUNCTION = Form(
    "function",
    "<function=",
    read_xml,
    lambda: UntilTag("</function>", kept=True),
    kept=True,
    tail="</tool_call>",
)
NAMED = Form("named", "[TOOL_CALLS]", read_named, lambda: UntilClosed(named=True))
PYTHON_TAG = Form("python_tag", "<|python_tag|>", read_objects, UntilClosed)
SECTIONS = Form(
    "sections",
    "<｜tool▁calls▁begin｜>",
    read_sections,
    lambda: UntilTag("<｜tool▁calls▁end｜>"),
)
BARE = Form("bare", "", read_bare, UntilObject)

_TEACHES: tuple[tuple[str, tuple[Form, ...]], ...] = (
    ("<tool_call>", (TAGGED, FUNCTION)),
    ("<function=", (FUNCTION,)),
    ("[TOOL_CALLS]", (NAMED,)),
    ("<｜tool▁calls▁begin｜>", (SECTIONS,)),
    ("<|python_tag|>", (PYTHON_TAG, BARE)),
    ('"name": function name, "parameters"', (BARE,)),
)


def forms_of(template: str | None) -> tuple[Form, ...]:
    """The forms that a chat template teaches its model; the widespread ones where it shows none
    or there is no template to look at."""
    text = template or ""
    found = [form for marker, forms in _TEACHES if marker in text for form in forms]
    return tuple(dict.fromkeys(found)) or (TAGGED, FUNCTION)
