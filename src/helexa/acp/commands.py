"""Slash commands: some the agent does itself, some are prompts with more words."""

from __future__ import annotations

COMMANDS: tuple[tuple[str, str, str | None], ...] = (
    ("compact", "Make room in the context: a summary takes the place of the old part", None),
    ("model", "Use another model", "endpoint:model, or nothing for the list"),
    ("plan", "Only plan: read, change nothing, answer with a plan", "what is to be planned"),
    ("review", "Review the changes in the working tree", "what to look at"),
    ("init", "Look at the project and write an AGENTS.md for it", None),
    ("undo", "Take back what the last turn changed in files", None),
    ("cost", "What this session has used", None),
)

PROMPTS = {
    "review": (
        "Review the uncommitted changes of this workspace (git status and git diff). Look for "
        "mistakes, missing tests and anything that does not fit the code around it. Do not change "
        "anything. Name file and line for each remark, the important ones first. {rest}"
    ),
    "init": (
        "Look at this project (its files, build and tests) and write an AGENTS.md at its top: "
        "what it is, how to build and test it, how its code is laid out, and the conventions "
        "somebody who changes it must know. Be brief and concrete. {rest}"
    ),
}


def parse(text: str) -> tuple[str, str] | None:
    """Command and rest of a prompt that begins with one; None for any other prompt."""
    if not text.startswith("/"):
        return None
    name, _, rest = text[1:].partition(" ")
    name = name.strip()
    if name not in {known for known, _, _ in COMMANDS}:
        return None
    return name, rest.strip()
