"""Who may do what: a pure decision over mode, tool and what the user said before."""

from __future__ import annotations

from typing import Literal

import msgspec

from helexa.acp.protocol.updates import Kind

Mode = Literal["ask", "accept_edits", "plan", "full_access"]
Word = Literal["allow", "ask", "refuse"]

MODES: tuple[tuple[Mode, str, str], ...] = (
    ("ask", "Ask", "Asks before it changes a file, runs a command or fetches a page."),
    ("accept_edits", "Accept edits", "Changes files without asking; asks for the rest."),
    ("plan", "Plan", "Only reads, and writes a plan."),
    ("full_access", "Full access", "Asks for nothing."),
)
OPTIONS = (
    ("allow_once", "Allow"),
    ("allow_always", "Always allow"),
    ("reject_once", "Reject"),
    ("reject_always", "Never allow"),
)


class Asked(msgspec.Struct, frozen=True):
    """A call as it is judged."""

    tool: str
    kind: Kind
    subject: str
    reads_only: bool
    in_plan: bool


def decide(mode: Mode, asked: Asked, remembered: dict[str, bool]) -> tuple[Word, str]:
    """Whether a call may go on, and why not in words for the model.

    What the user has said for the session counts before the mode, except that a plan stays one.
    """
    if asked.reads_only:
        return "allow", ""
    if mode == "plan" and not asked.in_plan:
        return "refuse", (
            "Only a plan is wanted: nothing may be changed or run now. Finish the plan and tell "
            "the user to leave plan mode."
        )
    said = remembered.get(memory_key(asked))
    if said is False:
        return "refuse", "The user does not allow this in this session. Find another way or ask."
    if said or mode == "full_access":
        return "allow", ""
    if mode == "accept_edits" and asked.kind == "edit":
        return "allow", ""
    return "ask", ""


def memory_key(asked: Asked) -> str:
    """What "always" and "never" are remembered for."""
    return f"{asked.tool}:{asked.subject}" if asked.subject else asked.tool
