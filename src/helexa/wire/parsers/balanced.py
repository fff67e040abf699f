"""Where a JSON value ends, while it is still coming."""

from __future__ import annotations

import re

_INTERESTING = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


class Balanced:
    """Follows one object or list; brackets inside strings do not count."""

    __slots__ = ("_depth", "_escaped", "inside_string")

    def __init__(self) -> None:
        self._depth = 0
        self._escaped = False
        self.inside_string = False

    def feed(self, text: str, start: int = 0) -> int | None:
        """Go on with ``text`` from ``start``.

        Returns:
            The place behind the bracket that closes the value; None while it is open.
        """
        at = start
        if self._escaped and at < len(text):
            self._escaped, at = False, at + 1
        while True:
            found = (_IN_STRING if self.inside_string else _INTERESTING).search(text, at)
            if found is None:
                return None
            at = found.end()
            mark = found.group()
            if mark == "\\":
                self._escaped, at = at >= len(text), at + 1
            elif mark == '"':
                self.inside_string = not self.inside_string
            elif mark in "{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= 0:
                    return at
