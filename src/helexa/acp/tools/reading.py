"""Tools that only look: a file, a folder, names, contents."""

from __future__ import annotations

import asyncio
import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from helexa.acp.protocol.updates import Kind, location
from helexa.acp.tools.base import Context, Done, Json, Prepared, ToolTrouble, number, schema, words

MOST_LINES = 2000
MOST_HITS = 200
MOST_LINE = 2000
MOST_HIT = 300
MOST_TEXT = 30_000
"""Characters of one answer: some 10,000 tokens, what a small window bears."""
_SKIPPED = frozenset((".git", "node_modules", "__pycache__", ".venv", ".mypy_cache", "target"))


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
            lines = (await context.workspace.read(path)).split("\n")
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
        only = files_like(words(arguments, "glob", "*"), root)
        try:
            wanted = re.compile(pattern)
        except re.error as error:
            raise ToolTrouble(f"`pattern` is not a regular expression: {error}") from error

        async def perform() -> Done:
            hits = await asyncio.to_thread(_hits, root, wanted, only)
            lines = [
                f"{context.workspace.shown(path)}:{line}: {cut(text, MOST_HIT)}"
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


def walk(root: Path) -> Iterator[Path]:
    """Every file below ``root``, without following links and without what tools leave behind."""
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(names):
            yield Path(folder) / name


def _matching(root: Path, pattern: str) -> list[Path]:
    wanted = files_like(pattern, root)
    found = [p for p in walk(root) if wanted.fullmatch(_within(p, root))]
    return sorted(found, key=_newest_first)


def _newest_first(path: Path) -> float:
    try:
        return -path.lstat().st_mtime
    except OSError:  # it has gone meanwhile
        return 0.0


def _within(path: Path, root: Path) -> str:
    return path.name if path == root else path.relative_to(root).as_posix()


def files_like(pattern: str, root: Path) -> re.Pattern[str]:
    """A glob over paths within ``root``; a name alone is looked for in every folder.

    ``*`` stays within a name, ``**`` is any folders, also none, ``{a,b}`` is either.
    """
    inner = pattern.removeprefix(f"{root.as_posix()}/").removeprefix("./")
    either = [one if "/" in one else f"**/{one}" for one in _alternatives(inner)]
    return re.compile("|".join(f"(?:{_regex(one)})" for one in either))


def _alternatives(pattern: str) -> list[str]:
    braces = re.search(r"\{([^{}]*,[^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    before, after = pattern[: braces.start()], pattern[braces.end() :]
    return [
        whole
        for word in braces.group(1).split(",")
        for whole in _alternatives(f"{before}{word}{after}")
    ]


def _regex(pattern: str) -> str:
    """One glob as a regular expression."""
    if pattern.endswith("**"):
        pattern += "/*"
    parts = [fnmatch.translate(part)[:-2].replace(".*", "[^/]*") for part in pattern.split("**/")]
    return "(?:.*/)?".join(parts)


def _hits(
    root: Path, wanted: re.Pattern[str], only: re.Pattern[str]
) -> list[tuple[Path, int, str]]:
    hits: list[tuple[Path, int, str]] = []
    for path in walk(root):
        if not only.fullmatch(_within(path, root)) or path.is_symlink() or not path.is_file():
            continue
        hits += _hits_in(path, wanted, MOST_HITS + 1 - len(hits))
        if len(hits) > MOST_HITS:
            break
    return hits


def _hits_in(path: Path, wanted: re.Pattern[str], most: int) -> list[tuple[Path, int, str]]:
    """Line by line, whatever its size; nothing of a file that is no text."""
    hits: list[tuple[Path, int, str]] = []
    try:
        with path.open(encoding="utf-8") as lines:
            for i, line in enumerate(lines, 1):
                if wanted.search(line.rstrip("\n")):
                    hits.append((path, i, line.strip()))
                    if len(hits) >= most:
                        break
    except (OSError, UnicodeDecodeError):
        return []
    return hits
