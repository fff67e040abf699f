"""Making room in the window: pure decisions about which part of a history is let go of.

First old results of tools are left out; then everything before the last turns becomes a summary
that the model writes. The last turns stay as they are, and a call is never parted from its result.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from helexa.core.chat import Image, Message, Text

CHARS_PER_TOKEN = 3.2
IMAGE_TOKENS = 1500
KEPT_TURNS = 2
LEFT_OUT = "(an old result, left out to make room; call the tool again if you need it)"
CUT = "\n(cut: the window bears no more of it now; ask for a smaller part)"
_SHORT = 400
SUMMARY_PROMPT = (
    "Summarise this conversation for yourself, so that you can go on with the work without it: "
    "what the user wants, what was found out (files, names, facts), what was changed, what is "
    "left to do, and what the user decided. Be complete and brief. Answer with the summary only."
)


def tokens(messages: Sequence[Message]) -> int:
    """An estimate of a history's length."""
    total = 0.0
    for message in messages:
        for part in message.content:
            total += IMAGE_TOKENS if isinstance(part, Image) else len(part.text) / CHARS_PER_TOKEN
        for call in message.tool_calls:
            total += (len(call.arguments) + len(call.name)) / CHARS_PER_TOKEN + 8
        total += 6
    return round(total)


def last_turns(messages: Sequence[Message], turns: int = KEPT_TURNS) -> int:
    """Index of the user's message that begins the last ``turns`` turns."""
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    return starts[-turns] if len(starts) >= turns else (starts[0] if starts else 0)


def without_old_results(messages: Sequence[Message], before: int) -> list[Message]:
    """Long results of tools before index ``before`` are left out; their calls stay paired."""
    out = []
    for i, message in enumerate(messages):
        if i < before and message.role == "tool" and _length(message) > _SHORT:
            out.append(msgspec.structs.replace(message, content=(Text(LEFT_OUT),)))
        else:
            out.append(message)
    return out


def lightened(messages: Sequence[Message], room: int) -> list[Message]:
    """Without the long results of older turns; of the turn before this one only if it must be."""
    lighter = list(messages)
    for turns in range(KEPT_TURNS, 0, -1):
        if tokens(lighter) <= room and turns < KEPT_TURNS:
            break
        lighter = without_old_results(messages, last_turns(messages, turns))
    return lighter


def split(messages: Sequence[Message], room: int) -> int:
    """Where the part ends that becomes a summary: as many last turns as fit stay, at least one.

    Args:
        room: Tokens that the part that stays may take.
    """
    starts = [i for i, message in enumerate(messages) if message.role == "user"]
    for turns in range(min(KEPT_TURNS, len(starts)), 0, -1):
        at = starts[-turns]
        if at and tokens(messages[at:]) <= room:
            return at
    return starts[-1] if starts else 0


def within_turn(messages: Sequence[Message], room: int) -> list[Message]:
    """A single turn that is too long by itself: its results are cut, oldest first.

    Every call keeps a result, and the newest stay whole as long as there is room. Of the very
    last one its beginning stays: who asks again and never gets anything can only ask again.
    """
    out = list(messages)
    long = [i for i, m in enumerate(out) if m.role == "tool" and _length(m) > _SHORT]
    for i in long:
        if tokens(out) <= room:
            break
        whole = out[i]
        out[i] = msgspec.structs.replace(whole, content=(Text(LEFT_OUT),))
        if i == long[-1]:
            left = int((room - tokens(out)) * CHARS_PER_TOKEN)
            text = "".join(part.text for part in whole.content if isinstance(part, Text))
            kept = Text(text[: max(_SHORT, left)] + CUT)
            out[i] = msgspec.structs.replace(whole, content=(kept,))
    return out


def summary_request(messages: Sequence[Message], room: int) -> list[Message]:
    """What the model is asked for a summary; cut to what it can read."""
    kept = without_old_results(messages, len(messages))
    while tokens(kept) > room and len(kept) > 1:
        kept = kept[1:]
    while kept and kept[0].role == "tool":
        kept = kept[1:]
    return [*kept, Message("user", (Text(SUMMARY_PROMPT),))]


def with_summary(summary: str, messages: Sequence[Message]) -> list[Message]:
    """The history after it: the summary stands where the old part was."""
    words = f"Summary of our conversation so far:\n{summary}"
    return [
        Message("user", (Text(words),)),
        Message("assistant", (Text("Understood; I go on from there."),)),
        *messages,
    ]


def _length(message: Message) -> int:
    return sum(len(part.text) for part in message.content if isinstance(part, Text))
