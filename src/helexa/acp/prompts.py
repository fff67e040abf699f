"""A prompt of the editor as parts for the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from helexa.acp.protocol.rpc import INVALID_PARAMS, RpcError
from helexa.core.chat import Image, Part, Text

Json = dict[str, Any]


def parts(blocks: Sequence[Any]) -> tuple[Part, ...]:
    """Text, images, embedded files and links.

    Raises:
        RpcError: A block of another kind, named.
    """
    if not isinstance(blocks, list) or not blocks:
        raise RpcError(INVALID_PARAMS, "`prompt` must be a list of content blocks")
    return tuple(_part(block, i) for i, block in enumerate(blocks))


def _part(block: Any, i: int) -> Part:
    kind = block.get("type") if isinstance(block, dict) else None
    try:
        match kind:
            case "text":
                return Text(_text(block, "text"))
            case "image":
                return Image(f"data:{_text(block, 'mimeType')};base64,{_text(block, 'data')}")
            case "resource" if "text" in block["resource"]:
                resource = block["resource"]
                path, words_ = _path(_text(resource, "uri")), _text(resource, "text")
                return Text(f'<file path="{path}">\n{words_}\n</file>')
            case "resource_link":
                return Text(f"[{_text(block, 'name')}]({_path(_text(block, 'uri'))})")
    except (KeyError, TypeError) as error:
        raise RpcError(INVALID_PARAMS, f"`prompt[{i}]` lacks {error}") from error
    raise RpcError(INVALID_PARAMS, f"`prompt[{i}]`: {kind!r} content cannot be used")


def _text(block: Json, name: str) -> str:
    value = block[name]
    if not isinstance(value, str):
        raise TypeError(f"a string as {name!r}")
    return value


def _path(uri: str) -> str:
    parts_ = urlsplit(uri)
    return unquote(parts_.path) if parts_.scheme == "file" else uri


def words(blocks: Sequence[Any]) -> str:
    """The text of a prompt."""
    return "".join(b.get("text", "") for b in blocks if b.get("type") == "text").strip()
