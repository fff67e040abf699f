"""Items as turns.

::

    reasoning  message(assistant)  function_call…   =  one turn of the assistant
    function_call_output                            =  one turn of a tool

Items that only OpenAI's servers can have made (a web search, a computer call) say nothing to
another model and are left out; what only they can read, and what stands for more than itself, is
refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from helexa.core.chat import Image, Message, Role, Text, ToolCall
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.files import file_text
from helexa.wire.places import Placed, Shown, placed
from helexa.wire.responses.body import Item, Part
from helexa.wire.responses.custom import as_arguments
from helexa.wire.responses.tools import Names

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "developer", "user": "user", "assistant": "assistant",
}  # fmt: skip
_TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
_REFUSED = {
    "compaction": "is a conversation that only OpenAI can read. Send its items themselves.",
    "configuration_update": "cannot be kept for later. Send `reasoning` and `text` with each "
    "request.",
}
_SEAL = "helexa:"
_parts = msgspec.json.Decoder(list[Part]).decode


@dataclass(slots=True)
class _Turn:
    """What the assistant has said so far in the turn being read."""

    path: str = ""
    reasoning: list[str] = field(default_factory=list)
    content: list[Shown] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def at(self, path: str) -> None:
        """Something is added that stands there; the first one names the turn."""
        if not (self.reasoning or self.content or self.calls):
            self.path = path

    def take(self) -> list[Placed]:
        """The turn, if there is any; empties it."""
        if not (self.reasoning or self.content or self.calls):
            return []
        message = Message("assistant", (), tuple(self.calls), "\n".join(self.reasoning))
        turn = placed(self.path, self.content, message)
        self.reasoning, self.content, self.calls = [], [], []
        return [turn]


def read_items(items: Iterable[tuple[str, Item]], names: Names) -> list[Placed]:
    """Turns of a conversation.

    Args:
        items: Each with its path in the request.
        names: Of the functions that may be called now.

    Raises:
        InvalidRequestBody: An item is wrong, by its path.
        UnsupportedParameter: It is right, and nobody here can read it.
    """
    out: list[Placed] = []
    turn = _Turn()
    for path, item in items:
        kind = item.type or "message"
        if kind == "message":
            _message(item, path, turn, out)
        elif kind == "reasoning":
            if turn.content or turn.calls:
                out += turn.take()
            thought = thought_of(item)
            if thought:
                turn.at(path)
                turn.reasoning.append(thought)
        elif kind in ("function_call", "custom_tool_call"):
            turn.at(path)
            turn.calls.append(_call(item, path, names))
        elif kind in ("function_call_output", "custom_tool_call_output"):
            out += turn.take()
            out.append(_output(item, path))
        elif kind == "item_reference":
            raise InvalidRequestBody(
                f"`{path}` refers to the item {(item.id or '')[:60]!r}, which is not kept here. "
                "Send the item itself.", param=path,
            )  # fmt: skip
        elif kind in _REFUSED:
            raise UnsupportedParameter(f"`{path}` ({kind}) {_REFUSED[kind]}", param=path)
    return out + turn.take()


def _message(item: Item, path: str, turn: _Turn, out: list[Placed]) -> None:
    role = _ROLES.get(item.role or "")
    if role is None:
        raise InvalidRequestBody(
            f"`{path}.role` is {str(item.role)[:40]!r}; known are {', '.join(_ROLES)}.",
            param=f"{path}.role",
        )
    content = _content(item.content, f"{path}.content")
    if role != "assistant":
        out += turn.take()
        out.append(placed(path, content, Message(role)))
        return
    if turn.content or turn.calls:
        out += turn.take()
    if content:
        turn.at(path)
    turn.content += content


def _content(content: str | list[Part] | None, path: str) -> list[Shown]:
    """Parts of a message or of a call's output."""
    if isinstance(content, str):
        return [Shown(Text(content), path)] if content else []
    return [_part(part, f"{path}[{index}]") for index, part in enumerate(content or ())]


def _part(part: Part, path: str) -> Shown:
    if part.type in _TEXTS or part.type == "refusal":
        text = part.refusal if part.type == "refusal" else part.text
        if text is None:
            raise InvalidRequestBody(f"`{path}.text` is missing.", param=f"{path}.text")
        return Shown(Text(text), path)
    if part.type == "input_image":
        url = part.image_url.get("url") if isinstance(part.image_url, dict) else part.image_url
        if isinstance(url, str):
            return Shown(Image(url, part.detail), path)
        raise UnsupportedParameter(
            f"`{path}` is an image without an `image_url`; files are not kept here.", param=path
        )
    if part.type == "input_file":
        return Shown(Text(file_text(part.file_data, part.filename, path)), path)
    raise UnsupportedParameter(
        f"`{path}` has the type {part.type[:40]!r}, which cannot be read here. "
        "Send input_text, input_image or input_file.", param=path,
    )  # fmt: skip


def _call(item: Item, path: str, names: Names) -> ToolCall:
    for name, value in (("call_id", item.call_id), ("name", item.name)):
        if not value:
            raise InvalidRequestBody(f"`{path}.{name}` is missing.", param=f"{path}.{name}")
    arguments = item.arguments
    if item.type == "custom_tool_call":
        arguments = as_arguments(item.input or "")
    if isinstance(arguments, dict):
        arguments = msgspec.json.encode(arguments).decode()
    flat = names.flat(item.namespace, item.name or "")
    return ToolCall(item.call_id or "", flat, arguments or "{}")


def _output(item: Item, path: str) -> Placed:
    if not item.call_id:
        raise InvalidRequestBody(f"`{path}.call_id` is missing.", param=f"{path}.call_id")
    message = Message("tool", tool_call_id=item.call_id)
    return placed(path, _output_parts(item.output, f"{path}.output"), message)


def _output_parts(output: msgspec.Raw, path: str) -> list[Shown]:
    """A string, parts, or other JSON as its text."""
    raw = bytes(output).strip()
    if raw.startswith(b'"'):
        return [Shown(Text(msgspec.json.decode(raw, type=str)), path)]
    if raw.startswith(b"["):
        try:
            return _content(_parts(raw), path)
        except msgspec.ValidationError:
            pass
    return [Shown(Text(raw.decode()), path)] if raw and raw != b"null" else []


def thought_of(item: Item) -> str:
    """What a reasoning item says, wherever the client has kept it."""
    content = item.content if isinstance(item.content, list) else ()
    said = "".join(part.text or "" for part in content)
    if said or not item.encrypted_content:
        return said or "\n".join(part.text or "" for part in item.summary or ())
    return unseal(item.encrypted_content)


def seal(text: str) -> str:
    """A thought for a client that sends back what it cannot read; no secret, and signed by none."""
    return _SEAL + base64.b64encode(text.encode()).decode()


def unseal(sealed: str) -> str:
    """What ``seal`` made of; another provider's is empty."""
    if not sealed.startswith(_SEAL):
        return ""
    try:
        return base64.b64decode(sealed[len(_SEAL) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
