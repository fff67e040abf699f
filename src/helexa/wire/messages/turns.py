"""The turns of a Messages request: blocks on one side, messages with parts on the other."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from helexa.core.chat import Image, Message, Text, ToolCall
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.messages import body as wire
from helexa.wire.places import Placed, Shown, placed

_ERROR = "Error: "


def read_turns(body: wire.Body) -> list[Placed]:
    """System prompt and turns as messages.

    Raises:
        InvalidRequestBody, UnsupportedParameter: With the path of the member.
    """
    if body.messages is None:
        raise InvalidRequestBody("The request has no `messages`.", param="messages")
    if not body.messages:
        raise InvalidRequestBody("`messages` is empty; send at least one.", param="messages")
    turns: list[Placed] = []
    if body.system:
        turns.append(placed("system", _words(body.system), Message("system")))
    for index, turn in enumerate(body.messages):
        for each in _turn(turn, f"messages[{index}]"):
            _append(turns, each)
    return turns


def _words(content: str | Iterable[wire.TextBlock]) -> list[Shown]:
    if isinstance(content, str):
        return [Shown(Text(content), "system")]
    return [Shown(Text(block.text), f"system[{i}]") for i, block in enumerate(content)]


def _append(turns: list[Placed], added: Placed) -> None:
    """Turns of one role in a row are one turn, as Anthropic reads them."""
    message = added.message
    last = turns[-1].message if turns else None
    if last is None or last.role != message.role or message.role not in ("user", "assistant"):
        turns.append(added)
        return
    joined = Message(
        message.role,
        last.content + message.content,
        last.tool_calls + message.tool_calls,
        last.reasoning + message.reasoning,
    )
    turns[-1] = Placed(joined, turns[-1].path, turns[-1].parts + added.parts)


def _turn(turn: wire.Turn, path: str) -> list[Placed]:
    content = turn.content
    blocks: list[wire.Block]
    blocks = [wire.TextBlock(content)] if isinstance(content, str) else content or []
    if turn.role == "assistant":
        return [_assistant(blocks, path)]
    if turn.role == "user":
        return _user(blocks, path)
    if turn.role == "system":
        shown = [p for i, b in enumerate(blocks) for p in _seen(b, f"{path}.content[{i}]")]
        return [placed(path, shown, Message("system"))]
    raise InvalidRequestBody(
        f"`{path}.role` is '{turn.role[:40]}'; known roles are user, assistant and system.",
        param=f"{path}.role",
    )


def _assistant(blocks: list[wire.Block], path: str) -> Placed:
    shown: list[Shown] = []
    calls: list[ToolCall] = []
    reasoning: list[str] = []
    for index, block in enumerate(blocks):
        if isinstance(block, wire.ToolUseBlock):
            calls.append(ToolCall(block.id, block.name, bytes(block.input).decode()))
        elif isinstance(block, wire.ThinkingBlock):
            reasoning.append(block.thinking)
        elif not isinstance(block, wire.RedactedThinkingBlock):  # nobody here can read those
            shown += _seen(block, f"{path}.content[{index}]")
    message = Message("assistant", (), tuple(calls), "".join(reasoning))
    return placed(path, shown, message)


def _user(blocks: list[wire.Block], path: str) -> list[Placed]:
    """Results of tools first: a template wants them right behind their calls."""
    results: list[Placed] = []
    shown: list[Shown] = []
    for index, block in enumerate(blocks):
        here = f"{path}.content[{index}]"
        if isinstance(block, wire.ToolResultBlock):
            results.append(_result(block, here))
        else:
            shown += _seen(block, here)
    if shown or not results:
        results.append(placed(path, shown, Message("user")))
    return results


def _result(block: wire.ToolResultBlock, path: str) -> Placed:
    content = block.content
    if isinstance(content, str):
        shown = [Shown(Text(content), path)]
    else:
        blocks = enumerate(content or ())
        shown = [p for i, b in blocks for p in _seen(b, f"{path}.content[{i}]")]
        shown = shown or [Shown(Text(""), path)]
    if block.is_error:
        shown = _failed(shown, path)
    return placed(path, shown, Message("tool", tool_call_id=block.tool_use_id))


def _failed(shown: list[Shown], path: str) -> list[Shown]:
    """What ``is_error`` says is written before the result: chat has no member for it."""
    first = shown[0].part
    if isinstance(first, Text):
        return [Shown(Text(_ERROR + first.text), shown[0].path), *shown[1:]]
    return [Shown(Text(_ERROR), path), *shown]


def _seen(block: wire.Block | wire.ToolReferenceBlock, path: str) -> list[Shown]:
    """What a model is shown of a block. A tool that waits to be found (``defer_loading``) has been
    offered all along."""
    if isinstance(block, wire.TextBlock):
        return [Shown(Text(block.text), path)]
    if isinstance(block, wire.ImageBlock):
        return [Shown(Image(_image_url(block.source, f"{path}.source")), path)]
    if isinstance(block, wire.DocumentBlock):
        return _document(block, path)
    if isinstance(block, wire.ToolReferenceBlock):
        return [Shown(Text(f"Found: the tool {block.tool_name}."), path)]
    if isinstance(block, wire.SearchResultBlock):
        head = f"{block.title}\n{block.source}\n\n"
        return [Shown(Text(head + "\n".join(text.text for text in block.content)), path)]
    raise InvalidRequestBody(f"`{path}` is in the wrong role's turn.", param=path)


def _image_url(source: wire.Source, path: str) -> str:
    if source.type == "base64" and source.data is not None:
        return f"data:{source.media_type or 'image/png'};base64,{source.data}"
    if source.type == "url" and source.url is not None:
        return source.url
    raise _unreadable(source, path, "base64 or url")


def _document(block: wire.DocumentBlock, path: str) -> list[Shown]:
    """A document is shown as its text, under its title; what is no text cannot be shown."""
    source = block.source
    head = "".join(f"{line}\n" for line in (block.title, block.context) if line)
    if source.type == "text" and source.data is not None:
        return [Shown(Text(f"{head}\n{source.data}" if head else source.data), path)]
    if source.type == "content" and source.content is not None:
        shown = [Shown(Text(head), path)] if head else []
        if isinstance(source.content, str):
            return [*shown, Shown(Text(source.content), path)]
        inner = enumerate(source.content)
        return shown + [p for i, b in inner for p in _seen(b, f"{path}.source.content[{i}]")]
    is_text = (source.media_type or "").startswith("text/")
    if source.type == "base64" and is_text and source.data is not None:
        text = _plain_text(source.data, f"{path}.source.data")
        return [Shown(Text(head + text), path)]
    raise _unreadable(source, f"{path}.source", "text or content")


def _plain_text(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequestBody(f"`{path}` is not base64 of UTF-8 text.", param=path) from None


def _unreadable(source: wire.Source, path: str, known: str) -> UnsupportedParameter:
    what = f"{source.type[:40]} {source.media_type or ''}".strip()
    return UnsupportedParameter(
        f"`{path}` ({what}) cannot be read here. Send its contents as {known}.", param=path
    )
