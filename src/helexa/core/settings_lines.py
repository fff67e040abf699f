"""Where in a TOML file a setting stands, for messages: ``models[1].cost.input`` is at line 12.

The parser keeps no positions, so the file's headings and keys are followed here: enough to find a
line, not to understand its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helexa.core.settings_keys import SettingsError

Place = tuple[str | int, ...]

_PARTS = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)|\[(\d+)\]")
_HEADING = re.compile(r"\s*(\[{1,2})\s*([^\[\]]+?)\s*\]{1,2}\s*(?:#.*)?$")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_\"'-]+)*)\s*=")
_NAMED = re.compile(r"`([^`]+)`|([a-z_][\w.\[\]]*)(?=: )")


@contextmanager
def naming_lines(file: Path | None) -> Iterator[None]:
    """Add to a ``SettingsError`` about ``file`` the line of the setting that it names."""
    try:
        yield
    except SettingsError as error:
        found = error if file is None else _with_line(error, file)
        if found is error:
            raise
        raise found from error


def _with_line(error: SettingsError, file: Path) -> SettingsError:
    said = str(error)
    named = _NAMED.search(said.removeprefix(f"{file}: ")) if said.startswith(f"{file}: ") else None
    if named is None:
        return error
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return error
    line = line_of(text, named[1] or named[2])
    return error if line is None else SettingsError(f"{said} (at line {line})")


def line_of(text: str, setting: str) -> int | None:
    """The line (from 1) where ``setting`` or, inside one line, its table begins; None if nowhere.

    Args:
        setting: As messages write it: ``gateway.listen``, ``neurons[0].name``.
    """
    wanted = _place(setting)
    found, best = None, 0
    for number, place in _places(text):
        if wanted[: len(place)] == place and len(place) > best:
            found, best = number, len(place)
    return found


def _places(text: str) -> Iterator[tuple[int, Place]]:
    """Every heading and key with the number of its line."""
    heading: Place = ()
    seen: dict[Place, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := _HEADING.match(line):
            heading = _resolved(_place(match[2]), seen, another=match[1] == "[[")
            yield number, heading
        elif match := _KEY.match(line):
            yield number, (*heading, *_place(match[1]))


def _resolved(keys: Place, seen: dict[Place, int], *, another: bool) -> Place:
    """A heading's place: below the latest entry of every list on the way, or one more entry."""
    place: Place = ()
    for at, key in enumerate(keys):
        place = (*place, key)
        if another and at == len(keys) - 1:
            seen[place] = seen.get(place, -1) + 1
        if place in seen:
            place = (*place, seen[place])
    return place


def _place(written: str) -> Place:
    return tuple(
        int(match[4]) if match[4] else match[1] or match[2] or match[3] or ""
        for match in _PARTS.finditer(written)
    )
