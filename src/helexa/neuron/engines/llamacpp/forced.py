"""Calls that a grammar has shaped, turned from text into clean chat as they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from helexa.wire.parsers.balanced import Balanced

Delta = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heads:
    """How calls of the named tools begin.

    Args:
        union: The answer may be text of another form instead.
    """

    names: tuple[str, ...]
    union: bool

    @staticmethod
    def head(name: str) -> str:
        """The text before a call's arguments."""
        return f'{{"name": {json.dumps(name, ensure_ascii=False)}, "arguments": '

    def find(self, text: str) -> tuple[str | None, bool]:
        """The tool whose head ``text`` begins with, and whether one may still be to come."""
        open_ = False
        for name in self.names:
            head = self.head(name)
            if text.startswith(head):
                return name, True
            open_ = open_ or head.startswith(text)
        return None, open_


@dataclass(slots=True)
class CallReader:
    """One choice's text, read as calls.

    ::

        head ─▶ arguments (pieces go on as they come) ─▶ tail ─▶ head …
    """

    heads: Heads
    call_id: Callable[[int], str]
    called: bool = False
    plain: bool = False
    _held: str = ""
    _index: int = -1
    _inside: bool = False
    _value: Balanced = field(default_factory=Balanced)
    _out: list[Delta] = field(default_factory=list)

    def feed(self, text: str) -> list[Delta]:
        """The deltas of a piece of text."""
        self._out = []
        while text:
            if self.plain:
                self._out.append({"content": text})
                break
            text = self._arguments(text) if self._inside else self._head(text)
        return self._out

    def end(self) -> list[Delta]:
        """What was held back, if it may have been text. The beginning of a call that had to come is
        none: its form is ours, not the model's words."""
        held, self._held = self._held, ""
        text = self.heads.union and not self.called and held.strip()
        return [{"content": held}] if text else []

    def _head(self, text: str) -> str:
        """Between calls: hold text until it is a head, or cannot become one."""
        whole = self._held + text
        # Behind a call its own brace is still to come; behind a thought there may be blanks.
        text = whole.lstrip("}\n\r\t " if self.called else "\n\r\t ")
        self._held = ""
        name, open_ = self.heads.find(text)
        if name is not None:
            self._begin(name)
            return text[len(self.heads.head(name)) :]
        if open_:
            self._held = whole
            return ""
        self.plain = not self.called
        return whole if self.plain else ""

    def _begin(self, name: str) -> None:
        self.called = self._inside = True
        self._index += 1
        self._value = Balanced()
        function = {"name": name, "arguments": ""}
        call = {"index": self._index, "id": self.call_id(self._index), "type": "function"}
        self._out.append({"tool_calls": [{**call, "function": function}]})

    def _arguments(self, text: str) -> str:
        """Up to the brace that closes the object."""
        end = self._value.feed(text)
        if end is None:
            self._piece(text)
            return ""
        self._inside = False
        self._piece(text[:end])
        return text[end:]

    def _piece(self, text: str) -> None:
        call = {"index": self._index, "function": {"arguments": text}}
        self._out.append({"tool_calls": [call]})
