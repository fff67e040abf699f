"""The turns of a Messages request: blocks on one side, messages with parts on the other."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from helexa.core.chat import Image, Message, Part, Text, ToolCall
from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.wire.messages import body as wire


def read_turns(body: wire.Body) -> tuple[Message, ...]:
    """System prompt and turns as messages.

    Raises:
        InvalidRequestBody, UnsupportedParameter: With the path of the member.
    """
    if body.messages is None:
        raise InvalidRequestBody("The request has no `messages`.", param="messages")
    if not body.messages:
        raise InvalidRequestBody("`messages` is empty; send at least one.", param="messages")
    turns: list[Message] = []
    if body.system:
        turns.append(Message("system", _words(body.system)))
    for index, turn in enumerate(body.messages):
        for message in _turn(turn, f"messages[{index}]"):
            _append(turns, message)
    return tuple(turns)


def _words(content: str | Iterable[wire.TextBlock]) -> tuple[Part, ...]:
    if isinstance(content, str):
        return (Text(content),)
    return tuple(Text(block.text) for block in content)


def _append(turns: list[Message], message: Message) -> None:
    """Turns of one role in a row are one turn, as Anthropic reads them."""
    last = turns[-1] if turns else None
    if last is None or last.role != message.role or message.role not in ("user", "assistant"):
        turns.append(message)
        return
    turns[-1] = Message(
        message.role,
        last.content + message.content,
        last.tool_calls + message.tool_calls,
        last.reasoning + message.reasoning,
    )


def _turn(turn: wire.Turn, path: str) -> list[Message]:
    content = turn.content
    blocks: list[wire.Block]
    blocks = [wire.TextBlock(content)] if isinstance(content, str) else content or []
    if turn.role == "assistant":
        return [_assistant(blocks, path)]
    if turn.role == "user":
        return _user(blocks, path)
    if turn.role == "system":
        parts = [p for i, b in enumerate(blocks) for p in _seen(b, f"{path}.content[{i}]")]
        return [Message("system", tuple(parts))]
    raise InvalidRequestBody(
        f"`{path}.role` is '{turn.role[:40]}'; known roles are user, assistant and system.",
        param=f"{path}.role",
    )


def _assistant(blocks: list[wire.Block], path: str) -> Message:
    parts: list[Part] = []
    calls: list[ToolCall] = []
    reasoning: list[str] = []
    for index, block in enumerate(blocks):
        if isinstance(block, wire.ToolUseBlock):
            calls.append(ToolCall(block.id, block.name, bytes(block.input).decode()))
        elif isinstance(block, wire.ThinkingBlock):
            reasoning.append(block.thinking)
        elif not isinstance(block, wire.RedactedThinkingBlock):  # nobody here can read those
            parts += _seen(block, f"{path}.content[{index}]")
    return Message("assistant", tuple(parts), tuple(calls), "".join(reasoning))


def _user(blocks: list[wire.Block], path: str) -> list[Message]:
    """Results of tools first: a template wants them right behind their calls."""
    results: list[Message] = []
    parts: list[Part] = []
    for index, block in enumerate(blocks):
        here = f"{path}.content[{index}]"
        if isinstance(block, wire.ToolResultBlock):
            results.append(_result(block, here))
        else:
            parts += _seen(block, here)
    if parts or not results:
        results.append(Message("user", tuple(parts)))
    return results


def _result(block: wire.ToolResultBlock, path: str) -> Message:
    content = block.content
    if isinstance(content, str) or content is None:
        parts: tuple[Part, ...] = (Text(content or ""),)
    else:
        seen = [p for i, b in enumerate(content) for p in _seen(b, f"{path}.content[{i}]")]
        parts = tuple(seen) or (Text(""),)
    return Message("tool", parts, tool_call_id=block.tool_use_id)


def _seen(block: wire.Block, path: str) -> list[Part]:
    """What a model is shown of a block."""
    if isinstance(block, wire.TextBlock):
        return [Text(block.text)]
    if isinstance(block, wire.ImageBlock):
        return [Image(_image_url(block.source, f"{path}.source"))]
    if isinstance(block, wire.DocumentBlock):
        return _document(block, path)
    if isinstance(block, wire.SearchResultBlock):
        head = f"{block.title}\n{block.source}\n\n"
        return [Text(head + "\n".join(text.text for text in block.content))]
    raise InvalidRequestBody(f"`{path}` is in the wrong role's turn.", param=path)


def _image_url(source: wire.Source, path: str) -> str:
    if source.type == "base64" and source.data is not None:
        return f"data:{source.media_type or 'image/png'};base64,{source.data}"
    if source.type == "url" and source.url is not None:
        return source.url
    raise _unreadable(source, path, "base64 or url")


def _document(block: wire.DocumentBlock, path: str) -> list[Part]:
    """A document is shown as its text, under its title; what is no text cannot be shown."""
    source = block.source
    head = "".join(f"{line}\n" for line in (block.title, block.context) if line)
    if source.type == "text" and source.data is not None:
        return [Text(f"{head}\n{source.data}" if head else source.data)]
    if source.type == "content" and source.content is not None:
        shown: list[Part] = [Text(head)] if head else []
        if isinstance(source.content, str):
            return [*shown, Text(source.content)]
        inner = enumerate(source.content)
        return shown + [p for i, b in inner for p in _seen(b, f"{path}.source.content[{i}]")]
    if source.type == "base64" and (source.media_type or "").startswith("text/"):
        return [Text(head + _plain_text(source.data or "", f"{path}.source.data"))]
    raise _unreadable(source, f"{path}.source", "text or content")


def _plain_text(data: str, path: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidRequestBody(f"`{path}` is no base64 of UTF-8 text.", param=path) from None


def _unreadable(source: wire.Source, path: str, known: str) -> UnsupportedParameter:
    what = f"{source.type[:40]} {source.media_type or ''}".strip()
    return UnsupportedParameter(
        f"`{path}` ({what}) cannot be read here. Send its contents as {known}.", param=path
    )
