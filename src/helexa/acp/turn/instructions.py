"""What the model is told about its work: our words, and those of the workspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from helexa.acp.permission import Mode

RULE_FILES = ("AGENTS.md", "CLAUDE.md", ".rules")
_MOST_RULES = 32_000

_OURS = """\
You are a coding agent inside the user's editor. The workspace is {home}.
Use the tools to look before you say how things are, and to do what the user asks: read files, \
search, edit, run commands. The user sees every call, and every change as a diff.
Make small changes that fit the code around them. After a change, check it: run the tests or the \
program if there is a way. Say at the end in a few sentences what you did and what is left.
For work of several steps keep the plan up to date with the todo tool.
When a call is refused or fails, read why and find another way; do not repeat it unchanged.\
"""
_PLAN = (
    "\nOnly a plan is wanted now: read and search as you need, change and run nothing, and answer "
    "with the plan."
)


class Rules:
    """The workspace's own instructions.

    Args:
        files: Names with their texts, as they are shown to the user.
    """

    def __init__(self, files: Sequence[tuple[str, str]]) -> None:
        self.files = tuple(files)

    @property
    def names(self) -> list[str]:
        """What was read."""
        return [name for name, _ in self.files]


def read_rules(roots: Sequence[Path]) -> Rules:
    """AGENTS.md, CLAUDE.md and .rules at the top of each root; the same text only once."""
    found: list[tuple[str, str]] = []
    for root in roots:
        for name in RULE_FILES:
            try:
                text = (root / name).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                continue
            if len(text) > _MOST_RULES:
                text = f"{text[:_MOST_RULES]}\n(cut: the file has {len(text):,} characters)"
            if text and text not in [known for _, known in found]:
                found.append((str(root / name), text))
    return Rules(found)


def instructions(home: Path, rules: Rules, mode: Mode, own: str | None) -> str:
    """The system prompt; stable while mode and rules are, so that it stays cached."""
    text = own if own is not None else _OURS.format(home=home)
    if mode == "plan":
        text += _PLAN
    for name, words in rules.files:
        text += f"\n\nInstructions of the workspace ({name}):\n{words}"
    return text
