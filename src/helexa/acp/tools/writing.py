"""Tools that change files: whole, or in places. The change is shown before it is made."""

from __future__ import annotations

from pathlib import Path

from helexa.acp.protocol.updates import Kind, diff, location
from helexa.acp.tools.base import (
    Change,
    Context,
    Done,
    Json,
    Prepared,
    ToolTrouble,
    schema,
    words,
)


class WriteFile:
    """``write_file``."""

    name = "write_file"
    description = "Write a whole file: a new one, or one that is replaced from end to end."
    parameters = schema(("path", "content"), path={"type": "string"}, content={"type": "string"})
    kind: Kind = "edit"
    reads_only = False
    in_plan = False

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        path = context.workspace.path(words(arguments, "path"))
        new = words(arguments, "content")
        old = await context.workspace.read_or_none(path)
        if old is not None and context.workspace.knows_other(path, old):
            raise ToolTrouble(f"{path.name} has changed since you read it; read it again")
        new = with_endings_of(old or "", new)
        word = "Create" if old is None else "Rewrite"
        return _change(f"{word} {context.workspace.shown(path)}", path, old, new, context)


class EditFile:
    """``edit_file``."""

    name = "edit_file"
    description = (
        "Change places of a file. Each edit's old_text must occur exactly once (give enough of "
        "its surroundings) unless replace_all is set; edits are made one after the other."
    )
    parameters = schema(
        ("path", "edits"),
        path={"type": "string"},
        edits={
            "type": "array",
            "minItems": 1,
            "items": schema(
                ("old_text", "new_text"),
                old_text={"type": "string"},
                new_text={"type": "string"},
                replace_all={"type": "boolean"},
            ),
        },
    )
    kind: Kind = "edit"
    reads_only = False
    in_plan = False

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        path = context.workspace.path(words(arguments, "path"))
        edits = arguments.get("edits")
        if isinstance(arguments.get("old_text"), str):  # one edit without its list is understood
            edits = [arguments]
        if not isinstance(edits, list) or not edits:
            raise ToolTrouble("`edits` must be a list of {old_text, new_text}")
        old = await context.workspace.read(path)
        new = old
        for i, edit in enumerate(edits):
            new = apply(new, edit, f"edits[{i}]")
        if new == old:
            raise ToolTrouble("the edits change nothing")
        return _change(f"Edit {context.workspace.shown(path)}", path, old, new, context)


def apply(text: str, edit: Json, where: str) -> str:
    """One edit.

    Raises:
        ToolTrouble: Its old text is not there, or not unique.
    """
    if not isinstance(edit, dict):
        raise ToolTrouble(f"{where} must be an object with old_text and new_text")
    old, new = words(edit, "old_text"), words(edit, "new_text")
    if not old:
        raise ToolTrouble(f"{where}: old_text is empty; use write_file for a whole file")
    old, new = with_endings_of(text, old), with_endings_of(text, new)
    count = text.count(old)
    if count == 0:
        near = " (its words are there with other spaces)" if _loosely(old, text) else ""
        raise ToolTrouble(
            f"{where}: old_text does not occur in the file{near}; read the file again and copy it"
        )
    if count > 1 and edit.get("replace_all") is not True:
        raise ToolTrouble(
            f"{where}: old_text occurs {count} times; give more of its surroundings, "
            "or set replace_all"
        )
    return text.replace(old, new)


def with_endings_of(text: str, words: str) -> str:
    """``words`` with the line endings that ``text`` has: a model writes its own."""
    if text.count("\r\n") * 2 <= text.count("\n"):
        return words
    return words.replace("\r\n", "\n").replace("\n", "\r\n")


def _loosely(old: str, text: str) -> bool:
    return " ".join(old.split()) in " ".join(text.split())


def _change(title: str, path: Path, old: str | None, new: str, context: Context) -> Prepared:
    first = 1
    if old is not None:
        pairs = zip(old.split("\n"), new.split("\n"), strict=False)
        first = next((i for i, (a, b) in enumerate(pairs, 1) if a != b), 1)
    shown = [diff(str(path), old, new)]

    async def perform() -> Done:
        now = await context.workspace.read_or_none(path)
        if now != old:
            raise ToolTrouble(f"{path.name} was changed meanwhile; read it again")
        await context.workspace.write(path, new)
        # An editor may format what it saves: an undo looks for what is there, not what was meant.
        there = await context.workspace.read_or_none(path)
        context.changed.append(Change(path, old, there))
        if there is not None and (old is None or context.workspace.knows(path, old)):
            context.workspace.seen(path, there)
        return Done.text(f"{context.workspace.shown(path)} is written.", content=shown)

    return Prepared(title, perform, [location(str(path), first)], shown, subject="files")
