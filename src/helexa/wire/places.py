"""Where the client wrote what a chat request holds: for refusals of that request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from helexa.core.chat import Image, Message, Part


class Shown(NamedTuple):
    """What a model is shown of a block or part, and where the client wrote it."""

    part: Part
    path: str


class Placed(NamedTuple):
    """A message, and where the client wrote it and its parts."""

    message: Message
    path: str
    parts: tuple[str, ...] = ()


def placed(path: str, shown: Iterable[Shown], message: Message) -> Placed:
    """``message`` with the content ``shown``."""
    shown = tuple(shown)
    content = tuple(part for part, _ in shown)
    filled = msgspec.structs.replace(message, content=content)
    return Placed(filled, path, tuple(where for _, where in shown))


def message_names(turns: Iterable[Placed], address: str) -> dict[str, str]:
    """The client's paths by those of the messages of the chat request.

    Args:
        address: Where the client's dialect has the address of an image, within its part.
    """
    names: dict[str, str] = {}
    for index, turn in enumerate(turns):
        here = f"messages[{index}]"
        names[here] = turn.path
        for place, path in enumerate(turn.parts):
            names[f"{here}.content[{place}]"] = path
            if isinstance(turn.message.content[place], Image):
                names[f"{here}.content[{place}].image_url.url"] = f"{path}.{address}"
    return names
