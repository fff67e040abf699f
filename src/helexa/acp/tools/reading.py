"""Tools that only look: a file, a folder, names, contents."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from helexa.acp.protocol.updates import Kind, location
from helexa.acp.tools import scan
from helexa.acp.tools.base import Context, Done, Json, Prepared, ToolTrouble, number, schema, words
from helexa.acp.tools.scan import files_like, walk, within

MOST_LINES = 2000
MOST_HITS = 200
MOST_LINE = 2000
MOST_HIT = 300
MOST_TEXT = 30_000
"""Characters of one answer: some 10,000 tokens, what a small window bears."""
LONGEST_S = 60.0
_decode = msgspec.json.Decoder(list[tuple[str, int, str]]).decode


class ReadFile:
    """``read_file``."""

    name = "read_file"
    description = (
        "Read a text file of the workspace. Lines are numbered from 1; long files come in parts."
    )
    parameters = schema(
        ("path",),
        path={"type": "string", "description": "Absolute, or relative to the workspace."},
        offset={"type": "integer", "description": "First line wanted, from 1."},
        limit={"type": "integer", "description": f"Lines wanted, at most {MOST_LINES}."},
    )
    kind: Kind = "read"
    reads_only = True
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        path = context.workspace.path(words(arguments, "path"))
        first = number(arguments, "offset", 1, 1, 10**9)
        count = number(arguments, "limit", MOST_LINES, 1, MOST_LINES)

        async def perform() -> Done:
            text = await context.workspace.read(path)
            context.workspace.seen(path, text)
            lines = text.split("\n")
            if first > len(lines):
                return Done.text(f"(nothing: the file has {len(lines)} lines)")
            part = _numbered(lines[first - 1 : first - 1 + count], first)
            left = len(lines) - (first - 1 + len(part))
            if left > 0:
                part.append(f"({left} more lines; read on with offset {first + len(part)})")
            return Done.text("\n".join(part) if lines != [""] else "(empty)")

        shown = context.workspace.shown(path)
        return Prepared(f"Read {shown}", perform, [location(str(path), first)])


def _numbered(lines: Sequence[str], first: int) -> list[str]:
    """As many lines as one answer may have, at least one."""
    shown: list[str] = []
    size = 0
    for number_, line in enumerate(lines, first):
        text = f"{number_}\t{cut(line.removesuffix(chr(13)), MOST_LINE)}"
        size += len(text) + 1
        if shown and size > MOST_TEXT:
            break
        shown.append(text)
    return shown


def cut(line: str, most: int) -> str:
    """A line that fits, and how much of it does not."""
    left = len(line) - most
    return line if left <= 0 else f"{line[:most]}… ({left} more characters of this line)"


class ListDir:
    """``list_dir``."""

    name = "list_dir"
    description = "List a folder of the workspace; folders end with a slash."
    parameters = schema((), path={"type": "string", "description": "Default: the workspace."})
    kind: Kind = "read"
    reads_only = True
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        path = context.workspace.path(words(arguments, "path", "."))

        async def perform() -> Done:
            return Done.text(await asyncio.to_thread(_listing, path))

        shown = context.workspace.shown(path)
        return Prepared(f"List {shown}", perform, [location(str(path))])


class Glob:
    """``glob``."""

    name = "glob"
    description = "Find files by name, for example src/**/*.py; newest first."
    parameters = schema(
        ("pattern",),
        pattern={"type": "string"},
        path={"type": "string", "description": "Folder to look in."},
    )
    kind: Kind = "search"
    reads_only = True
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        pattern = words(arguments, "pattern")
        root = context.workspace.path(words(arguments, "path", "."))

        async def perform() -> Done:
            found = await asyncio.to_thread(_matching, root, pattern)
            shown = [context.workspace.shown(path) for path in found[:MOST_HITS]]
            more = f"\n({len(found) - MOST_HITS} more)" if len(found) > MOST_HITS else ""
            return Done.text("\n".join(shown) + more if shown else "no file matches")

        return Prepared(f"Find {pattern}", perform)


class Grep:
    """``grep``."""

    name = "grep"
    description = "Search the files of the workspace for a regular expression (Python's)."
    parameters = schema(
        ("pattern",),
        pattern={"type": "string"},
        path={"type": "string", "description": "File or folder to look in."},
        glob={"type": "string", "description": "Only files that match, like *.py or src/**/*.py"},
    )
    kind: Kind = "search"
    reads_only = True
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        pattern = words(arguments, "pattern")
        root = context.workspace.path(words(arguments, "path", "."))
        only = words(arguments, "glob", "*")
        try:
            re.compile(pattern)
        except re.error as error:
            raise ToolTrouble(f"`pattern` is not a regular expression: {error}") from error

        async def perform() -> Done:
            hits = await _hits(root, pattern, only)
            lines = [
                f"{context.workspace.shown(Path(path))}:{line}: {cut(text, MOST_HIT)}"
                for path, line, text in hits[:MOST_HITS]
            ]
            more = "\n(more hits; narrow the pattern)" if len(hits) > MOST_HITS else ""
            return Done.text("\n".join(lines) + more if lines else "nothing matches")

        return Prepared(f"Search for {pattern}", perform)


def _listing(path: Path) -> str:
    try:
        entries = sorted(path.iterdir(), key=lambda entry: (entry.is_file(), entry.name))
    except OSError as error:
        raise ToolTrouble(f"{path} cannot be listed: {error.strerror}") from error
    names = [entry.name + ("/" if entry.is_dir() else "") for entry in entries[:MOST_LINES]]
    if len(entries) > MOST_LINES:
        names.append(f"({len(entries) - MOST_LINES} more; use glob)")
    return "\n".join(names) or "(empty)"


def _matching(root: Path, pattern: str) -> list[Path]:
    wanted = files_like(pattern, root)
    found = [p for p in walk(root) if wanted.fullmatch(within(p, root))]
    return sorted(found, key=_newest_first)


def _newest_first(path: Path) -> float:
    try:
        return -path.lstat().st_mtime
    except OSError:  # it has gone meanwhile
        return 0.0


async def _hits(root: Path, pattern: str, only: str) -> list[tuple[str, int, str]]:
    """In a process of its own, which can be ended: some patterns take for ever.

    Raises:
        ToolTrouble: It took too long.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-E", scan.__file__, str(root), pattern, only, str(MOST_HITS + 1),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LONGEST_S):
            said, _ = await process.communicate()
    except TimeoutError:
        late = f"the search has not ended within {LONGEST_S:g} s; look in fewer files, or for less"
        raise ToolTrouble(late) from None
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    return _decode(said)
